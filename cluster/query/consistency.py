"""Which state a query is answered from: one pure table over resourceVersion, match, limit and continue.

The semantics are kube-apiserver's
(https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list,
``apiserver/pkg/storage/util.go`` `ValidateListOptions`, ``cacher/delegator/interface.go``):

================  ==========  =========  ===========================================
match             paging      version    is answered by
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

All other combinations are 422 and were refused when the parameters were read (`serving.options`). A get knows
no match: its version is a minimum.

*The newest state held* is where Shoal differs from the API server: with the version unset, the API server
answers with a state no older than the moment of the request, Shoal with the newest it has been told of, and
says how fresh that is. A version that is forgotten (410) or not reached in time (504) is found out by those
who hold the partitions, not here.
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


def decide_list(options: ListOptions) -> Decision:
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
            return Decision(Newest(), options.limit)
        case AnyVersion():
            return Decision(Newest())
        case NotOlderThan(version=version):
            return Decision(Newest(version), options.limit)
        case Exact(version=version):
            return Decision(Exactly(version), options.limit)
        case _:
            assert_never(demand)


def decide_get(resource_version: str) -> Newest:
    """The state a get is answered from.

    Raises:
        BadRequest: the version is not a number.
    """
    demand = ListOptions(resource_version=resource_version).demand()
    return Newest(demand.version) if isinstance(demand, NotOlderThan) else Newest()
