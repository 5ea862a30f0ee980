"""The columns of storage: volumes, claims and classes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from .cells import AGE, NAME, UNSET, Cell, Column, Meta, Printer, View, created

_MODES = (
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
)
_DEFAULT_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def _modes_text(modes: Sequence[str] | None) -> str:
    return ",".join(short for mode, short in _MODES if mode in (modes or ()))


def _class(named: str | None, meta: Meta) -> str:
    """The storage class of a volume or claim: the annotation of old has precedence."""
    beta = (meta.annotations or {}).get("volume.beta.kubernetes.io/storage-class")
    return beta if beta is not None else named or ""


class _Capacity(msgspec.Struct, frozen=True):
    storage: str = ""


def _size(capacity: _Capacity | None) -> str:
    """A size that is not said is a quantity of nothing."""
    return (capacity.storage if capacity is not None else "") or "0"


# -- volumes --------------------------------------------------------------------------------------------


class _ClaimReference(msgspec.Struct, frozen=True):
    namespace: str = ""
    name: str = ""


class _VolumeSpec(msgspec.Struct, frozen=True, rename="camel"):
    capacity: _Capacity | None = None
    access_modes: list[str] | None = None
    persistent_volume_reclaim_policy: str = ""
    claim_ref: _ClaimReference | None = None
    storage_class_name: str = ""
    volume_attributes_class_name: str | None = None
    volume_mode: str | None = None


class _VolumeStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    reason: str = ""


class VolumeView(View, frozen=True):
    """The fields of a persistent volume that its cells rest on."""

    spec: _VolumeSpec = _VolumeSpec()
    status: _VolumeStatus = _VolumeStatus()


def _volume(view: VolumeView, meta: Meta, now: datetime) -> list[Cell]:
    spec, claim = view.spec, view.spec.claim_ref
    return [
        meta.name,
        _size(spec.capacity),
        _modes_text(spec.access_modes),
        spec.persistent_volume_reclaim_policy,
        "Terminating" if meta.deletion_timestamp is not None else view.status.phase,
        f"{claim.namespace}/{claim.name}" if claim is not None else "",
        _class(spec.storage_class_name, meta),
        spec.volume_attributes_class_name or UNSET,
        view.status.reason,
        created(meta, now),
        spec.volume_mode or UNSET,
    ]


VOLUMES = Printer(
    (
        NAME,
        Column("Capacity", description="Size of the volume."),
        Column("Access Modes", description="Ways the volume can be mounted."),
        Column("Reclaim Policy", description="What happens to the volume when its claim goes."),
        Column(
            "Status", description="Whether the volume is available, bound to a claim, or released by one."
        ),
        Column("Claim", description="The claim the volume is bound to."),
        Column("StorageClass", description="StorageClass of the pv"),
        Column("VolumeAttributesClass", description="VolumeAttributesClass of the pv"),
        Column("Reason", description="Why the volume is in a failed state."),
        AGE,
        Column("VolumeMode", description="File system or raw block device.", priority=1),
    ),
    VolumeView,
    _volume,
)


# -- claims ---------------------------------------------------------------------------------------------


class _ClaimSpec(msgspec.Struct, frozen=True, rename="camel"):
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_attributes_class_name: str | None = None
    volume_mode: str | None = None


class _ClaimStatus(msgspec.Struct, frozen=True, rename="camel"):
    phase: str = ""
    capacity: _Capacity | None = None
    access_modes: list[str] | None = None


class ClaimView(View, frozen=True):
    """The fields of a persistent volume claim that its cells rest on."""

    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus = _ClaimStatus()


def _claim(view: ClaimView, meta: Meta, now: datetime) -> list[Cell]:
    spec, status = view.spec, view.status
    bound = bool(spec.volume_name)  # an unbound claim has neither size nor modes yet
    return [
        meta.name,
        "Terminating" if meta.deletion_timestamp is not None else status.phase,
        spec.volume_name,
        _size(status.capacity) if bound else "",
        _modes_text(status.access_modes) if bound else "",
        _class(spec.storage_class_name, meta),
        spec.volume_attributes_class_name or UNSET,
        created(meta, now),
        spec.volume_mode or UNSET,
    ]


CLAIMS = Printer(
    (
        NAME,
        Column("Status", description="Whether the claim is bound to a volume."),
        Column("Volume", description="The volume the claim is bound to."),
        Column("Capacity", description="Size of the volume."),
        Column("Access Modes", description="Ways the volume can be mounted."),
        Column("StorageClass", description="StorageClass of the pvc"),
        Column("VolumeAttributesClass", description="VolumeAttributesClass of the pvc"),
        AGE,
        Column("VolumeMode", description="File system or raw block device.", priority=1),
    ),
    ClaimView,
    _claim,
)


# -- classes --------------------------------------------------------------------------------------------


class StorageClassView(View, frozen=True):
    """The fields of a storage class that its cells rest on."""

    provisioner: str = ""
    reclaim_policy: str = "Delete"
    volume_binding_mode: str = "Immediate"
    allow_volume_expansion: bool = False


def _storage_class(view: StorageClassView, meta: Meta, now: datetime) -> list[Cell]:
    annotations = meta.annotations or {}
    default = any(annotations.get(key) == "true" for key in _DEFAULT_CLASS)
    return [
        f"{meta.name} (default)" if default else meta.name,
        view.provisioner,
        view.reclaim_policy,
        view.volume_binding_mode,
        view.allow_volume_expansion,
        created(meta, now),
    ]


STORAGE_CLASSES = Printer(
    (
        NAME,
        Column("Provisioner", description="Who makes the volumes of this class."),
        Column("ReclaimPolicy", description="What happens to a volume when its claim goes."),
        Column("VolumeBindingMode", description="When a claim is bound to a volume."),
        Column("AllowVolumeExpansion", description="Whether volumes of this class can grow."),
        AGE,
    ),
    StorageClassView,
    _storage_class,
)
