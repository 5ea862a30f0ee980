"""The driver of the reflector machine: performs its instructions over a connection, reports what happened.

It decides nothing (`watch.protocol` does) and keeps nothing (the `PartitionWriter` does). What it adds is the
hot path: the lines of a watch go from the connection through the decoder straight to the writer, in batches,
and only an ERROR line, the end of the initial events or the end of the stream is an event for the machine.

One partition must not starve the others on its loop: what has arrived is taken in pieces, and after each the
loop gets its turn. A line that is no watch event ends the stream at once, so that nothing after it can move
the frontier past what was lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from typing import assert_never

from ..api.client import BODY_BYTES_MAX, ApiConnection
from ..api.decode import Decoder
from ..api.requests import GATEWAY_HEADER, ApiRequest, list_request, streaming_list_request, watch_request
from ..model.errors import Broken, Garbage
from ..model.observations import Bookmark, ListPage, Observation
from ..model.partitions import Cover, Everything, HashRange, Partition
from ..model.resources import ResourceType
from ..model.versions import UNKNOWN, Version
from ..settings import WatchSettings
from . import outcomes
from .permits import Permits
from .protocol import Machine
from .states import Condition, Pausing, Vanished
from .steps import (
    Accepted,
    Activity,
    AskPage,
    AskStreamingList,
    AskVersion,
    AskWatch,
    AwaitPermit,
    Begin,
    CloseStream,
    CompleteGeneration,
    Declined,
    Distrusted,
    DropGeneration,
    Effect,
    Elapsed,
    Event,
    Granted,
    InitialEventsEnded,
    OpenGeneration,
    PageApplied,
    PlainBookmark,
    ReadEvents,
    ReadInitialEvents,
    ReturnPermit,
    Stop,
    VersionTold,
    Wait,
)
from .stream import EventStream
from .writer import PartitionWriter

log = logging.getLogger("shoal.shards.watch")

PAGE_PIECE_OBJECTS = 64
"""Objects of a page stored without giving the loop its turn; see `stream.PIECE_BYTES`."""
GATEWAY_TIMEOUT = 504
"""Status of "Too large resource version": it was waited for and not reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectorStatus:
    """How following a partition is going. Counters grow from the start of the reflector on."""

    state: Condition
    message: str
    """For people: what it does or waits for; empty while everything is well."""
    lists: Mapping[str, int]
    """Lists asked for, by form: ``stream``, ``paged``, ``full`` (in one piece)."""
    watch_restarts: Mapping[str, int]
    """By reason: ``timeout``, ``ended``, ``failed``, ``stalled``, ``garbage``, ``truncated``, ``expired``,
    …"""
    errors: Mapping[str, int]
    """By kind: ``connection``, ``certificate``, ``silent``, ``garbage``, ``forbidden``, ``http_500``, …"""
    backlog: int
    """Lines received and not yet applied."""
    waiting_for_permit: bool


