"""Which state a query is answered from: one pure table for GET, LIST and WATCH.

The semantics are kube-apiserver's
(https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list,
``apiserver/pkg/storage/util.go`` `ValidateListOptions`, ``cacher/delegator/interface.go``,
``cacher/cacher.go`` `Watch` and ``cacher/watch_cache.go`` `getAllEventsSinceLocked`):

================  ==========  =========  ===========================================
a LIST: match     paging      version    is answered by
================  ==========  =========  ===========================================
(none)            any         unset      the newest state held
(none)            any         0          the newest state held; the limit is ignored
(none)            no limit    V          the newest state, once it has reached V
(none)            limit       V          exactly V
(none)            continue    unset, 0   the versions the token pins
(none)            continue    V          400
NotOlderThan      any         0          the newest state held; the limit is ignored
NotOlderThan      any         V          the newest state, once it has reached V
Exact             any         V          exactly V
================  ==========  =========  ===========================================

=====================  =========  ==============================================================
a WATCH:
sendInitialEvents      version    begins with
=====================  =========  ==============================================================
(none)                 unset, 0   an ADDED line for each object of the newest state held
(none), false          V          what happened after V
true                   unset, 0   the same lines as without, then the bookmark that ends them
true                   V          the same of a state that has reached V, then that bookmark
false                  unset, 0   what happens from now on
=====================  =========  ==============================================================

A GET is the newest state, once it has reached the version it names; it knows no match. All other combinations
are 422 and were refused when the parameters were read (`serving.options`). A watch has no limit and is not
continued: kube-apiserver ignores both. Its closing bookmark is sent only to who allows bookmarks.

*The newest state held* is where Shoal differs from the API server: with the version unset, the API server
answers with a state no older than the moment of the request, Shoal with the newest it has been told of, and
says how fresh that is. What was written through this gateway is included always: `floor` is the newest
version such a write was answered with (`query.floor`), and an unset version means "not older than that". A
version 0 asks for no more than what is at hand; it waits only where partitions are so far apart that no watch of
them all could begin at the list's version (`listing`).

A version that is forgotten (410) or not reached in time (504) is found out by those who hold the partitions,
not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from ...shards.model.errors import BadRequest
from ...shards.model.versions import UNKNOWN, Version
from ..serving.options import AnyVersion, Exact, ListOptions, MostRecent, NotOlderThan

WAIT_S = 3.0
"""How long a version that is not reached yet is waited for: kube-apiserver's ``blockTimeout``
(``storage/cacher/watch_cache.go``)."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest state held, once it has reached `not_older_than`."""

    not_older_than: Version = UNKNOWN


@dataclass(frozen=True, slots=True)
class Exactly:
    """The state at one version."""

    version: Version


@dataclass(frozen=True, slots=True)
class Continued:
    """The state an earlier page was of, as its token says."""

    token: str


Basis: TypeAlias = Newest | Exactly | Continued


@dataclass(frozen=True, slots=True)
class Decision:
    """The state to answer from, and the page size that applies (0: everything)."""

    basis: Basis
    limit: int = 0


@dataclass(frozen=True, slots=True)
class InitialEvents:
    """A watch that begins with an ADDED line for every object of the newest state, once it has reached
    `not_older_than`.
    """

    not_older_than: Version = UNKNOWN
    bookmark_end: bool = False
    """A bookmark annotated ``k8s.io/initial-events-end`` follows them."""

    @property
    def decision(self) -> Decision:
        """The list that these events are made of."""
        return Decision(Newest(self.not_older_than))


@dataclass(frozen=True, slots=True)
class FromVersion:
    """A watch of what happened after a version; one that is not reached yet is waited for in silence."""

    version: Version


@dataclass(frozen=True, slots=True)
class FromNow:
    """A watch of what happens from now on, nothing before it; *now* has reached `not_older_than`."""

    not_older_than: Version = UNKNOWN


WatchBasis: TypeAlias = InitialEvents | FromVersion | FromNow


def decide_list(options: ListOptions, floor: Version = UNKNOWN) -> Decision:
    """Looks a list up in the table above.

    Raises:
        BadRequest: a version that is not a number, or one beside a continue token.
    """
    if options.continue_token:
        if options.resource_version not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        return Decision(Continued(options.continue_token), options.limit)
    demand = options.demand()
    match demand:
        case MostRecent():
            return Decision(Newest(floor), options.limit)
        case AnyVersion():
            return Decision(Newest())
        case NotOlderThan(version=version):
            return Decision(Newest(version), options.limit)
        case Exact(version=version):
            return Decision(Exactly(version), options.limit)
        case _:
            assert_never(demand)


def decide_get(resource_version: str, floor: Version = UNKNOWN) -> Newest:
    """The state a get is answered from.

    Raises:
        BadRequest: the version is not a number.
    """
    demand = ListOptions(resource_version=resource_version).demand()
    match demand:
        case MostRecent():
            return Newest(floor)
        case NotOlderThan(version=version):
            return Newest(version)
        case _:
            return Newest()


def decide_watch(options: ListOptions, floor: Version = UNKNOWN) -> WatchBasis:
    """Looks a watch up in the table above.

    Raises:
        BadWatchVersion: a version that is not a number (500: the API server reads it late).
    """
    version = options.watch_version()
    least = version if options.resource_version else floor
    if options.initial_events:
        ends = options.send_initial_events is True and options.allow_bookmarks
        return InitialEvents(least, bookmark_end=ends)
    return FromVersion(version) if version else FromNow(least)
