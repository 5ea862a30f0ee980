"""`LeaderElector`: leads while it holds a Lease. The driver around `election`, which has the rules.

It asks over an `ApiConnection` and waits in the loop's time; the wall clock is only for what people read in the
record. While ``lead`` winds down after a cancellation the lease is still renewed, and it is given back only when
``lead`` has ended, so that nobody else begins before. What a failing API server costs is bounded by request: half of
the renew deadline, so that one request that hangs does not take the leadership along.

When the lease is lost, ``lead`` is cancelled; if it goes on, again, half of the margin before the lease ends
(`ElectionTimes.margin_s`), and is waited for until then. Whoever ignores both is left behind.

Needed permissions: get, create and update of ``leases.coordination.k8s.io`` in the namespace.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from ...shards.api.client import ApiConnection, fetch_json
from ...shards.api.requests import JSON, ApiRequest
from ...shards.model.errors import ShoalError, Upstream
from .election import JITTER, Election, ElectionTimes
from .errors import LeadershipLost
from .lease import LeaseRecord, changed_lease, micro_time, new_lease, record_of

log = logging.getLogger("shoal.cluster.controller.leader")

_HEADERS = (("Accept", JSON), ("Content-Type", JSON))
_GRANT = "grant get, create and update of leases.coordination.k8s.io there"


class LeaderStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate at one moment."""

    lease: str
    """``namespace/name``."""
    leading: bool
    leader: str
    """Identity of who leads, as last seen; empty if nobody."""
    terms: int
    """Times this candidate has become leader."""
    renewals: int
    failures: int
    """Requests that failed, lost races included."""
    slow_paths: int
    """Renewals that had to look at the record first, because writing it had failed."""