class Reflector:
    """Follows one partition from `run` on, until it is cancelled or the resource is gone."""

    def __init__(
        self,
        *,
        partition: Partition,
        resource_type: ResourceType,
        connection: ApiConnection,
        store: PartitionWriter,
        decoder: Decoder,
        permits: Permits,
        settings: WatchSettings,
        rng: random.Random,
        old: bool = False,
    ) -> None:
        """`old`: what the store holds is of a time before, so the server is asked where it is before it is watched."""
        if not resource_type.namespaced and not _fits_without_namespaces(partition.cover):
            raise Broken(f"{partition.id}: {resource_type.kind} has no namespaces to be divided by")
        self._partition = partition
        self._connection = connection
        self._store = store
        self._decoder = decoder
        self._permits = permits
        self._settings = settings
        self._machine = Machine(settings, rng.random)
        self._stream: EventStream | None = None
        self._permit: AsyncExitStack | None = None
        self._waiting_for_permit = False
        self._old = old
        self._distrusted = ""
        self._reading: asyncio.Timeout | None = None

    @property
    def status(self) -> ReflectorStatus:
        """Now. May be read from another thread."""
        machine = self._machine
        return ReflectorStatus(
            state=machine.condition,
            message=machine.message,
            lists=dict(machine.lists),
            watch_restarts=dict(machine.watch_restarts),
            errors=dict(machine.errors),
            backlog=self._stream.backlog if self._stream is not None else 0,
            waiting_for_permit=self._waiting_for_permit,
        )

    @property
    def story(self) -> str:
        """The last steps of the machine, one a line."""
        return str(self._machine.story)

    def distrust(self, reason: str) -> None:
        """What is held was found to differ from the server: it is listed afresh, unless it is being listed already.
        A watch that is open ends for that, one that is being opened as soon as it is.
        """
        if self._permit is not None:
            return
        self._distrusted = reason
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(_now())

    async def run(self) -> None:
        """Follows. Returns when the resource is gone; otherwise ends only by being cancelled."""
        event: Event = Begin(self._store.frontier, old=self._old) if self._store.synced else Begin(UNKNOWN)
        try:
            while True:
                step = self._machine.step(event, _now())
                self._report(event)
                for effect in step.effects:
                    await self._perform(effect)
                if isinstance(step.activity, Stop):
                    return
                event = await self._undertake(step.activity)
        finally:
            await self._close_stream()
            await self._return_permit()

    def _report(self, event: Event) -> None:
        extra = {"partition": self._partition.id, "reason": self._machine.message}
        match self._machine.state:
            case Vanished():
                log.warning("resource is gone", extra=extra)
            case Pausing():
                log.warning("following is interrupted", extra=extra)
            case _:
                log.debug("reflector step", extra={**extra, "event": type(event).__name__})

    # -- effects ---------------------------------------------------------------------------------------------

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case OpenGeneration():
                self._distrusted = ""
                self._store.begin()
            case CompleteGeneration(version=version):
                self._store.finish(version)
            case DropGeneration():
                self._store.abandon()
            case ReturnPermit():
                await self._return_permit()
            case CloseStream():
                await self._close_stream()
            case _:
                assert_never(effect)

    async def _return_permit(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            await permit.aclose()

    async def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    # -- activities ------------------------------------------------------------------------------------------

    async def _undertake(self, activity: Activity) -> Event:
        match activity:
            case AwaitPermit():
                return await self._await_permit()
            case AskPage():
                return await self._ask_page(activity)
            case AskVersion(held=held):
                return await self._ask_version(held)
            case AskStreamingList(timeout_s=timeout_s):
                request = streaming_list_request(self._partition, timeout_s=timeout_s)
                return await self._open(request, timeout_s, self._settings.list_silence_s)
            case AskWatch(version=version, timeout_s=timeout_s):
                # Some proxies pass the head on only with the first event: it may take as long as the watch.
                request = watch_request(self._partition, version=version, timeout_s=timeout_s)
                return await self._open(request, timeout_s, None)
            case ReadInitialEvents():
                return await self._read_initial_events()
            case ReadEvents():
                return await self._read_events()
            case Wait(seconds=seconds):
                await asyncio.sleep(seconds)
                return Elapsed()
            case Stop():
                raise Broken("reflector: Stop was undertaken")
            case _:
                assert_never(activity)

    async def _await_permit(self) -> Event:
        permit = AsyncExitStack()
        self._waiting_for_permit = True
        try:
            await permit.enter_async_context(self._permits.permit(self._partition.id))
        finally:
            self._waiting_for_permit = False
        self._permit = permit
        return Granted()

    async def _ask_page(self, activity: AskPage) -> Event:
        request = list_request(self._partition, limit=activity.limit, continue_token=activity.continue_token)
        try:
            answer, _ = await self._fetch_page(request)
        except outcomes.FAILURES as error:
            return outcomes.failed(error, request)
        if isinstance(answer, Declined):
            return answer
        try:
            while piece := tuple(islice(answer.observations, PAGE_PIECE_OBJECTS)):
                for observation in piece:
                    self._store.put(observation)
                await asyncio.sleep(0)
        except Garbage as error:
            return outcomes.failed(error, request)
        ignored = isinstance(self._partition.cover, HashRange) and not answer.shard_selector
        return PageApplied(answer.version, answer.continue_token, ignored)

    async def _ask_version(self, held: Version) -> Event:
        request = list_request(self._partition, limit=1)
        try:
            answer, by_gateway = await self._fetch_page(request)
            if by_gateway and isinstance(answer, ListPage) and UNKNOWN < answer.version < held:
                # Its lists are as new as the oldest of its partitions, its watches as the newest. Whether it can
                # reach what is held, it says if it is asked for that. (An API server could have just overtaken it.)
                request = list_request(self._partition, limit=1, not_older_than=held)
                reached, _ = await self._fetch_page(request)
                unreached = isinstance(reached, Declined) and reached.refusal.status == GATEWAY_TIMEOUT
                answer = answer if unreached else reached
        except outcomes.FAILURES as error:
            return outcomes.failed(error, request)
        return answer if isinstance(answer, Declined) else VersionTold(answer.version)

    async def _fetch_page(self, request: ApiRequest) -> tuple[ListPage | Declined, bool]:
        """The answer, and whether it is a gateway's of Shoal."""
        silence_s = self._settings.list_silence_s
        # One growing buffer: the parts of a list in one piece and their sum would be two copies of it.
        body = bytearray()
        async with asyncio.timeout(silence_s) as limit, self._connection.open(request) as response:
            if response.status != 200:
                return await outcomes.declined(response), False
            by_gateway = GATEWAY_HEADER in response.headers
            async for chunk in response.chunks():
                limit.reschedule(_now() + silence_s)
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise Garbage(f"the list is longer than {BODY_BYTES_MAX} bytes")
        return self._decoder.page(body), by_gateway

    async def _open(self, request: ApiRequest, timeout_s: int, head_s: float | None) -> Event:
        deadline = _now() + timeout_s + self._settings.grace_s
        exchange = AsyncExitStack()
        try:
            async with asyncio.timeout_at(deadline if head_s is None else min(deadline, _now() + head_s)):
                response = await exchange.enter_async_context(self._connection.open(request))
                if response.status != 200:
                    declined = await outcomes.declined(response)
                    await exchange.aclose()
                    return declined
        except outcomes.FAILURES as error:
            await exchange.aclose()
            return outcomes.failed(error, request)
        self._decoder.reset()
        self._stream = EventStream(response, self._decoder, exchange, deadline)
        return Accepted()

    async def _read_initial_events(self) -> Event:
        stream = self._stream
        assert stream is not None
        put, silence_s = self._store.put, self._settings.list_silence_s
        try:
            async with asyncio.timeout_at(min(stream.deadline, _now() + silence_s)) as limit:
                while (items := await stream.next_items()) is not None:
                    limit.reschedule(min(stream.deadline, _now() + silence_s))
                    for position, item in enumerate(items):
                        if type(item) is Observation:
                            put(item)
                            continue
                        stream.unread(items[position + 1 :])
                        if type(item) is Bookmark:
                            if item.initial_events_end:
                                return InitialEventsEnded(item.version)
                            return PlainBookmark()
                        return outcomes.control(item, UNKNOWN, delivered=False)
        except outcomes.FAILURES as error:
            return outcomes.ended(error, stream, UNKNOWN, delivered=False)
        return outcomes.completed(stream, UNKNOWN, delivered=False)

    async def _read_events(self) -> Event:
        stream = self._stream
        assert stream is not None
        apply, advance = self._store.apply, self._store.advance
        # Only what moves the frontier counts: a stream that repeats the past and ends must not be reopened at once.
        version, delivered = self._store.frontier, False
        try:
            async with asyncio.timeout_at(_now() if self._distrusted else stream.deadline) as self._reading:
                while (items := await stream.next_items()) is not None:
                    for item in items:
                        if type(item) is Observation:
                            apply(item)
                        elif type(item) is Bookmark:
                            advance(item.version)
                        else:
                            return outcomes.control(item, self._resumable(version), delivered=delivered)
                        if item.version > version:
                            version, delivered = item.version, True
        except outcomes.FAILURES as error:
            if self._distrusted and isinstance(error, TimeoutError):
                return Distrusted(self._distrusted, self._resumable(version), delivered)
            return outcomes.ended(error, stream, self._resumable(version), delivered=delivered)
        finally:
            self._reading = None
        return outcomes.completed(stream, self._resumable(version), delivered=delivered)

    def _resumable(self, version: Version) -> Version:
        """Where a watch may go on that brought everything up to `version`: proofs may have gone further."""
        return max(version, self._store.frontier)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _fits_without_namespaces(cover: Cover) -> bool:
    match cover:
        case Everything() | HashRange(field="uid", namespace=None, excluded=()):
            return True
        case _:
            return False
