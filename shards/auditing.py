"""The self-audit: what is held against what the API server has, in the background, and what follows where they differ.

What it keeps true: one partition of a shard is audited at a time, no faster than `AuditSettings` allow, each page under
one of the coordinator's permits, so that audits wait behind lists; an API server that has too much to do is left alone,
longer each time. What was found is counted, named by keys, and repaired: the partition is listed as a difference, which
watchers see as changes. On a healthy installation nothing is ever found.

An audit is a paged list of metadata alone. Its first page says a version V; each page is compared with what is held *at
its version* (`store.comparing`), which history knows while it reaches back so far. What differs is asked for once more,
object by object, before it counts: so what is told of is what differs now, not what a moment made so.

========== ====================================================================================================
equal      every object is held as the API server has it
divergent  some are not, and were not when asked for again; the partition is listed
unconfirmed some were not, and are now
behind     the server is at an older version than it told before, twice: it lost its past; the partition is listed
forgotten  the version left history before the audit was done
void       a list or a hand-off began meanwhile, or the partition was released
unreached  the partition did not reach the version of the list
unordered  the server lists in another order than that of keys
refused    the server answered with an error
failed     no answer, or none that can be read
========== ====================================================================================================

All but the first four are inconclusive and tried again sooner. Not found: contents that differ under the same version.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from .api.client import BODY_BYTES_MAX, ERROR_BODY_BYTES_MAX, ApiConnection
from .api.identities import identity_page
from .api.requests import ApiRequest, Refusal, identity_list_request, identity_request, refusal
from .following import Followed
from .model.errors import ConnectionFailed, Expired, Garbage, KubeconfigError, ShoalError, TooLargeVersion
from .model.observations import IdentityPage
from .model.partitions import PartitionId
from .model.versions import UNKNOWN, Version
from .settings import AuditSettings
from .store.comparing import KINDS, Comparison, Difference, Unordered, compare_one
from .store.snapshot import Snapshot
from .watch.permits import Permits

log = logging.getLogger("shoal.shards.auditing")

Outcome: TypeAlias = Literal[
    "equal",
    "divergent",
    "unconfirmed",
    "behind",
    "forgotten",
    "void",
    "unreached",
    "unordered",
    "refused",
    "failed",
]
CONCLUSIVE: Final = frozenset({"equal", "divergent", "unconfirmed", "behind"})

PAGE_BYTES: Final = 1 << 20
"""About so long should a page be: it is read and compared without giving the loop its turn, in some 4 ms."""
PAGE_FIRST, PAGE_MAX, PAGE_GROWTH = 50, 500, 4
"""Objects asked for first, before their size is known, and at most; and by how much from one page to the next."""
ANSWER_S: Final = 60.0
"""For one page, permit not counted; kube-apiserver itself gives up a LIST after as long."""
REACH_S: Final = 10.0
"""How long a partition gets to reach the version of the list; one that is idle proves it, which takes a second."""
TICK_S: Final = 30.0
"""How often is looked for what is due, at least; a twentieth of the period if that is shorter."""
JITTER: Final = 0.2
"""By so much of the period the times of audits differ."""
AGAIN_PART: Final = 10
"""What was inconclusive is due again after one part of so many of the period."""
OVERLOADED_FIRST_S, OVERLOADED_MAX_S = 30.0, 1800.0
"""How long an API server that answers 429 or 503 is left alone, if it does not ask for more; doubled each time."""


class _Ended(Exception):  # noqa: N818 - control flow: the audit is over
    """An audit came to nothing."""

    def __init__(self, outcome: Outcome, why: str, refused: Refusal | None = None) -> None:
        super().__init__(why)
        self.outcome: Outcome = outcome
        self.why = why
        self.refused = refused


class _Due(NamedTuple):
    held: Followed
    at: float


class Auditor:
    """The audits of one shard. `followed` says what there is to be audited. Belongs to the loop it is started on."""

    def __init__(
        self,
        *,
        connection: ApiConnection,
        permits: Permits,
        settings: AuditSettings,
        rng: random.Random,
        followed: Callable[[], Iterable[Followed]],
    ) -> None:
        self._connection = connection
        self._permits = permits
        self._settings = settings
        self._rng = rng
        self._followed = followed
        self._due: dict[PartitionId, _Due] = {}
        self._paid_until = 0.0
        """When what was asked for so far is within the budget."""
        self._left_alone_s = 0.0
        self._not_before = 0.0
        self._limit = PAGE_FIRST
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, unless audits are switched off or have begun."""
        if self._settings.period_s and self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run(), name="audits")

    async def stop(self) -> None:
        """Ends the audits."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])

    async def _run(self) -> None:
        tick_s = min(TICK_S, self._settings.period_s / 20)
        while True:
            await asyncio.sleep(tick_s)
            while (held := self._next()) is not None:
                await self.audit(held)

    def _next(self) -> Followed | None:
        """What is due, the longest due first."""
        now, period_s = _now(), self._settings.period_s
        followed = {held.assignment.partition.id: held for held in self._followed()}
        self._due = {
            # NB: by identity, because what was adopted anew has not been audited.
            partition: known
            if (known := self._due.get(partition)) is not None and known.held is held
            else _Due(held, now + self._rng.random() * period_s)
            for partition, held in followed.items()
        }
        if now < self._not_before:
            return None
        due = [(one.at, partition) for partition, one in self._due.items() if one.at <= now]
        return next(
            (followed[partition] for _, partition in sorted(due) if followed[partition].comparable), None
        )

    # -- one audit --------------------------------------------------------------------------------------------

    async def audit(self, held: Followed) -> Outcome:
        """Compares one partition, counts what came of it, and sees to what has to follow."""
        partition = held.assignment.partition.id
        try:
            outcome = await self._compare(held)
            self._left_alone_s = 0.0
        except _Ended as ended:
            outcome = ended.outcome
            log.info(
                "audit inconclusive", extra={"partition": partition, "outcome": outcome, "why": ended.why}
            )
            if ended.refused is not None and ended.refused.meaning == "overloaded":
                self._leave_alone(ended.refused)
        except Exception:
            # A bug; what is held is served as before, and the next audit may do better.
            log.exception("audit failed", extra={"partition": partition})
            outcome = "failed"
        conclusive = outcome in CONCLUSIVE
        held.audits.ended(outcome, conclusive=conclusive)
        again_s = self._settings.period_s * (1 + JITTER * (self._rng.random() - 0.5))
        self._due[partition] = _Due(held, _now() + (again_s if conclusive else again_s / AGAIN_PART))
        return outcome

    def _leave_alone(self, refused: Refusal) -> None:
        self._left_alone_s = min(max(OVERLOADED_FIRST_S, 2 * self._left_alone_s), OVERLOADED_MAX_S)
        wanted_s = min(refused.retry_after_s or 0.0, OVERLOADED_MAX_S)
        self._not_before = _now() + max(wanted_s, self._left_alone_s)

    async def _compare(self, held: Followed) -> Outcome:
        store, partition = held.store, held.assignment.partition
        comparison = Comparison(partition.cover.admits)
        turn, token, told = store.turn, "", store.frontier
        self._limit = min(PAGE_FIRST, self._settings.objects_per_s)
        while True:
            answer = await self._ask(
                identity_list_request(partition, limit=self._limit, continue_token=token), held
            )
            if isinstance(answer, Refusal):
                token = _onward(answer) if token else ""
                if not token:
                    raise _refused(answer)
                told = store.frontier
                continue
            if answer.version < told:
                return await self._behind(held, told)
            told = answer.version
            state = await self._state(held, turn, answer.version)
            try:
                comparison.page(answer.listed, state, last=not answer.continue_token)
            except Unordered:
                raise _Ended("unordered", "the pages are not in the order of keys") from None
            held.audits.compared += len(answer.listed)
            token = answer.continue_token
            if not token:
                break
        return await self._differ(held, turn, comparison) if comparison.counts else "equal"

    async def _state(self, held: Followed, turn: int, version: Version) -> Snapshot:
        """What is held at a version; valid until the loop gets its turn."""
        try:
            await held.reached(version, REACH_S)
        except TooLargeVersion as error:
            raise _Ended("unreached", error.message) from error
        except ShoalError as error:
            raise _Ended("void", error.message) from error
        if held.store.turn != turn or not held.comparable:
            raise _Ended("void", "a list or a hand-off began, or the partition was released")
        try:
            return held.store.state(version)
        except Expired as error:
            raise _Ended("forgotten", f"version {version} left history before it was compared") from error

    async def _differ(self, held: Followed, turn: int, comparison: Comparison) -> Outcome:
        """Asks once more for what differs, and counts what still does."""
        resource, admits = held.assignment.partition.resource, held.assignment.partition.cover.admits
        confirmed: list[Difference] = []
        for one in comparison.named:
            answer = await self._ask(identity_request(resource, one.key), held)
            if isinstance(answer, Refusal):
                raise _refused(answer)
            state = await self._state(held, turn, answer.version)
            own = [listed for listed in answer.listed if admits(listed.namespace, listed.uid)]
            kind = compare_one(own, state.entry(one.key), one.key)
            if kind is not None:
                confirmed.append(Difference(kind, one.key))
        told = confirmed or comparison.named
        extra: dict[str, object] = {kind: [one.key for one in told if one.kind == kind] for kind in KINDS}
        extra["partition"] = held.assignment.partition.id
        if not confirmed:
            log.warning("objects differed from the API server for a moment", extra=extra)
            return "unconfirmed"
        counts = comparison.counts - Counter(one.kind for one in comparison.named)
        counts.update(one.kind for one in confirmed)
        held.audits.divergence.update(counts)
        log.error("objects differ from the API server", extra={**extra, "count": counts.total()})
        held.distrust(f"{counts.total()} objects differed from the API server")
        return "divergent"

    async def _behind(self, held: Followed, told: Version) -> Outcome:
        """The server says an older version than it told us before: it lost its past, if it says so again."""
        answer = await self._ask(identity_list_request(held.assignment.partition, limit=1), held)
        if isinstance(answer, Refusal):
            raise _refused(answer)
        if answer.version >= told:
            raise _Ended("void", f"the API server was at {told}, then seemed to be before it")
        extra = {"partition": held.assignment.partition.id, "told": told, "now": answer.version}
        log.error("the API server is at an older version than before", extra=extra)
        held.distrust("the API server lost its past")
        return "behind"

    # -- asking -----------------------------------------------------------------------------------------------

    async def _ask(self, request: ApiRequest, held: Followed) -> IdentityPage | Refusal:
        """One answer, within the budget and under a permit."""
        await asyncio.sleep(max(0.0, self._paid_until - _now()))
        began = _now()
        try:
            async with (
                self._permits.permit(held.assignment.partition.id),
                asyncio.timeout(ANSWER_S),
                self._connection.open(request) as response,
            ):
                if response.status != 200:
                    body = await response.read(ERROR_BODY_BYTES_MAX)
                    return refusal(response.status, response.headers, body)
                body = await response.read(BODY_BYTES_MAX)
            page = identity_page(body)
        except TimeoutError as error:
            raise _Ended("failed", "no answer in time") from error
        except (ConnectionFailed, KubeconfigError, Garbage) as error:
            raise _Ended("failed", error.message) from error
        if page.version == UNKNOWN:
            raise _Ended("failed", "the list has no resourceVersion")
        self._pay(began, len(page.listed), len(body))
        return page

    def _pay(self, began: float, objects: int, size: int) -> None:
        settings = self._settings
        cost_s = max(objects / settings.objects_per_s, size / settings.bytes_per_s)
        self._paid_until = max(self._paid_until, began) + cost_s
        if objects:
            # Step by step: the first objects may be small, and a server may not know the form that has metadata alone.
            most = min(PAGE_MAX, settings.objects_per_s, PAGE_GROWTH * objects)
            self._limit = max(1, min(most, objects * PAGE_BYTES // size))


def _onward(refused: Refusal) -> str:
    """The token to go on with at a newer version, which comes with the refusal of one that has expired."""
    metadata = (refused.document or {}).get("metadata")
    token = (
        metadata.get("continue") if refused.meaning == "expired" and isinstance(metadata, Mapping) else None
    )
    return token if isinstance(token, str) else ""


def _refused(refused: Refusal) -> _Ended:
    return _Ended("refused", f"{refused.status}: {refused.message}", refused)


def _now() -> float:
    return asyncio.get_running_loop().time()
