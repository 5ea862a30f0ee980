"""A watcher that trusts nobody: a small reflector as every client library has one, which judges each line it is sent.

It begins in the way of its flavour (LIST, pages, streaming list, or a watch with initial events), watches with or
without bookmarks, resumes at the version the last line said, lists anew when that is forgotten, and goes on after clean
ends, broken streams, 429 and 503. It uses no code of Shoal but the connection. Now and then it goes on as a client
that was restarted and had written down an earlier state; now and then it is slow; and it may come back to another
server than the one it was with, because `connect` gives it any.

`rough` is for a server with faults of its own: there, garbage, 500 and silence are part of the game. From a gateway
they are failures.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NoReturn

from support.watcher_oracle_flavours import LIST_ACCEPT, WATCH_ACCEPT, Flavour
from support.watcher_oracle_replica import Memory, Replica
from support.watcher_oracle_truth import Seen, seen_of

from shoal.shards.api.client import ApiConnection
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import ShoalError

TIMEOUTS_S = (3, 8, 30, 120, 290)
OVERTIME_S = 20.0
"""A stream that outlives its timeout by this is hung."""
PAUSE_S = 1.0
MEMORIES = 20
INITIAL_END = "k8s.io/initial-events-end"
LATER = {429, 503, 504}
"""What is answered by coming back later: full, a shard away, a version not reached yet."""


class _Again(Exception):  # noqa: N818 - control flow
    """This attempt has ended; come back after so many seconds."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class _Forgotten(Exception):  # noqa: N818 - control flow
    """410: the version is not remembered any more."""


