"""Objects as a program reads them: the API's own names, decoded only as far as somebody looks.

A `KubeObject` is one state of one object. It is made of the JSON bytes a server sent, or of a function that will
give them, and decodes nothing before the first read. The first read splits it into its members and theirs (values
stay bytes, as ``msgspec.Raw``); from there on each level that is entered is split once, and kept. Three fields of a
5 KB pod cost about 10 us, one of them 6 us, and leave some fifty small values behind. A full parse costs 10 us with
msgspec and 19 us with json before anything is read, and leaves hundreds of dictionaries and texts.

    >>> pod = KubeObject.from_dict({
    ...     "kind": "Pod", "apiVersion": "v1",
    ...     "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
    ...     "spec": {"containers": [{"name": "main", "image": "nginx"}]},
    ... })
    >>> pod.key, pod.spec.containers[0].image, pod.labels["app"]
    ('shop/web-1', 'nginx', 'web')
    >>> pod.get("spec", "nodeName", default="not scheduled")
    'not scheduled'

Members whose names are no identifiers, or are methods here (``items``, ``keys``, ``get``), are read by
``node["items"]``. Reading an absent member raises, naming what is there; `FieldMap.get` is the forgiving way.

What it keeps true: nothing of it ever changes, so an object may be handed to any number of handlers and threads (two
threads that read a level first both decode it, to equal values). A function given for the body has to bear being
called from whichever thread reads first. Equality of objects is identity and version, not contents. Validation is the
API server's: what is no JSON object raises Garbage when it is read, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from ...shards.model.errors import Garbage
from ...shards.model.refs import Key, key_of, ref_of
from .nodes import UNREAD, FieldMap, decoded, entered, parse, set_members, set_path, split_twice

Body: TypeAlias = bytes | Callable[[], bytes]


class KubeObject(FieldMap):
    """One state of one object of the API server.

    Args:
        body: The object's JSON, or a function that gives it once something is read that needs it.
        key: ``namespace/name``, where known; `name` and `namespace` then cost no decoding.
        uid: Its uid, where known.
        version: Its resource version, where known; 0 otherwise.
    """

    __slots__ = ("_body", "_key", "_uid", "_version")

    _body: Body
    _key: Key | None
    _uid: str
    _version: int

    def __init__(self, body: Body, key: Key | None = None, *, uid: str = "", version: int = 0) -> None:
        set_members(self, _UNSPLIT)
        set_path(self, ())
        _set_body(self, body)
        _set_key(self, key)
        _set_uid(self, uid)
        _set_version(self, version)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> KubeObject:
        """An object of a parsed document, which is copied."""
        return cls(msgspec.json.encode(document))

    def _open(self) -> dict[str, Any]:
        members = self._members
        if members is _UNSPLIT:
            members = decoded(split_twice, self.raw, self._where())
            set_members(self, members)
        return members

    def _where(self) -> str:
        # Without decoding: this is part of the message for what cannot be decoded.
        return f"object {self._key}" if self._key else "the object"

    # Every object has these. As properties they are known to editors, and spare what an AttributeError inside
    # Python costs before it asks `__getattr__` (0.6 us).

    @property
    def kind(self) -> str:
        """``Pod``."""
        return self._text("kind")

    @property
    def apiVersion(self) -> str:  # noqa: N802 - the API's name
        """``apps/v1``."""
        return self._text("apiVersion")

    @property
    def metadata(self) -> Any:
        """Name, labels, owners and the like."""
        return self._member("metadata")

    @property
    def spec(self) -> Any:
        """What is wanted, of kinds that have it."""
        return self._member("spec")

    @property
    def status(self) -> Any:
        """What is, of kinds that have it."""
        return self._member("status")

    def __bool__(self) -> bool:
        return True  # and without decoding

    def _text(self, name: str) -> str:
        value = self._open().get(name, "")
        return str(entered(value, (name,)))

    def _member(self, name: str) -> Any:
        members = self._open()
        value = members.get(name, _UNSPLIT)
        if type(value) in UNREAD:
            if value is _UNSPLIT:
                raise AttributeError(name)  # Python goes on to __getattr__, whose message says more
            value = members[name] = entered(value, (name,))
        return value

    @property
    def raw(self) -> bytes:
        """The object as JSON bytes: the server's own, without what was dropped on the way (managedFields)."""
        body = self._body
        if not isinstance(body, bytes):
            body = body()
            _set_body(self, body)
        return body

    @property
    def key(self) -> Key:
        """``namespace/name``, or ``name`` for a cluster-scoped object."""
        key = self._key
        if key is None:
            key = key_of(self.get("metadata", "namespace") or "", self.get("metadata", "name") or "")
            _set_key(self, key)
        return key

    @property
    def name(self) -> str:
        """``metadata.name``."""
        return ref_of(self.key).name

    @property
    def namespace(self) -> str:
        """``metadata.namespace``; empty for a cluster-scoped object."""
        return ref_of(self.key).namespace

    @property
    def uid(self) -> str:
        """``metadata.uid``; empty for what has none (metrics, reviews)."""
        return self._uid or self.get("metadata", "uid") or ""

    @property
    def resource_version(self) -> str:
        """``metadata.resourceVersion``; empty for what has none."""
        return str(self._version) if self._version else self.get("metadata", "resourceVersion") or ""

    @property
    def labels(self) -> dict[str, str]:
        """``metadata.labels``, in a dictionary of the caller's own; empty if there are none."""
        return self._texts("labels")

    @property
    def annotations(self) -> dict[str, str]:
        """``metadata.annotations`` as `labels`."""
        return self._texts("annotations")

    def _texts(self, name: str) -> dict[str, str]:
        found = self.get("metadata", name)
        return found.to_dict() if isinstance(found, FieldMap) else {}

    def to_dict(self) -> dict[str, Any]:
        """As `FieldMap.to_dict`."""
        document = decoded(parse, self.raw, self._where())
        if not isinstance(document, dict):
            raise Garbage(f"{self._where()} is not a JSON object")
        return document

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KubeObject):
            return NotImplemented
        if self is other:
            return True
        if self._identity() != other._identity():
            return False
        # What carries no version (metrics, documents not written yet) is told apart by its contents.
        return bool(self.uid and self.resource_version) or self.to_dict() == other.to_dict()

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self._identity())

    def _identity(self) -> tuple[str, str, str]:
        return self.key, self.uid, self.resource_version

    def __repr__(self) -> str:
        try:
            return f"<{self.kind or 'object'} {self.key} resourceVersion={self.resource_version or 'none'}>"
        except (Garbage, TypeError):
            return f"<unreadable {self._where()}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.raw, self._key, self._uid, self._version)


_set_body: Final[Any] = vars(KubeObject)["_body"].__set__
_set_key: Final[Any] = vars(KubeObject)["_key"].__set__
_set_uid: Final[Any] = vars(KubeObject)["_uid"].__set__
_set_version: Final[Any] = vars(KubeObject)["_version"].__set__
_UNSPLIT: Final[dict[str, Any]] = {}
"""Members of an object that nobody has read yet."""


def _unpickled(body: bytes, key: Key | None, uid: str, version: int) -> KubeObject:
    return KubeObject(body, key, uid=uid, version=version)
