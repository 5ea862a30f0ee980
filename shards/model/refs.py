"""Identity of one object within its resource, and the text form it is sorted and stored by.

kube-apiserver keeps objects in etcd under ``…/NAMESPACE/NAME`` (``…/NAME`` for cluster-scoped ones) and lists
them in the byte order of that key. A `Key` is that tail, so sorting keys as text *is* the API server's order
(``a-b/x`` comes before ``a/x``, because ``-`` sorts before ``/``); names hold no slash, so it splits back.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

Key = NewType("Key", str)
"""``namespace/name``, or ``name`` for a cluster-scoped object."""


class ObjectRef(NamedTuple):
    """Namespace (empty for cluster-scoped objects) and name."""

    namespace: str
    name: str

    @property
    def key(self) -> Key:
        """The text the object is stored and sorted by."""
        return key_of(self.namespace, self.name)


def key_of(namespace: str, name: str) -> Key:
    """The key of an object; `namespace` is empty for a cluster-scoped one."""
    return Key(f"{namespace}/{name}" if namespace else name)


def ref_of(key: Key) -> ObjectRef:
    """The ref a key was made of."""
    namespace, slash, name = key.partition("/")
    return ObjectRef(namespace, name) if slash else ObjectRef("", namespace)


def namespace_range(namespace: str) -> tuple[str, str]:
    """Half-open range of the keys of one namespace: ``0`` is the character after ``/``."""
    return f"{namespace}/", f"{namespace}0"
