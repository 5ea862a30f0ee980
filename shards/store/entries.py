"""What is held of one object: an `Entry`, and the `LabelSet` it shares with all objects of equal labels.

Entries never change: a new state is a new entry, so whoever took a reference (history, a captured list) has
that state. They are not tracked by the garbage collector; nothing they refer to leads back to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

import msgspec

from ..model.fields import INDEXED_FIELDS
from ..model.refs import Key
from ..model.versions import Version
from .bodies import Generation

T = TypeVar("T")

Bucket: TypeAlias = T | set[T]
"""One member, or a set of several. An empty ``set`` alone takes 216 bytes, and most buckets have one member.
"""

_DISTINCT_FIELDS: Final = (INDEXED_FIELDS - {"spec.nodeName"}) | {"involvedObject.resourceVersion"}
"""Fields whose values hardly two objects share: interning them would cost memory instead of saving it."""

_decode_labels = msgspec.json.Decoder(dict[str, str]).decode


class LabelSet(msgspec.Struct, gc=False, eq=False):
    """Labels as the server's JSON bytes, and the keys of the objects that carry just these.

    Pods of one ReplicaSet share one. Parsed when asked: a parsed dict takes more memory than many an object.
    """

    raw: bytes
    members: Bucket[Key] | None = None

    def labels(self) -> Mapping[str, str]:
        """The labels, parsed. Empty for what is no map of texts, which no API server accepts as labels."""
        try:
            return _decode_labels(self.raw) if self.raw else {}
        except (msgspec.DecodeError, UnicodeError):
            return {}

    def __len__(self) -> int:
        return bucket_size(self.members)

    def __bool__(self) -> bool:
        return True


class Entry(msgspec.Struct, gc=False, eq=False):
    """One state of one object."""

    key: Key
    uid: str
    version: Version
    labels: LabelSet
    fields: tuple[str, ...]
    packed: bytes
    generation: Generation

    def body(self) -> bytes:
        """The object as JSON bytes."""
        return self.generation.unpack(self.packed)


def shared_fields(names: Sequence[str]) -> tuple[bool, ...]:
    """Of each selectable field whether many objects have the same value: it is then held, and sent, once."""
    return tuple(name not in _DISTINCT_FIELDS for name in names)


def bucket_with(bucket: Bucket[T] | None, member: T) -> Bucket[T]:
    """The bucket with `member` in it."""
    if bucket is None:
        return member
    if isinstance(bucket, set):
        bucket.add(member)
        return bucket
    return bucket if bucket == member else {bucket, member}


def bucket_without(bucket: Bucket[T] | None, member: T) -> Bucket[T] | None:
    """The bucket without `member`; None once it is empty."""
    if isinstance(bucket, set):
        bucket.discard(member)
        return bucket or None
    return None if bucket == member else bucket


def bucket_size(bucket: Bucket[T] | None) -> int:
    """How many members."""
    if bucket is None:
        return 0
    return len(bucket) if isinstance(bucket, set) else 1


def bucket_members(bucket: Bucket[T] | None) -> Iterable[T]:
    """The members, in no order."""
    if bucket is None:
        return ()
    return bucket if isinstance(bucket, set) else (bucket,)
