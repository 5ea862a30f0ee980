"""The election record, in a Lease of ``coordination.k8s.io/v1``: between documents and values. Pure.

Times in it are for people (``kubectl get lease``) and for others' eyes to see that something changed; they are
written, handed on and compared for equality, never read as times (`election`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

API_VERSION, KIND = "coordination.k8s.io/v1", "Lease"


class LeaseRecord(msgspec.Struct, frozen=True):
    """Who leads, since when, and how long others have to leave them alone."""

    holder: str = ""
    """Identity of the leader; empty if nobody leads."""
    duration_s: int = 0
    """Seconds without a change after which anybody may take over."""
    acquire_time: str = ""
    renew_time: str = ""
    transitions: int = 0
    """How many times the holder has changed."""


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct):
    spec: _Spec | None = None


def record_of(document: Mapping[str, Any]) -> LeaseRecord:
    """The record in a Lease; what is missing is empty.

    Raises:
        msgspec.ValidationError: it is not the form of a Lease.
    """
    spec = msgspec.convert(document, _Lease).spec or _Spec()
    return LeaseRecord(
        spec.holder_identity or "",
        spec.lease_duration_seconds or 0,
        spec.acquire_time or "",
        spec.renew_time or "",
        spec.lease_transitions or 0,
    )


def new_lease(namespace: str, name: str, labels: Mapping[str, str], record: LeaseRecord) -> dict[str, Any]:
    """A Lease to create."""
    metadata: dict[str, Any] = {"namespace": namespace, "name": name}
    if labels:
        metadata["labels"] = dict(labels)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": _spec(record)}


def changed_lease(
    document: Mapping[str, Any], labels: Mapping[str, str], record: LeaseRecord
) -> dict[str, Any]:
    """The Lease with another record: an update that fails if somebody else's came first, by its version.

    Metadata stay, with `labels` over those that are there; of the spec nothing but the record stays.
    """
    metadata = dict(document.get("metadata") or {})
    if labels:
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    return {**document, "metadata": metadata, "spec": _spec(record)}


def micro_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, which is what a ``MicroTime`` has to be.

    Raises:
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment.isoformat()} has no time zone: the clock has to tell it, as datetime.now(UTC)"
        )
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _spec(record: LeaseRecord) -> dict[str, Any]:
    return {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": record.duration_s,
        "acquireTime": record.acquire_time,
        "renewTime": record.renew_time,
        "leaseTransitions": record.transitions,
    }