class LeaderElector:
    """One candidate for one Lease.

    `identity` is different for every candidate (a pod's name and uid, say). `labels` are set on the Lease.
    `release_on_cancel` gives the lease back when `run` ends, so that others need not wait for it to expire.
    `wind_down_s` is how long ``lead`` may take to end after `run` was cancelled. `on_new_leader` hears of every
    holder that is seen, this candidate included, and an empty name when the lease is free.
    """

    def __init__(
        self,
        connection: ApiConnection,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: ElectionTimes | None = None,
        labels: Mapping[str, str] | None = None,
        release_on_cancel: bool = True,
        wind_down_s: float = 60.0,
        on_new_leader: Callable[[str], object] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """Raises ValueError: no namespace, name or identity, or one that cannot be part of a path."""
        for what, text in (("namespace", namespace), ("name", name)):
            if not text or "/" in text:
                raise ValueError(f"the {what} of a lease is {text!r}: expected the name of an object")
        self._connection = connection
        self._namespace = namespace
        self._name = name
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._times = times or ElectionTimes()
        self._election = Election(identity, self._times)
        self._labels = dict(labels or {})
        self._release_on_cancel = release_on_cancel
        self._wind_down_s = wind_down_s
        self._on_new_leader = on_new_leader
        self._wall = now
        self._uniform = uniform
        self._document: Mapping[str, Any] | None = None
        """The Lease as it was last read or written; its version is what an update is conditional on."""
        self._running = self._leading = self._withheld = False
        self._reported = ""
        self._problem = ""
        """What was logged last: a failure is logged once, not with every try."""
        self._conflict = False
        """The last failure was a lost race."""
        self._terms = self._renewals = self._failures = self._slow_paths = 0

    # -- what can be seen ------------------------------------------------------------------------------------

    @property
    def identity(self) -> str:
        """Who this candidate is."""
        return self._election.identity

    @property
    def leader(self) -> str:
        """Who leads, as last seen; empty if nobody was seen. It may be out of date."""
        return self._election.seen.holder

    @property
    def is_leader(self) -> bool:
        """This candidate leads, and its lease is not over by its own clock: nobody else can have begun."""
        if not self._leading or not self._election.holds:
            return False
        return self._election.valid(asyncio.get_running_loop().time())

    def statistics(self) -> LeaderStatistics:
        """The candidate at this moment."""
        return LeaderStatistics(
            lease=f"{self._namespace}/{self._name}",
            leading=self._leading,
            leader=self.leader,
            terms=self._terms,
            renewals=self._renewals,
            failures=self._failures,
            slow_paths=self._slow_paths,
        )

    def withhold_release(self) -> None:
        """Something begun in this term may go on after it: the lease is left to expire instead of given back."""
        self._withheld = True

    # -- leading ---------------------------------------------------------------------------------------------

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Waits to become leader, runs `lead`, and returns when it does; what it raises is raised.

        Cancelled, it cancels `lead` and waits for it, still leading, before it gives the lease back.

        Raises:
            LeadershipLost: the lease could not be renewed; `lead` was cancelled.
            RuntimeError: it runs already.
        """
        if self._running:
            raise RuntimeError(f"the candidate {self.identity!r} runs already: a term at a time")
        self._running, self._withheld = True, False
        try:
            await self._acquire()
            await self._reign(lead)
        finally:
            self._running = self._leading = False

    async def _acquire(self) -> None:
        log.info("attempting to acquire the lease", extra=self._extra())
        loop = asyncio.get_running_loop()
        # A process that stood still before it was answered may have been elected long ago.
        while not (await self._try() and self._election.valid(loop.time())):  # noqa: ASYNC110 - as time goes by
            await asyncio.sleep(self._times.retry_period_s * (1 + JITTER * self._uniform()))
        self._leading = True
        self._terms += 1
        log.info("acquired the lease", extra=self._extra())

    async def _reign(self, lead: Callable[[], Awaitable[None]]) -> None:
        leading = asyncio.create_task(_coroutine(lead), name=f"leading {self._name}")
        renewing = asyncio.create_task(self._renew(), name=f"renewing {self._name}")
        try:
            await asyncio.wait({leading, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if not leading.done():
                await self._evict(leading, renewing)
        except asyncio.CancelledError:
            leading.cancel()
            await self._wound_down(leading, renewing)
            self._tell_of_failure(leading)
            raise
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})
            self._leading = False
            if not leading.done():
                log.error("what was led goes on after its end was asked for", extra=self._extra())
                leading.cancel()
                half_s = self._times.margin_s / 2
                await asyncio.wait({leading}, timeout=max(half_s, min(self._left_s(), 4 * half_s)))
            elif self._release_on_cancel and not self._withheld:
                await self._release()
        leading.result()

    async def _evict(self, leading: asyncio.Task[None], renewing: asyncio.Task[None]) -> None:
        """The lease is lost: ends what is led, while nobody else can have begun unless the process stood still.

        Raises:
            LeadershipLost: always.
        """
        leading.cancel()
        await self._lost(leading)
        self._tell_of_failure(leading)
        now_leads = self.leader if self.leader != self.identity else ""
        raise LeadershipLost(
            f"{self.identity} no longer leads by the lease {self._namespace}/{self._name}: "
            + (
                f"{now_leads} does"
                if now_leads
                else f"it could not be renewed ({self._problem or 'unknown'})"
            )
        ) from (renewing.exception() if not renewing.cancelled() else None)

    async def _wound_down(self, leading: asyncio.Task[None], renewing: asyncio.Task[None]) -> None:
        """Waits for what was cancelled, as long as it may take; shorter if the lease is lost meanwhile."""
        await asyncio.wait(
            {leading, renewing}, timeout=self._wind_down_s, return_when=asyncio.FIRST_COMPLETED
        )
        if renewing.done() and not leading.done():
            await self._lost(leading)

    async def _lost(self, leading: asyncio.Task[None]) -> None:
        """Gives what was cancelled until shortly before the lease ends; when it is too late, a moment."""
        self._leading = False
        log.warning("lost the lease", extra=self._extra(leader=self.leader))
        half_s = self._times.margin_s / 2
        await asyncio.wait({leading}, timeout=max(self._left_s() - half_s, half_s))

    def _left_s(self) -> float:
        """Until this candidate's lease ends; 0 if it has none."""
        election = self._election
        return max(0.0, election.ends_at - asyncio.get_running_loop().time()) if election.holds else 0.0

    def _tell_of_failure(self, leading: asyncio.Task[None]) -> None:
        """What was led may fail while it is being ended; something else is raised then, so it is logged."""
        if leading.done() and not leading.cancelled() and (error := leading.exception()) is not None:
            log.error("what was led failed at its end", extra=self._extra(), exc_info=error)

    async def _renew(self) -> None:
        """Returns when the lease is lost."""
        while self._still_valid() and await self._renewed() and self._still_valid():
            self._renewals += 1
            await asyncio.sleep(self._times.retry_period_s)

    def _still_valid(self) -> bool:
        """False if the lease's time is over, which a process that stood still finds."""
        if self._election.valid(asyncio.get_running_loop().time()):
            return True
        self._problem = self._problem or "the process stood still until the lease was over"
        return False

    async def _renewed(self) -> bool:
        loop, period = asyncio.get_running_loop(), self._times.retry_period_s
        began = loop.time()
        end = min(began + self._times.renew_deadline_s, self._election.ends_at - self._times.margin_s)
        try:
            async with asyncio.timeout_at(end):
                while not await self._try():
                    if self.leader and not self._election.holds:
                        return False
                    # At fixed times from the beginning, however long the tries take.
                    left_s = period - (loop.time() - began) % period
                    # NB: just before such a time by rounding is at that time.
                    await asyncio.sleep(left_s if left_s > period / 100 else left_s + period)
        except TimeoutError:
            return False
        return True

    async def _release(self) -> None:
        """Gives the lease back if it is still ours; nobody minds if that fails. Not after it has run out."""
        election, left_s = self._election, self._left_s()
        if left_s <= 0:
            return
        try:
            async with asyncio.timeout(min(left_s, self._times.renew_deadline_s)):
                while await self._look() and self._document is not None and election.holds:
                    if await self._write(election.release(micro_time(self._wall()))):
                        log.info("released the lease", extra=self._extra())
                        return
                    # A renewal that was cut off may have arrived in between; anything else stays as it is.
                    if not self._conflict:
                        return
        except TimeoutError:
            log.warning("the lease was not released in time", extra=self._extra())

    # -- one try ---------------------------------------------------------------------------------------------

    async def _try(self) -> bool:
        """Acquires or renews; False if it was not to be, or failed."""
        try:
            return await self._tried()
        finally:
            self._report()

    async def _tried(self) -> bool:
        loop, election = asyncio.get_running_loop(), self._election
        moment = micro_time(self._wall())
        if self._leading and election.holds and election.valid(loop.time()) and self._document is not None:
            # A leader need not look: the update fails if somebody else's came in between.
            if await self._write(election.bid(moment)):
                return True
            self._slow_paths += 1
        if not await self._look():
            return False
        if self._document is None:
            return await self._create(election.first_bid(moment))
        if election.taken(loop.time()):
            return False
        return await self._write(election.bid(moment))

    async def _look(self) -> bool:
        """Reads the record; False if that failed. Without a Lease, there is no document afterwards."""
        try:
            document = await self._ask(ApiRequest("GET", f"{self._path}/{self._name}"))
            record = record_of(document)
        except Upstream as error:
            if error.http_status == 404:
                self._document = None
                return True
            return self._failed(error)
        except (ShoalError, TimeoutError, msgspec.ValidationError) as error:
            return self._failed(error)
        self._document = document
        self._election.observe(record, asyncio.get_running_loop().time())
        return True

    async def _create(self, record: LeaseRecord) -> bool:
        document = new_lease(self._namespace, self._name, self._labels, record)
        return await self._sent(ApiRequest("POST", self._path, (), _HEADERS, _encode(document)), record)

    async def _write(self, record: LeaseRecord) -> bool:
        if self._document is None:
            return False
        document = changed_lease(self._document, self._labels, record)
        path = f"{self._path}/{self._name}"
        return await self._sent(ApiRequest("PUT", path, (), _HEADERS, _encode(document)), record)

    async def _sent(self, request: ApiRequest, record: LeaseRecord) -> bool:
        # NB: the lease counts from when the server took it, which may be long before its answer arrives.
        sent_at = asyncio.get_running_loop().time()
        try:
            document = await self._ask(request)
            record_of(document)
        except (ShoalError, TimeoutError, msgspec.ValidationError) as error:
            return self._failed(error)
        self._document = document
        self._election.wrote(record, sent_at)
        self._problem = ""
        return True

    async def _ask(self, request: ApiRequest) -> Mapping[str, Any]:
        timeout_s = self._times.renew_deadline_s / 2
        try:
            async with asyncio.timeout(timeout_s):
                return msgspec.convert(await fetch_json(self._connection, request), dict[str, Any])
        except TimeoutError as error:
            raise TimeoutError(f"no answer to {request.method} within {timeout_s:g} s") from error

    def _failed(self, error: Exception) -> bool:
        self._failures += 1
        text = str(error)
        if isinstance(error, Upstream) and error.http_status in (401, 403):
            text = f"{text}; {_GRANT}"
        self._conflict = isinstance(error, Upstream) and error.http_status == 409
        if text != self._problem:
            self._problem = text
            log.log(
                logging.INFO if self._conflict else logging.WARNING,
                "the lease was written by somebody else" if self._conflict else "the lease cannot be used",
                extra=self._extra(problem=text),
            )
        return False

    def _report(self) -> None:
        leader = self.leader
        if leader == self._reported:
            return
        self._reported = leader
        log.info("new leader", extra=self._extra(leader=leader))
        if self._on_new_leader is None:
            return
        try:
            self._on_new_leader(leader)
        except Exception:
            log.exception("on_new_leader failed", extra=self._extra(leader=leader))

    def _extra(self, **more: object) -> dict[str, object]:
        return {"lease": f"{self._namespace}/{self._name}", "identity": self.identity, **more}


def _coroutine(lead: Callable[[], Awaitable[None]]) -> Coroutine[Any, Any, None]:
    async def led() -> None:
        await lead()

    return led()


def _encode(document: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(document)