class Watcher:
    """One watcher; `run` goes on until it is cancelled or has been told something wrong."""

    def __init__(
        self,
        replica: Replica,
        connect: Callable[[], ApiConnection],
        rng: random.Random,
        *,
        rough: bool = False,
        restarts: float = 0.2,
        slow: float = 0.0,
        fickle: float = 0.0,
        timeouts_s: tuple[int, ...] = TIMEOUTS_S,
    ) -> None:
        """`restarts`: how often it comes back with an older state; `slow`: how often it dawdles over a line; `fickle`:
        how often it leaves after one and comes back at once.
        """
        self.replica = replica
        self.flavour: Flavour = replica.flavour
        self.counts: Counter[str] = Counter()
        self._connect = connect
        self._rng = rng
        self._rough = rough
        self._restarts = restarts
        self._slow = slow
        self._fickle = fickle
        self.steady = False
        """Neither of these: whoever comes back with an older state would be told again what it had missed."""
        self._timeouts_s = timeouts_s
        self._memories: deque[Memory] = deque(maxlen=MEMORIES)
        self._resumable = False
        """`Replica.version` is one to come back with."""
        self._demands = self.flavour.demands
        self._columns = False
        """This stream has defined its columns."""

    async def run(self) -> None:
        """Lists and watches. Raises OracleBroken."""
        while True:
            try:
                if not self._resumable and self.flavour.begin in ("list", "pages"):
                    await self._list()
                await self._watch()
            except _Forgotten as why:
                self._again("forgotten", str(why))
                self._resumable = False
                self._memories.clear()
                await asyncio.sleep(self._rng.uniform(0.0, PAUSE_S))
            except _Again as why:
                self._again("again", str(why))
                await asyncio.sleep(self._rng.uniform(0.0, PAUSE_S) if why.seconds is None else why.seconds)
            except (ShoalError, TimeoutError) as error:
                self._again("broken", f"{type(error).__name__}: {error}")
                await asyncio.sleep(self._rng.uniform(0.0, PAUSE_S))
            else:
                self._again("ended", "")
                await asyncio.sleep(self._rng.choice((0.0, self._rng.uniform(0.0, PAUSE_S))))

    def _again(self, what: str, why: str) -> None:
        self.counts[what] += 1
        self.replica.note(f"-- {what}: {why}")

    # -- lists -----------------------------------------------------------------------------------------------

    async def _list(self) -> None:
        demanded = self.replica.version if self._demands else 0
        query = dict(self.flavour.selectors)
        if demanded:
            query |= {"resourceVersion": str(demanded), "resourceVersionMatch": "NotOlderThan"}
        if self.flavour.begin == "pages":
            query["limit"] = str(self._rng.choice((2, 5)))
        listed: dict[str, Seen] = {}
        version, last = 0, ""
        while True:
            document = await self._get(query)
            metadata = document["metadata"]
            if version and int(metadata["resourceVersion"]) != version:
                self.replica.fail(
                    "Snapshot pages", f"was given {version}, then {metadata['resourceVersion']}"
                )
            version = int(metadata["resourceVersion"])
            for state in self._listed(document):
                if state.key <= last:
                    self.replica.fail("No double", f"was listed {state.key} after {last}")
                listed[state.key], last = state, state.key
            token = metadata.get("continue", "")
            if not token:
                break
            query = {key: value for key, value in query.items() if not key.startswith("resourceVersion")} | {
                "continue": token
            }
            await asyncio.sleep(self._rng.choice((0.0, self._rng.uniform(0.0, 0.3))))
        self._replace(listed, version, demanded)
        self._resumable = True
        self._remember()

    def _replace(self, listed: dict[str, Seen], version: int, demanded: int) -> None:
        self.counts["lists"] += 1
        self._demands = self.flavour.demands
        self.replica.replace(listed, version, demanded=demanded)

    async def _get(self, query: dict[str, str]) -> Any:
        accept = (("Accept", LIST_ACCEPT[self.flavour.form]),)
        request = ApiRequest("GET", self.flavour.path, tuple(query.items()), accept)
        async with asyncio.timeout(60.0):
            async with self._connect().open(request) as response:
                body = await response.read()
                status, headers = response.status, response.headers
        if status != 200:
            self._refused(status, headers, body)
        return self._parsed(body)

    def _parsed(self, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            if not self._rough:
                self.replica.fail("JSON", f"was sent {text[:200]!r}")
            raise _Again("garbage") from None

    def _listed(self, document: dict[str, Any]) -> list[Seen]:
        if self.flavour.form == "table":
            return [seen_of(row["object"], whole=False) for row in document.get("rows") or ()]
        whole = self.flavour.form == "object"
        return [seen_of(item, whole=whole) for item in document.get("items") or ()]

    # -- watches ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        replica, rng = self.replica, self._rng
        initial: dict[str, Seen] | None = None
        demanded = 0
        if self._resumable and self._memories and not self.steady and rng.random() < self._restarts:
            self.counts["restarts"] += 1
            replica.forget_since(rng.choice(tuple(self._memories)))
            replica.note(f"-- restarted at {replica.version}")
        timeout_s = rng.choice(self._timeouts_s)
        query = {**dict(self.flavour.selectors), "watch": "1", "timeoutSeconds": str(timeout_s)}
        if self.flavour.bookmarks or self.flavour.begin == "stream":
            query["allowWatchBookmarks"] = "true"
        if self._resumable:
            self.counts["resumed"] += 1
            query["resourceVersion"] = str(replica.version)
        elif self.flavour.begin == "stream":
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            initial = {}
            if self._demands and replica.version:
                demanded = replica.version
                query["resourceVersion"] = str(demanded)
        else:
            replica.afresh()
            if self.flavour.begin == "zero":
                query["resourceVersion"] = "0"
        replica.note(f"-- watches {' '.join(f'{key}={value}' for key, value in query.items())}")
        replica.begins()
        self._columns = False
        accept = (("Accept", WATCH_ACCEPT[self.flavour.form]),)
        request = ApiRequest("GET", self.flavour.path, tuple(query.items()), accept, stream=True)
        try:
            async with asyncio.timeout(timeout_s + OVERTIME_S):
                async with self._connect().open(request) as response:
                    if response.status != 200:
                        self._refused(response.status, response.headers, await response.read())
                    async for line in self._lines(response.chunks()):
                        initial = self._line(line, initial, demanded)
                        if self.steady:
                            continue
                        if rng.random() < self._slow:
                            await asyncio.sleep(rng.expovariate(1.0))
                        if self._resumable and rng.random() < self._fickle:
                            return
        except TimeoutError:
            if not self._rough and not self._slow:
                replica.fail("Ends", f"was left with a stream for {OVERTIME_S:g} s after its {timeout_s} s")
            raise

    async def _lines(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        held = b""
        async for chunk in chunks:
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                yield line
        if held and not self._rough:
            self.replica.fail("Whole lines", f"was left with {held[:200]!r} at a clean end")

    def _line(self, line: bytes, initial: dict[str, Seen] | None, demanded: int) -> dict[str, Seen] | None:
        """Takes one line. `initial` is what a streaming list has sent so far; None once it is complete."""
        event = self._parsed(line)
        kind, document = event["type"], event["object"]
        if kind == "ERROR":
            self._error(document)
        if kind == "BOOKMARK":
            version = int(document["metadata"]["resourceVersion"])
            ends = (document["metadata"].get("annotations") or {}).get(INITIAL_END) == "true"
            if not ends and self.flavour.form == "table" and document.get("rows"):
                annotations = document["rows"][0]["object"]["metadata"].get("annotations") or {}
                ends = annotations.get(INITIAL_END) == "true"
            self.counts["bookmarks"] += 1
            if initial is not None:
                if not ends:
                    return initial
                self._replace(initial, version, demanded)
            else:
                self.replica.bookmark(version)
            self._resumable = True
        else:
            state = self._state(document)
            if initial is not None:
                self.replica.collect(initial, kind, state)
                return initial
            self.replica.apply(kind, state)
            # A watch that begins with whatever there is does not say when that has been sent. What is not ADDED, is
            # later.
            self._resumable = self._resumable or kind != "ADDED"
        self._remember()
        return None

    def _state(self, document: dict[str, Any]) -> Seen:
        if self.flavour.form != "table":
            return seen_of(document, whole=self.flavour.form == "object")
        if bool(document.get("columnDefinitions")) == self._columns:
            self.replica.fail("Table", "was sent columns again" if self._columns else "was sent no columns")
        self._columns = True
        return seen_of(document["rows"][0]["object"], whole=False)

    def _remember(self) -> None:
        if self._resumable and self._rng.random() < 0.3:
            self._memories.append(self.replica.remember())

    # -- refusals --------------------------------------------------------------------------------------------

    def _refused(self, status: int, headers: Mapping[str, str], body: bytes) -> NoReturn:
        """Raises what an answer that is no success means."""
        text = f"{status} {body[:300].decode('utf-8', 'replace')}"
        if status == 410:
            raise _Forgotten(text)
        if status == 504:
            self._demands = False  # as client-go does: once more, and of whatever version there is
        if status in LATER or (self._rough and status >= 500):
            after = headers.get("retry-after", "")
            raise _Again(text, float(after) if after.isdigit() else None)
        return self.replica.fail("Served", f"was refused: {text}")

    def _error(self, document: dict[str, Any]) -> None:
        code = document.get("code")
        if code == 410:
            raise _Forgotten(str(document))
        if code in LATER or self._rough:
            raise _Again(str(document))
        self.replica.fail("Served", f"was sent an error: {document}")
