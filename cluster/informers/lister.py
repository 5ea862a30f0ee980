"""Reading what an informer holds: synchronous, in memory, one state at a time.

What is read is the informer's state, which handlers may not have been told of yet. Lists are in the API server's order
and made of references: an object's body is unpacked when it is read. Selectors take the API server's grammar; labels
and indexed fields are answered from indexes.

Another thread than that of the informer's event loop has that loop read for it, so that threads that read all the time
do not keep the loop from writing. A loop that does not come to it within `LOOK_S` is blocked, or has ended: then the
thread reads itself, under the lock that keeps anybody from seeing half a write (`store.consistent`).

Before the first list nothing is known, and reading raises NotReady rather than saying that there is nothing.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from builtins import list as _list
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Concatenate, Final, ParamSpec, TypeVar

from ...shards.model.errors import BadRequest, NotReady
from ...shards.model.refs import Key, key_of
from .indexers import Indexers
from .objects import KubeObject
from .store import InformerStore, consistent, object_of

P = ParamSpec("P")
R = TypeVar("R")

LOOK_S: Final = 0.2
"""For so long a thread waits for the loop to read for it. The loop may be waiting for that very thread."""


def _on_its_loop(
    method: Callable[Concatenate[LocalLister, P], R],
) -> Callable[Concatenate[LocalLister, P], R]:
    """The method, done on the lister's loop whichever thread calls it."""

    def read(self: LocalLister, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if threading.get_ident() == self.thread:
            with consistent:
                return method(self, *args, **kwargs)
        return _elsewhere(self.loop, functools.partial(method, self, *args, **kwargs))

    functools.update_wrapper(read, method)
    return read


def _elsewhere(loop: asyncio.AbstractEventLoop, function: Callable[[], R]) -> R:
    found: Future[R] = Future()

    def called() -> None:
        if not found.set_running_or_notify_cancel():
            return
        try:
            with consistent:
                found.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised where it was called
            found.set_exception(error)

    try:
        loop.call_soon_threadsafe(called)
    except RuntimeError:
        # It has been closed.
        found.cancel()
    wait([found], LOOK_S)
    if not found.cancel():
        return found.result()
    with consistent:
        return function()


class LocalLister:
    """The objects of one informer. Made by `Informer.lister`."""

    def __init__(
        self, name: str, store: Callable[[], InformerStore | None], indexers: Indexers, namespace: str | None
    ) -> None:
        self._name = name
        self._store = store
        self._indexers = indexers
        self._namespace = namespace
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()

    @_on_its_loop
    def __len__(self) -> int:
        return len(self._synced())

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[KubeObject]:
        return iter(self.list())

    @_on_its_loop
    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._synced().entry(Key(key)) is not None

    @_on_its_loop
    def get(self, name: str, namespace: str | None = None) -> KubeObject | None:
        """One object; None if there is none. `namespace` may be left out for cluster-scoped objects, and where the
        informer follows one namespace.

        Raises:
            NotReady: no list was complete yet.
            BadRequest: the namespace is missing.
        """
        store = self._synced()
        if not store.resource_type.namespaced:
            return self.get_by_key(Key(name))
        namespace = namespace or self._namespace
        if not namespace:
            raise BadRequest(f"{self._name}: objects are in namespaces; say in which {name!r} is")
        return self.get_by_key(key_of(namespace, name))

    @_on_its_loop
    def get_by_key(self, key: Key | str) -> KubeObject | None:
        """One object by ``namespace/name`` (``name`` for cluster-scoped ones); None if there is none.

        Raises:
            NotReady: no list was complete yet.
        """
        entry = self._synced().entry(Key(key))
        return None if entry is None else object_of(entry)

    @_on_its_loop
    def list(
        self, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> _list[KubeObject]:
        """All objects that meet the selectors, in the API server's order.

        Raises:
            NotReady: no list was complete yet.
            BadRequest: a selector that cannot be parsed, or a field that is not selectable.
        """
        store = self._synced()
        found = store.found(namespace=namespace, labels=label_selector, fields=field_selector)
        return [object_of(entry) for entry in found]

    @_on_its_loop
    def count(
        self, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> int:
        """How many `list` would give. Raises as it."""
        return self._synced().size(namespace=namespace, labels=label_selector, fields=field_selector)

    @_on_its_loop
    def by_index(self, name: str, value: str) -> _list[KubeObject]:
        """The objects that a local index (`Informer.add_index`) knows by a value.

        Raises:
            NotReady: no list was complete yet.
            NotFound: there is no such index.
        """
        index, store = self._indexers.named(name), self._synced()
        entries = [store.entry(key) for key in index.keys(value)]
        return [object_of(entry) for entry in entries if entry is not None]

    @_on_its_loop
    def keys_by_index(self, name: str, value: str) -> _list[Key]:
        """The keys of `by_index`. Raises as it."""
        index = self._indexers.named(name)
        self._synced()
        return index.keys(value)

    @_on_its_loop
    def index_values(self, name: str) -> _list[str]:
        """The values that a local index knows, sorted. Raises as `by_index`."""
        index = self._indexers.named(name)
        self._synced()
        return index.values()

    def _synced(self) -> InformerStore:
        store = self._store()
        if store is None or not store.synced:
            raise NotReady(f"{self._name} is not synced yet: await informer.synced() first", retry_after_s=1)
        return store
