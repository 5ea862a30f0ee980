"""Secrets without their values: what ``follow.secrets: redact`` leaves of an object. Pure.

Kept are identity and metadata, ``type``, ``immutable``, and the keys of ``data`` and ``stringData``, each with an empty
value. Members nobody knows are dropped, because nobody knows what is in them. So is everything in the metadata that
repeats an object: ``managedFields``, the annotation ``kubectl apply`` keeps its input in, those of other tools, and
any annotation in which one of the values, or something that looks like the data of a Secret, is found.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw

_VALUES: Final = ("data", "stringData")
_KEPT: Final = ("kind", "apiVersion", "metadata", "type", "immutable", *_VALUES)
_COPIES: Final = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        "kapp.k14s.io/original",
        "kapp.k14s.io/original-diff",
        "objectset.rio.cattle.io/applied",
        "banzaicloud.com/last-applied",
    }
)
_DATA_LIKE: Final = ('"data"', '"stringData"')
TELLING_CHARS: Final = 4
"""A value shorter than this is found by chance in any text."""

_decode_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_encode: Final = msgspec.json.Encoder().encode


def redact(members: dict[str, Raw], metadata: dict[str, Raw]) -> None:
    """Takes the values out of the members of an object and of its metadata, in place."""
    values: list[str] = []
    for name in [name for name in members if name not in _KEPT]:
        del members[name]
    for name in _VALUES:
        if name not in members or bytes(members[name]) == b"null":
            continue
        entries = _members(members[name])
        if entries is None:
            # No API server sends it; one such object must not keep the others from being followed.
            del members[name]
            continue
        for value in entries.values():
            values += _forms(_text(value))
        members[name] = Raw(_encode(dict.fromkeys(entries, "")))
    metadata.pop("managedFields", None)
    annotations = _members(metadata.pop("annotations", None))
    kept = {
        name: text
        for name, value in (annotations or {}).items()
        if name not in _COPIES and not _repeats(text := _text(value), values)
    }
    if kept:
        metadata["annotations"] = Raw(_encode(kept))


def _members(raw: Raw | None) -> dict[str, Raw] | None:
    """The members of what should be an object; None for anything else."""
    if raw is None:
        return None
    try:
        return _decode_members(raw)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _text(raw: Raw) -> str:
    try:
        return _decode_text(raw)
    except (msgspec.DecodeError, UnicodeError):
        return ""


def _forms(value: str) -> Iterable[str]:
    """The value as it stands there, and as it reads decoded or encoded."""
    yield value
    yield base64.b64encode(value.encode()).decode()
    try:
        yield base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        return


def _repeats(text: str, values: Iterable[str]) -> bool:
    if any(sign in text for sign in _DATA_LIKE):
        return True
    return any(len(value) >= TELLING_CHARS and value in text for value in values)
