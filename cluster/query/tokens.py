"""Continue tokens: where a paged list stands and which state it is of.

A token holds, for every partition the list concerns, the version its pages are of, and the last key sent; so
all pages are one state although the partitions were at different versions when the first was cut. A token
without pins goes on from its key with whatever is newest: the API server hands such an *inconsistent* one out
beside a 410, and so does Shoal.

A token of a *partial* list (its caller said that a missing shard may be left out) names the partitions that
are left out. Its pages stay without them, also when the shard is back: otherwise the second half of what it
holds would appear in a list whose first half lacks it, and the list would look complete. Each page says again
what is missing. Who does not ask for a partial answer cannot use such a token: a list does not turn from
incomplete into complete by a parameter left out. The other way round, a list that began complete may become
partial between two pages if the caller says so; from that page on it is, and says so.

A token is bound to its question by a fingerprint and guarded by a checksum. Neither is a secret: a forged
token reaches nothing its bearer may not list anyway.

The form, base64url without padding of: 4 bytes checksum, msgpack of
``[1, fingerprint, epoch, last key, {partition: version}]``, with a sixth element, the list of partitions left
out, where there are any.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from ...shards.model.errors import BadRequest, Expired
from ...shards.model.partitions import Epoch, PartitionId
from ...shards.model.refs import Key
from ...shards.model.versions import Version
from ..serving.options import CONTINUE_EXPIRED, VERSION_EXPIRED

FORMAT = 1
_CHECKSUM_BYTES = 4
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
_FIRST_TWO_BYTE = 0x80
"""The first character Go writes as ``\\u`` and four digits."""
_TOKEN_CHARACTERS_MAX = 1 << 20
"""Longer than a token for ten thousand partitions; what exceeds it is not decoded at all."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a list stands."""

    epoch: Epoch
    """Of the route table the last page was cut by; a reader that knows only older ones refreshes first."""
    after: Key
    """The last key sent."""
    pins: Mapping[PartitionId, Version] = field(default_factory=dict)
    """The version each partition's pages are of; empty: go on with the newest (inconsistent). A partition that
    went missing between two pages keeps its pin."""
    missing: tuple[PartitionId, ...] = ()
    """Partitions that this list goes on without, sorted."""

    @property
    def parts(self) -> frozenset[PartitionId]:
        """All partitions the list was cut from."""
        return frozenset((*self.pins, *self.missing))


def encode_token(position: Position, fingerprint: bytes) -> str:
    """The token of a position in the list with this fingerprint."""
    content = [FORMAT, fingerprint, position.epoch, position.after, dict(position.pins)]
    payload = msgpack.packb([*content, list(position.missing)] if position.missing else content)
    return _encode_base64(_checksum(payload) + payload)


def decode_token(text: str, fingerprint: bytes) -> Position:
    """The position a token stands for.

    Raises:
        BadRequest: it is not a token of Shoal's, was changed, or belongs to another question.
    """
    raw = _decode_base64(text)
    payload = raw[_CHECKSUM_BYTES:]
    if raw[:_CHECKSUM_BYTES] != _checksum(payload) or not payload or _encode_base64(raw) != text:
        # Two texts may decode to the same bytes (spare bits at the end): only the one that was handed out counts.
        raise _not_valid(_foreign(raw))
    match _unpack(payload):
        case [int(version), *_] if version != FORMAT:
            raise _not_valid(f"server does not recognize this encoded version {version}")
        case [int(), bytes(made_for), int(epoch), str(after), dict(pins), *more] if (
            epoch >= 0 and _are_pins(pins) and _are_partitions(more)
        ):
            if made_for != fingerprint:
                raise _not_valid("it belongs to a list of another resource, namespace or selector")
            return Position(Epoch(epoch), Key(after), pins, tuple(more[0]) if more else ())
        case _:
            raise _not_valid("it does not hold a position")


def continue_expired(position: Position, fingerprint: bytes) -> Expired:
    """The error for a position whose state is forgotten, with the token to go on inconsistently."""
    token = encode_token(Position(position.epoch, position.after, missing=position.missing), fingerprint)
    return Expired(CONTINUE_EXPIRED, metadata={"continue": token})


def version_expired() -> Expired:
    """The error for an exact version that is forgotten."""
    return Expired(VERSION_EXPIRED)


def _decode_base64(text: str) -> bytes:
    if len(text) > _TOKEN_CHARACTERS_MAX:
        raise _not_valid("it is too long")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        # A text of the wrong length is wrong at the character that is left over.
        at = next((at for at, character in enumerate(text) if character not in _ALPHABET), len(text) - 1)
        raise _not_valid(f"illegal base64 data at input byte {at}") from None


def _encode_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _foreign(raw: bytes) -> str:
    """What is wrong with a token that is not Shoal's, in kube-apiserver's words for what is not one of its own
    either (theirs are JSON; Go's ``encoding/json`` and ``strconv.Quote``).
    """
    begin = raw.lstrip(b" \t\r\n")[:1].decode("latin-1")
    if not begin:
        return "unexpected end of JSON input"
    if begin in '{["-0123456789tfn':
        return "it was not made here, or was changed"
    match begin:
        case "'" | "\\":
            shown = f"\\{begin}"
        case _ if begin.isprintable():
            shown = begin
        case _ if begin in _ESCAPES:
            shown = _ESCAPES[begin]
        case _:
            shown = f"\\x{ord(begin):02x}" if ord(begin) < _FIRST_TWO_BYTE else f"\\u{ord(begin):04x}"
    return f"invalid character '{shown}' looking for beginning of value"


def _unpack(payload: bytes) -> Any:
    try:
        return msgpack.unpackb(payload, raw=False, strict_map_key=True)
    except Exception:  # noqa: BLE001 - msgpack's own, ValueError, UnicodeDecodeError: all mean garbage
        raise _not_valid("it does not hold a position") from None


def _are_pins(pins: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and type(pin) is int and pin >= 0 for name, pin in pins.items())


def _are_partitions(more: list[Any]) -> bool:
    """Whether what follows the pins is nothing, or one list of partitions that are left out."""
    match more:
        case []:
            return True
        case [list(missing)]:
            return bool(missing) and all(isinstance(name, str) for name in missing)
        case _:
            return False


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_CHECKSUM_BYTES).digest()


def _not_valid(problem: str) -> BadRequest:
    return BadRequest(f"invalid continue token: continue key is not valid: {problem}")
