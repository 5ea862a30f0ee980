"""Whether a client is well, as values: `Health`, out of what informers and controllers say of themselves. Pure.

Three questions, as a kubelet asks them:

- *ready*: everything that was asked for is there. No informer is without its first list, refused by the API server or
  failing, every controller that runs has its sources, and nobody has closed the client. A candidate that waits to be
  elected is ready: it would otherwise hold up the rollout that replaces the leader.
- *live*: nothing hangs that only a new process would get rid of. A handler or a reconcile may for
  `HealthBounds.hung_live_s`.
- *problems*: whatever somebody ought to look at, also what keeps nobody from working: an informer that is cut off,
  state that has not been proved to be the newest for long, a handler that hangs or is too slow, items that were given
  up.

Old state alone makes nobody unready. An API server that is away would otherwise have taken out of service all who could
have gone on with what they hold. A resource that has vanished is no reason either: nothing is all there is of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ...shards.model.refs import Key
from ..controller.parking import Parked
from ..informers.statistics import HandlerStatistics, InformerStatus
from ..serving.checks import Check

NAMED_MAX: Final = 3
"""Items that a sentence names; the rest is a number."""


class HealthBounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From when on something is a problem, in seconds."""

    cut_off_s: Annotated[float, Meta(gt=0)] = 60.0
    """An informer that cannot follow at the moment, and whose state was proved to be the newest so long ago."""
    stale_s: Annotated[float, Meta(gt=0)] = 900.0
    """The same although it seems to follow. A quiet resource has no other proof than bookmarks, and an API server has
    nothing new to put into them until etcd reports its progress: by default every 10 minutes."""
    hung_live_s: Annotated[float, Meta(gt=0)] | None = 600.0
    """A call of a handler, or a reconcile, that runs for so long makes the client not live. None: never."""

    def __post_init__(self) -> None:
        """Raises ValueError: a bound that is not positive."""
        for name in ("cut_off_s", "stale_s", "hung_live_s"):
            bound = getattr(self, name)
            if bound is not None and not bound > 0:
                raise ValueError(f"{name} is {bound}: expected seconds, more than 0")


class ControllerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at of a controller."""

    name: str
    running: bool
    synced: bool
    waiting: bool
    """To be elected."""
    hung_s: Mapping[Key, float]
    """Reconciles that hang, and for how long."""
    parked: Sequence[Parked]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A client at one moment."""

    ready: bool
    live: bool
    problems: tuple[str, ...]
    """Sentences for people, the worst first: what keeps it from being live, from being ready, and the rest."""
    live_checks: tuple[Check, ...]
    ready_checks: tuple[Check, ...]
    """One an informer and controller, called ``informer/<name>`` and ``controller/<name>``."""


def health_of(
    informers: Sequence[InformerStatus],
    controllers: Sequence[ControllerHealth] = (),
    *,
    closed: bool = False,
    bounds: HealthBounds | None = None,
) -> Health:
    """Judges what was found at one moment; `closed`: the client was."""
    bounds = bounds or HealthBounds()
    ready = [Check("client", "was closed" if closed else "")]
    ready += [Check(f"informer/{one.name}", _lack(one)) for one in informers]
    ready += [Check(f"controller/{one.name}", _controller_lack(one)) for one in controllers]
    hanging = [*_hung_handlers(informers), *_hung_reconciles(controllers)]
    beyond = [text for seconds, text in hanging if _beyond(seconds, bounds.hung_live_s)]
    live = (Check("ping"), Check("hung", "; ".join(beyond)))
    lacks = [_sentence(check) for check in ready if check.problem]
    rest = [text for seconds, text in hanging if not _beyond(seconds, bounds.hung_live_s)]
    return Health(
        ready=not lacks,
        live=not beyond,
        problems=(*beyond, *lacks, *rest, *_lesser(informers, controllers, bounds)),
        live_checks=live,
        ready_checks=tuple(ready),
    )


def _beyond(seconds: float, bound: float | None) -> bool:
    return bound is not None and seconds >= bound


def _sentence(check: Check) -> str:
    return f"{check.name.replace('/', ' ', 1)} {check.problem}"


def _lack(status: InformerStatus) -> str:
    """Why an informer cannot be relied on; empty if it can."""
    message = f": {status.message}" if status.message else ""
    match status.state:
        case "refused" | "failed" | "closed":
            return f"is {status.state}{message}"
        case "unknown":
            return f"has nothing to follow{message}"
        case state if not status.synced:
            return f"is not synced, but {state}{message}"
        case _:
            return ""


def _controller_lack(controller: ControllerHealth) -> str:
    if not controller.running:
        return "does not run"
    if not controller.synced and not controller.waiting:
        return "is not synced: its sources have not handed everything over"
    return ""


def _hung_handlers(informers: Sequence[InformerStatus]) -> Iterator[tuple[float, str]]:
    for status, handler in _handlers(informers):
        if handler.hung_s is not None:
            text = (
                f"handler {handler.name} of informer {status.name} hangs: its call about {handler.hung_key} has been "
                f"running for {handler.hung_s:.0f} s"
            )
            yield handler.hung_s, text


def _hung_reconciles(controllers: Sequence[ControllerHealth]) -> Iterator[tuple[float, str]]:
    for controller in controllers:
        for key, seconds in controller.hung_s.items():
            yield (
                seconds,
                f"controller {controller.name} hangs: its reconcile of {key} has been running for {seconds:.0f} s",
            )


def _lesser(
    informers: Sequence[InformerStatus], controllers: Sequence[ControllerHealth], bounds: HealthBounds
) -> Iterator[str]:
    """Problems that keep nobody from working."""
    for status in informers:
        if status.state == "gone":
            yield f"informer {status.name} has nothing to follow at the moment{_because(status.message)}"
        elif status.state == "synced" and status.message and status.age_s >= bounds.cut_off_s:
            yield (
                f"informer {status.name} is cut off ({status.message}): its state was proved to be the newest "
                f"{status.age_s:.0f} s ago"
            )
        elif status.state == "synced" and status.age_s >= bounds.stale_s:
            yield (
                f"informer {status.name} may be out of date: its state was proved to be the newest "
                f"{status.age_s:.0f} s ago"
            )
    for status, handler in _handlers(informers):
        if handler.merging:
            yield (
                f"handler {handler.name} of informer {status.name} is too slow: {handler.queued} changes wait, and it "
                "is not told of every state"
            )
    for controller in controllers:
        if controller.parked:
            yield f"controller {controller.name} has given up {_parked(controller.parked)}"


def _because(message: str) -> str:
    return f" ({message})" if message else ""


def _handlers(informers: Sequence[InformerStatus]) -> Iterator[tuple[InformerStatus, HandlerStatistics]]:
    return ((status, handler) for status in informers for handler in status.handlers)


def _parked(parked: Sequence[Parked]) -> str:
    newest = list(parked)[-NAMED_MAX:]
    named = "; ".join(f"{one.key} after {one.attempts} attempts ({one.error})" for one in newest)
    rest = len(parked) - len(newest)
    return f"{named}; and {rest} more" if rest else named
