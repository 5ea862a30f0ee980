"""Secrets without their values: what ``follow.secrets: redact`` leaves of an object. Pure.

Kept are identity and metadata, ``type``, ``immutable``, and the keys of ``data`` and ``stringData``, each with an empty
value. Members nobody knows are dropped, because nobody knows what is in them, and so are annotations but for those that
name other objects (`ANNOTATIONS`): tools keep copies of whole objects there, and a value may stand in one in more
encodings than can be looked for. Labels stay, because selectors need them; they are 63 characters of a small alphabet,
and one that repeats a value, plain, in Base64 or in hexadecimal, stays without its own.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw

_VALUES: Final = ("data", "stringData")
_KEPT: Final = ("kind", "apiVersion", "metadata", "type", "immutable", *_VALUES)
_METADATA: Final = frozenset(
    {
        "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp",
        "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers",
    }
)  # fmt: skip
ANNOTATIONS: Final = frozenset(
    {
        "kubernetes.io/service-account.name",
        "kubernetes.io/service-account.uid",
        "meta.helm.sh/release-name",
        "meta.helm.sh/release-namespace",
        "cert-manager.io/certificate-name",
        "cert-manager.io/issuer-name",
    }
)
"""Annotations that are kept: names of objects, written by controllers."""
TELLING_CHARS: Final = 4
"""A value shorter than this is found by chance in any text; only a label that is equal to it repeats it."""
LABEL_CHARS_MAX: Final = 63
"""A longer value, or line of one, does not fit into a label."""

_decode_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_encode: Final = msgspec.json.Encoder().encode


def redact(members: dict[str, Raw], metadata: dict[str, Raw]) -> None:
    """Takes the values out of the members of an object and of its metadata, in place."""
    values: set[str] = set()
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
            values.update(_forms(_text(value)))
        members[name] = Raw(_encode(dict.fromkeys(entries, "")))
    for name in [name for name in metadata if name not in _METADATA]:
        del metadata[name]
    _keep(
        metadata,
        "annotations",
        {name: _text(value) for name, value in _named(metadata) if name in ANNOTATIONS},
    )
    labels = _members(metadata.get("labels"))
    if labels or "labels" in metadata:
        texts = ((name, _text(value)) for name, value in (labels or {}).items())
        _keep(metadata, "labels", {name: "" if _repeats(text, values) else text for name, text in texts})


def _named(metadata: dict[str, Raw]) -> Iterable[tuple[str, Raw]]:
    return (_members(metadata.get("annotations")) or {}).items()


def _keep(metadata: dict[str, Raw], name: str, texts: dict[str, str]) -> None:
    metadata.pop(name, None)
    if texts:
        metadata[name] = Raw(_encode(texts))


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
    """What of a value a label may hold, in small letters: it, each of its lines, and both decoded and encoded."""
    known = [value.encode("utf-8", "surrogatepass")]
    with contextlib.suppress(binascii.Error, ValueError):
        known.append(base64.b64decode(value, validate=True))
    for content in known:
        for part in {content, *content.splitlines()}:
            if not part.strip() or len(part) > LABEL_CHARS_MAX:
                continue
            coded = (base64.b64encode(part), base64.b64encode(part + b"\n"), base64.urlsafe_b64encode(part))
            for form in (part, part.strip(), *(one.rstrip(b"=") for one in coded), part.hex().encode()):
                yield form.decode(errors="replace").lower()


def _repeats(label: str, values: Iterable[str]) -> bool:
    text = label.lower()
    return bool(text) and any(
        value == text or (len(value) >= TELLING_CHARS and value in text) for value in values
    )
