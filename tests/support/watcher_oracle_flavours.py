"""The ways clients list and watch: what they ask for, how they begin, and in which form they want it.

Each selector stands beside a plain predicate with the same meaning, so that a wrong selector in the server cannot
excuse itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from support.watcher_oracle_truth import Seen

from shoal.shards.model.resources import Resource

CONFIG_MAPS, NODES, PODS = (Resource("", "v1", name) for name in ("configmaps", "nodes", "pods"))

Begin = Literal["list", "pages", "stream", "zero", "unset"]
"""A LIST, a LIST in pages, a streaming list, or a watch that begins with whatever there is."""
Form = Literal["object", "metadata", "table"]

GROUP = "meta.k8s.io"
LIST_ACCEPT: dict[Form, str] = {
    "object": "application/json",
    "metadata": f"application/json;as=PartialObjectMetadataList;g={GROUP};v=v1",
    "table": f"application/json;as=Table;g={GROUP};v=v1",
}
WATCH_ACCEPT: dict[Form, str] = {
    **LIST_ACCEPT,
    "metadata": f"application/json;as=PartialObjectMetadata;g={GROUP};v=v1",
}


def every(state: Seen) -> bool:
    """No selector."""
    return True


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One kind of watcher."""

    name: str
    resource: Resource
    namespace: str | None = None
    selectors: tuple[tuple[str, str], ...] = ()
    """Query parameters."""
    matches: Callable[[Seen], bool] = every
    """What the selectors mean, of a whole object."""
    shown: Callable[[Seen], bool] | None = None
    """The part of `matches` that can be judged by metadata alone; None: all of it."""
    begin: Begin = "list"
    form: Form = "object"
    bookmarks: bool = True
    demands: bool = False
    """A new list asks for NotOlderThan the last version seen, as client-go does, else for the newest state."""

    def wants(self, state: Seen) -> bool:
        """Whether a whole object belongs to what is watched."""
        return (self.namespace is None or state.namespace == self.namespace) and self.matches(state)

    def shows(self, state: Seen) -> bool:
        """Whether what a line says of an object allows it to be there."""
        if state.fields is None and self.shown is not None:
            return (self.namespace is None or state.namespace == self.namespace) and self.shown(state)
        return self.wants(state)

    @property
    def path(self) -> str:
        """Path of the collection."""
        return self.resource.path(self.namespace)


def _tier(value: str) -> Callable[[Seen], bool]:
    return lambda state: state.labels.get("tier") == value


def _on(node: str) -> Callable[[Seen], bool]:
    return lambda state: (state.fields or {}).get("spec.nodeName") == node


def _hash(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) % (1 << 64)
    return value


def _low_half(state: Seen) -> bool:
    return _hash(state.uid) < 1 << 63


LOW_HALF = "shardRange(object.metadata.uid, '0x0000000000000000', '0x8000000000000000')"


def flavours(namespace: str = "alpha", *, shard_selector: bool = True) -> tuple[Flavour, ...]:
    """All of them; `namespace` is one that has objects."""
    found = (
        Flavour(name="plain", resource=CONFIG_MAPS, demands=True),
        Flavour(name="no bookmarks", resource=CONFIG_MAPS, bookmarks=False),
        Flavour(name="pages", resource=CONFIG_MAPS, begin="pages", demands=True),
        Flavour(name="streaming list", resource=CONFIG_MAPS, begin="stream", demands=True),
        Flavour(name="from 0", resource=CONFIG_MAPS, begin="zero"),
        Flavour(name="from nothing", resource=CONFIG_MAPS, begin="unset", bookmarks=False),
        Flavour(
            name="by label",
            resource=CONFIG_MAPS,
            selectors=(("labelSelector", "tier=front"),),
            matches=_tier("front"),
        ),
        Flavour(
            name="by label, streaming list",
            resource=CONFIG_MAPS,
            begin="stream",
            selectors=(("labelSelector", "tier in (front, back)"),),
            matches=lambda state: state.labels.get("tier") in ("front", "back"),
        ),
        Flavour(
            name="without some",
            resource=CONFIG_MAPS,
            selectors=(("fieldSelector", f"metadata.namespace!={namespace}"),),
            matches=lambda state: state.namespace != namespace,
        ),
        Flavour(name="one namespace", resource=CONFIG_MAPS, namespace=namespace, begin="pages"),
        Flavour(name="metadata", resource=CONFIG_MAPS, form="metadata"),
        Flavour(name="Table", resource=CONFIG_MAPS, form="table"),
        Flavour(name="nodes", resource=NODES, begin="stream", demands=True),
        Flavour(name="nodes, Table", resource=NODES, begin="list", form="table"),
        Flavour(
            name="one node's pods",
            resource=PODS,
            selectors=(("fieldSelector", "spec.nodeName=node-1"),),
            matches=_on("node-1"),
            shown=every,
        ),
        Flavour(
            name="one node's pods, metadata",
            resource=PODS,
            begin="stream",
            form="metadata",
            selectors=(("fieldSelector", "spec.nodeName=node-2"), ("labelSelector", "tier!=front")),
            matches=lambda state: _on("node-2")(state) and not _tier("front")(state),
            shown=lambda state: not _tier("front")(state),
        ),
        Flavour(name="one namespace's pods, Table", resource=PODS, namespace=namespace, form="table"),
    )
    if not shard_selector:
        return found
    return (
        *found,
        Flavour(
            name="half of the hashes",
            resource=PODS,
            selectors=(("shardSelector", LOW_HALF),),
            matches=_low_half,
        ),
        Flavour(
            name="half of the hashes, streaming list",
            resource=CONFIG_MAPS,
            begin="stream",
            selectors=(("shardSelector", LOW_HALF), ("labelSelector", "tier=front")),
            matches=lambda state: _low_half(state) and _tier("front")(state),
        ),
    )
