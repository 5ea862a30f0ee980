r"""The reflector machine: how one partition is listed and watched, without doing any of it. Pure.

Theory of operation
-------------------
A partition is *listed*, which yields everything at a version V, and then *watched* from V: the server sends
each later change with its version. As long as the watch can be resumed at the last version seen, nothing is
listed again. When the server has forgotten that version (410), the list is taken afresh into a second
generation, which replaces the first in one step when it is complete. So what is held is always the server's
state at some version, and that version never goes back. A failure only delays: a list that is not completed
is dropped as a whole, and a watch goes on where its last good line was::

    Unstarted ---------------- a version is held already ----------------+   (an old one: Probing first)
        | nothing held                                                   |
        v                                                                |
    Queued ----> Asking ----> Filling - initial events ended --> Watching|
     ^   |          |            |                       Accepted ^      |
     |   | not now, | not        | no mark                        |      |
     |   v never    v understood v                                |      v
     |  Paging <----+------------+---------- last page ---------> Opening
     |   ^  | next page                                           ^
     |   +--+                                                     | not older
     +--------- a list is due ------- Pausing - a watch is due - Probing -- the server went back --> Queued
     |                                   ^                        ^
    Watching: 410, distrusted   whatever else goes wrong    Watching: ended   404 to three lists --> Vanished

A step takes one event and yields effects, done at once, and one activity, whose end is the next event
(`watch.steps`). Lines do not pass through here one by one: the machine sees a stream open, complete its
initial events, and end. An event that a state does not have is a bug of the driver: `Broken`, with the story
of the last steps, and nothing has changed. The legal ones (a test compares this with `Machine.table`)::

    Unstarted   Begin
    Queued      Granted
    Paging      PageApplied Declined Failed
    Asking      Accepted Declined Failed
    Filling     InitialEventsEnded PlainBookmark ErrorReported StreamEnded
    Probing     VersionTold Declined Failed
    Opening     Accepted Declined Failed
    Watching    ErrorReported StreamEnded Distrusted
    Pausing     Elapsed
    Vanished

Decisions (client-go's are in ``tools/cache/reflector.go`` and ``tools/pager/pager.go``)
---------------------------------------------------------------------------------------
* Streaming lists first. Refused with a 4xx (422: the gate is off, 400: never heard of), they are not tried
  again. One that fails otherwise is followed by *one* paged list: progress before insisting (client-go).
* A server that ignores ``sendInitialEvents`` answers with a plain watch, whose initial events never end;
  client-go waits and warns. Here a bookmark without the mark proves it (who has streaming lists sends none
  before the mark), and so do two lists in a row that fell silent or used up their time.
* A continue token that expires half-way is followed by a list in one piece (client-go's pager). The token for
  an inconsistent rest that comes with the 410 would break the promise above.
* A stream that ended properly is resumed at once, unless it lived for less than a second and brought nothing
  (client-go's "very short watch"). A broken one is resumed after a wait: a server that stops cuts them all.
* 410 means a list at once; straight after a list a wait comes first, or a server with too short a memory
  would be listed in a loop.
* A watch that gets 5xx or garbage `RELIST_AFTER` times in a row and nothing else is replaced by a list: the
  version it resumes at may be what the server stumbles over.
* 404 means gone when lists get it three times in a row, with waits between: servers that start, or have not
  heard of a new definition yet, say 404 as well. 401 and 403 are asked again ever more slowly: some pass.
* Whoever answers next may be another server: a backup of etcd was restored, the cluster replaced. A watch from a
  version it has not reached is silent for ever, and what is held stale for ever (client-go's are). So a list of one
  object says where the server is before a watch is *resumed*; an older version than ours means that a list is due.
  After a proper end too: so a server that stops ends its watches, and when one has run out a balancer may lead
  elsewhere. What the next watch brings is no proof: a server that was behind may have overtaken us by then. That is
  one small request for each 5 to 10 minutes of a watch. What is held from before the reflector's time (a snapshot) is
  resumed too; what was listed just now is not.
* What an audit found to differ from the server is listed at once. The watch ends for it: what it brought is applied
  already, and the list is at least as new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ..api.requests import Refusal
from ..model.errors import Broken
from ..model.versions import UNKNOWN, Version
from ..settings import WatchSettings
from . import states, steps
from .backoff import Backoff
from .story import Story
from .streaming import StreamingLists

SHORT_WATCH_S = 1.0
"""client-go: a watch that ended within this and brought nothing is a failure."""
RELIST_AFTER = 4
"""Failures of a watch in a row, without anything between them, until a list is tried instead."""
GONE_AFTER = 3
"""Lists in a row answered 404 until the resource counts as gone: about four seconds."""
RETRY_AFTER_MAX_S = 600.0
"""A Retry-After beyond this is cut: a proxy's maintenance page must not end the following for a day."""


