"""Settings of the embedded API server. Plain frozen values; the command line and tests make them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]


API_AUDIENCE = "https://kubernetes.default.svc"
"""What a token for the API server itself is for."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user may do; ``*`` stands for everything."""

    verbs: tuple[str, ...] = ("*",)
    groups: tuple[str, ...] = ("*",)
    resources: tuple[str, ...] = ("*",)
    """Plural names; a subresource as ``pods/status``."""
    namespaces: tuple[str, ...] = ("*",)
    """Namespaces of the path; a rule with ``*`` also covers requests for all namespaces and cluster scope."""


class User(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody with a bearer token."""

    name: str
    token: str
    """Empty: known by a client certificate, or by impersonation, alone."""
    groups: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = (Rule(),)
    """Without any, every request is forbidden. Not looked at under RBAC."""
    uid: str = ""
    extra: dict[str, tuple[str, ...]] = {}
    audiences: tuple[str, ...] = (API_AUDIENCE,)
    """Whom the token is for."""


class SimulatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the server behaves. The defaults are those of kube-apiserver v1.36."""

    seed: int | None = None
    """Makes uids, generated names and timers repeatable; None draws from the system."""
    revision: Annotated[int, Meta(ge=1)] = 1
    """etcd's revision before the first write."""
    shard_selector: bool = False
    """The gate ShardedListAndWatch: off, ``shardSelector`` is ignored."""
    watch_list: bool = True
    """The gate WatchList: off, ``sendInitialEvents`` is refused with 422, as by servers before 1.34."""
    aggregated_discovery: bool = True
    """Off, discovery has its legacy form only, as in servers before 1.27."""
    history_events: Count = 100_000
    """Events a resource remembers; kube-apiserver's watch cache grows to 102 400."""
    history_bytes: Count = 128 << 20
    """Bytes of bodies a resource remembers. What bounds the memory of a churned simulator."""
    backlog_events: Count = 20_000
    """A watcher this far behind is cut off."""
    min_timeout_s: Annotated[float, Meta(gt=0)] = 1800.0
    """A watch that does not say how long it wants to live ends between this and twice this."""
    bookmark_period_s: Annotated[float, Meta(gt=0)] = 60.0
    """Seconds between bookmarks."""
    users: tuple[User, ...] = ()
    """Without any, and without RBAC, everybody may do everything and tokens are not looked at."""
    rbac: bool = False
    """Roles and bindings that are stored decide, beginning with those every cluster has; `User.rules` do not."""