class Machine:
    """One partition's reflector, from `Begin` to `Vanished` or for ever.

    `uniform` yields numbers in [0, 1). Times are seconds of any steady clock. Messages are for people.
    """

    def __init__(self, settings: WatchSettings, uniform: Callable[[], float]) -> None:
        self.state: states.State = states.Unstarted()
        self.message = "not started"
        self.lists: Counter[str] = Counter()
        self.watch_restarts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._settings = settings
        self._uniform = uniform
        self._backoff = Backoff(settings, uniform)
        self.story = Story()
        self._version = UNKNOWN  # a watch can resume here
        self._synced = self._refused = False
        self._streaming = StreamingLists(wanted=settings.streaming_list == "auto")
        self._missing = 0  # lists in a row answered 404
        self._fruitless = 0  # watches in a row that failed and brought nothing
        self._just_listed = False  # no watch brought anything since the last list

    @property
    def condition(self) -> states.Condition:
        """What the partition's status says."""
        if isinstance(self.state, states.Vanished):
            return "gone"
        if self._refused:
            return "refused"
        return "synced" if self._synced else "pending"

    def step(self, event: steps.Event, now: float) -> steps.Step:
        """The one transition function.

        Raises:
            Broken: the event is not legal in this state; nothing has changed.
        """
        transition = self.table.get((type(self.state), type(event)))
        if transition is None:
            raise Broken(f"reflector: {event} is not legal in {self.state}; before:\n{self.story}")
        step = transition(self, event, now)
        self.story.add(now, event, self.state, step)
        return step

    # -- the list --------------------------------------------------------------------------------------------

    def _begin(self, event: steps.Begin, now: float) -> steps.Step:
        if event.version == UNKNOWN:
            return self._queue()
        self._synced = True
        if event.old:
            self._version = event.version
            return self._probe()
        return self._watch(event.version, now)

    def _queue(self, *effects: steps.Effect) -> steps.Step:
        self.state = states.Queued()
        self.message = "waits for a permit to list"
        return steps.Step(effects, steps.AwaitPermit())

    def _granted(self, _: steps.Granted, now: float) -> steps.Step:
        if self._streaming.take():
            self.state = states.Asking(now, self._timeout())
            self.lists["stream"] += 1
            self.message = "waits for a streaming list"
            return steps.Step((steps.OpenGeneration(),), steps.AskStreamingList(self.state.timeout_s))
        return self._page_one(self._settings.page_limit)

    def _page_one(self, limit: int | None, *effects: steps.Effect) -> steps.Step:
        self.state = states.Paging(limit)
        self.lists["full" if limit is None else "paged"] += 1
        self.message = "waits for a list"
        return steps.Step((*effects, steps.OpenGeneration()), steps.AskPage(limit))

    def _page_applied(self, event: steps.PageApplied, now: float) -> steps.Step:
        assert isinstance(self.state, states.Paging)
        self._welcome()
        if event.selector_ignored:
            self.errors["selector_ignored"] += 1
        if event.continue_token:
            self.state = states.Paging(self.state.limit, self.state.number + 1)
            self.message = f"waits for page {self.state.number} of a list"
            return steps.Step((), steps.AskPage(self.state.limit, event.continue_token))
        if event.version == UNKNOWN:
            return self._list_failed(steps.Failed("garbage", "the list has no resourceVersion"), now)
        self._listed(event.version)
        return self._watch(event.version, now, steps.CompleteGeneration(event.version), steps.ReturnPermit())

    def _page_declined(self, event: steps.Declined, now: float) -> steps.Step:
        assert isinstance(self.state, states.Paging)
        if event.refusal.meaning == "expired" and self.state.number > 1 and self.state.limit is not None:
            self.errors["continue_expired"] += 1
            return self._page_one(None, steps.DropGeneration())
        return self._list_refused(event.refusal, now, steps.DropGeneration(), steps.ReturnPermit())

    def _streaming_list_accepted(self, _: steps.Accepted, now: float) -> steps.Step:  # noqa: ARG002
        assert isinstance(self.state, states.Asking)
        self._welcome()
        self.state = states.Filling(self.state.asked_at, self.state.timeout_s)
        self.message = "receives a streaming list"
        return steps.Step((), steps.ReadInitialEvents())

    def _streaming_list_declined(self, event: steps.Declined, now: float) -> steps.Step:
        if event.refusal.meaning == "unsupported":
            self._streaming.unknown()
            return self._page_one(self._settings.page_limit, steps.DropGeneration())
        if event.refusal.meaning == "failed":
            self._streaming.failed()
        return self._list_refused(event.refusal, now, steps.DropGeneration(), steps.ReturnPermit())

    def _list_failed(self, event: steps.Failed, now: float) -> steps.Step:
        if event.kind == "silent" and isinstance(self.state, states.Asking):
            self._streaming.unfinished()
        self.errors[event.kind] += 1
        return self._pause("list", now, event.message, steps.DropGeneration(), steps.ReturnPermit())

    def _initial_events_ended(self, event: steps.InitialEventsEnded, now: float) -> steps.Step:
        assert isinstance(self.state, states.Filling)
        if event.version == UNKNOWN:
            return self._filling_ended(
                steps.StreamEnded("garbage", message="the end of the initial events has no resourceVersion"),
                now,
            )
        self._streaming.finished()
        self._listed(event.version)
        self.state = states.Watching(event.version, self.state.asked_at, self.state.timeout_s)
        return steps.Step((steps.CompleteGeneration(event.version), steps.ReturnPermit()), steps.ReadEvents())

    def _mark_missing(self, _: steps.PlainBookmark, now: float) -> steps.Step:  # noqa: ARG002
        self._streaming.unknown()
        return self._page_one(self._settings.page_limit, steps.CloseStream(), steps.DropGeneration())

    def _filling_refused(self, event: steps.ErrorReported, now: float) -> steps.Step:
        self._streaming.failed()
        return self._list_refused(
            event.refusal, now, steps.CloseStream(), steps.DropGeneration(), steps.ReturnPermit()
        )

    def _filling_ended(self, event: steps.StreamEnded, now: float) -> steps.Step:
        assert isinstance(self.state, states.Filling)
        used_up = event.how == "clean" and now - self.state.asked_at >= self.state.timeout_s - SHORT_WATCH_S
        if event.how in ("silent", "overlong") or used_up:
            self._streaming.unfinished()
        else:
            self._streaming.failed()
        self.errors[event.error] += 1
        message = event.message or "the streaming list ended before it was complete"
        return self._pause(
            "list", now, message, steps.CloseStream(), steps.DropGeneration(), steps.ReturnPermit()
        )

    def _listed(self, version: Version) -> None:
        self._version = version
        self._synced = self._just_listed = True
        self._fruitless = 0
        self.message = ""

    def _list_refused(self, refusal: Refusal, now: float, *effects: steps.Effect) -> steps.Step:
        self.errors[refusal.label] += 1
        match refusal.meaning:
            case "vanished":
                self._missing += 1
                if self._missing >= GONE_AFTER:
                    self.state = states.Vanished()
                    self.message = f"the API server does not have this resource any more: {refusal.message}"
                    return steps.Step(effects, steps.Stop())
                return self._pause("list", now, refusal.message, *effects)
            case "unauthorized" | "forbidden":
                return self._refuse("list", refusal, *effects)
            case "unsupported":
                self._refused = True  # by a field that it does not select by, say; asked as after a failure
                why = f"{refusal.status}: {refusal.message}"
                return self._pause("list", now, why, *effects, refusal=refusal)
            case _:
                return self._pause("list", now, refusal.message, *effects, refusal=refusal)

    # -- the watch -------------------------------------------------------------------------------------------

    def _watch(self, version: Version, now: float, *effects: steps.Effect) -> steps.Step:
        self._version = version
        self.state = states.Opening(version, now, self._timeout())
        return steps.Step(effects, steps.AskWatch(version, self.state.timeout_s))

    def _watch_accepted(self, _: steps.Accepted, now: float) -> steps.Step:  # noqa: ARG002
        assert isinstance(self.state, states.Opening)
        self._welcome()
        self.message = ""
        self.state = states.Watching(self.state.version, self.state.asked_at, self.state.timeout_s)
        return steps.Step((), steps.ReadEvents())

    def _watch_declined(self, event: steps.Declined, now: float) -> steps.Step:
        return self._watch_refused(event.refusal, now)

    def _watch_failed(self, event: steps.Failed, now: float) -> steps.Step:
        self.errors[event.kind] += 1
        self.watch_restarts["failed"] += 1
        return self._pause("watch", now, event.message)

    def _watch_reported(self, event: steps.ErrorReported, now: float) -> steps.Step:
        assert isinstance(self.state, states.Watching)
        self._received(event, now - self.state.asked_at)
        return self._watch_refused(event.refusal, now, steps.CloseStream())

    def _distrusted(self, event: steps.Distrusted, now: float) -> steps.Step:
        assert isinstance(self.state, states.Watching)
        self._received(event, now - self.state.asked_at)
        self.watch_restarts["distrusted"] += 1
        return self._queue(steps.CloseStream())

    def _watch_ended(self, event: steps.StreamEnded, now: float) -> steps.Step:
        assert isinstance(self.state, states.Watching)
        lived_s = now - self.state.asked_at
        self._received(event, lived_s)
        in_time = lived_s < self.state.timeout_s - SHORT_WATCH_S
        self.watch_restarts[event.restart if in_time or event.how != "clean" else "timeout"] += 1
        fruitless = event.how == "clean" and lived_s < SHORT_WATCH_S and not event.delivered
        match event.how:
            case "clean" | "overlong" | "silent" if not fruitless:
                return self._probe(steps.CloseStream())
            case "garbage":
                self.errors["garbage"] += 1
                return self._stumble(now, event, steps.CloseStream())
            case "clean" | "overlong" | "silent":
                return self._pause("watch", now, "the watch ended as soon as it began", steps.CloseStream())
            case "broken" | "truncated":
                self.errors[event.error] += 1
                return self._pause("watch", now, event.message, steps.CloseStream())

    def _watch_refused(self, refusal: Refusal, now: float, *effects: steps.Effect) -> steps.Step:
        self.watch_restarts[refusal.meaning] += 1
        if refusal.meaning == "expired":
            if self._just_listed:
                return self._pause("list", now, refusal.message, *effects)
            self.message = refusal.message
            return self._queue(*effects)
        self.errors[refusal.label] += 1
        match refusal.meaning:
            case "unauthorized" | "forbidden":
                return self._refuse("watch", refusal, *effects)
            case "overloaded":
                return self._pause("watch", now, refusal.message, *effects, refusal=refusal)
            case "vanished" | "unsupported":
                return self._pause("list", now, refusal.message, *effects)
            case _:
                return self._stumble(now, steps.StreamEnded("broken", message=refusal.message), *effects)

    def _stumble(self, now: float, event: steps.StreamEnded, *effects: steps.Effect) -> steps.Step:
        self._fruitless += 1
        if self._fruitless < RELIST_AFTER:
            return self._pause("watch", now, event.message, *effects)
        self._fruitless = 0
        return self._pause("list", now, event.message, *effects)

    def _pause(
        self, due: states.Due, now: float, why: str, *effects: steps.Effect, refusal: Refusal | None = None
    ) -> steps.Step:
        asked_s = min((refusal.retry_after_s if refusal else None) or 0.0, RETRY_AFTER_MAX_S)
        seconds = self._backoff.after_failure(now, at_least_s=asked_s)
        self.state = states.Pausing(due)
        self.message = f"{why}; tries again after {seconds:.1f} s"
        return steps.Step(effects, steps.Wait(seconds))

    def _refuse(self, due: states.Due, refusal: Refusal, *effects: steps.Effect) -> steps.Step:
        self._refused = True
        seconds = self._backoff.after_refusal()
        self.state = states.Pausing(due)
        self.message = f"{refusal.status}: {refusal.message}; tries again after {seconds:.1f} s"
        return steps.Step(effects, steps.Wait(seconds))

    def _elapsed(self, _: steps.Elapsed, now: float) -> steps.Step:  # noqa: ARG002
        assert isinstance(self.state, states.Pausing)
        return self._queue() if self.state.due == "list" else self._probe()

    def _probe(self, *effects: steps.Effect) -> steps.Step:
        self.state = states.Probing()
        return steps.Step(effects, steps.AskVersion(self._version))

    def _version_told(self, event: steps.VersionTold, now: float) -> steps.Step:
        if event.version == UNKNOWN or event.version >= self._version:
            return self._watch(self._version, now)
        self.errors["went_back"] += 1
        return self._queue()

    def _welcome(self) -> None:
        self._missing = 0
        self._refused = False
        self._backoff.allowed()

    def _received(
        self, event: steps.ErrorReported | steps.StreamEnded | steps.Distrusted, lived_s: float
    ) -> None:
        self._version = max(self._version, event.version)
        if event.delivered:
            self._fruitless = 0
        if event.delivered or lived_s >= SHORT_WATCH_S:
            self._just_listed = False

    def _timeout(self) -> int:
        return max(1, int(self._settings.timeout_min_s * (1 + self._uniform())))

    # -- the table -------------------------------------------------------------------------------------------

    table: ClassVar[
        Mapping[tuple[type[states.State], type[steps.Event]], Callable[[Machine, Any, float], steps.Step]]
    ] = {
        (states.Unstarted, steps.Begin): _begin,
        (states.Queued, steps.Granted): _granted,
        (states.Paging, steps.PageApplied): _page_applied,
        (states.Paging, steps.Declined): _page_declined,
        (states.Paging, steps.Failed): _list_failed,
        (states.Asking, steps.Accepted): _streaming_list_accepted,
        (states.Asking, steps.Declined): _streaming_list_declined,
        (states.Asking, steps.Failed): _list_failed,
        (states.Filling, steps.InitialEventsEnded): _initial_events_ended,
        (states.Filling, steps.PlainBookmark): _mark_missing,
        (states.Filling, steps.ErrorReported): _filling_refused,
        (states.Filling, steps.StreamEnded): _filling_ended,
        (states.Probing, steps.VersionTold): _version_told,
        (states.Probing, steps.Declined): _watch_declined,
        (states.Probing, steps.Failed): _watch_failed,
        (states.Opening, steps.Accepted): _watch_accepted,
        (states.Opening, steps.Declined): _watch_declined,
        (states.Opening, steps.Failed): _watch_failed,
        (states.Watching, steps.ErrorReported): _watch_reported,
        (states.Watching, steps.StreamEnded): _watch_ended,
        (states.Watching, steps.Distrusted): _distrusted,
        (states.Pausing, steps.Elapsed): _elapsed,
    }
    """The legal transitions, all of them."""
