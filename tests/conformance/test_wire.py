"""The embedded API server against every recorded exchange of a real one.

Bodies are compared byte for byte. What cannot be equal is made equal first and named here: uids and times
of objects the test itself creates, the exact fields in their ``managedFields``, and the port in one
discovery answer. Header values are compared where clients look at them.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from support.apiserver import InProcessConnection, in_virtual_time
from support.recording import Recorded, Scene, Story, load, names, restarted

from shoal.cluster.simulator.app import ApiServerApp
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import Rule, SimulatorSettings, User

HEADERS = ("content-type", "cache-control", "retry-after", "x-content-type-options", "etag", "vary")
USERS = (User(name="viewer", token="viewer", rules=(Rule(resources=("pods",)),)),)
SEEDED = SimulatorSettings(seed=1)
NOT_READY = frozenset(
    {"poststarthook/rbac/bootstrap-roles", "poststarthook/scheduling/bootstrap-system-priority-classes"}
)
LIVE_AFTER_S = 0.71
"""When the recorded changes happened, in seconds after the watch began."""


@dataclass(frozen=True)
class Staging:
    """How the server is brought to the state an exchange was recorded in."""

    scene: Scene = Scene.CONSISTENT
    settings: SimulatorSettings = SEEDED
    clock: str = "09:01:08"
    """Wall-clock time of the request, which ages count to."""
    after: Callable[[Story], None] | None = None
    """What happens while the watch is open."""
    written: bool = False
    """The exchange creates an object: its uid and times are new."""
    restarted: bool = False
    failing: frozenset[str] = frozenset()
    token: str = ""
    asked_before: str = ""
    """An exchange that came before and matters: a consistent list makes the watch cache catch up."""


SHARDED = Staging(Scene.SHARDED, SimulatorSettings(seed=1, shard_selector=True))
RESTARTED = Staging(restarted=True)
GUARDED = SimulatorSettings(seed=1, users=USERS)
UNREADY = Staging(failing=NOT_READY)

STAGINGS: dict[str, Staging] = {
    "anonymous": Staging(settings=GUARDED),
    "forbidden": Staging(settings=GUARDED, token="viewer"),
    "unauthorized": Staging(settings=GUARDED, token="wrong"),
    "crd-create": Staging(Scene.BEFORE_DEFINITION, written=True),
    "crd-deleted-while-watched": Staging(Scene.WIDGETS_LATER, after=Story.undefine),
    "crd-discovery-aggregated": Staging(Scene.DEFINED),
    "crd-discovery-legacy": Staging(Scene.DEFINED),
    "crd-gone-list": Staging(Scene.UNDEFINED),
    "crd-list-table": Staging(Scene.WIDGETS),
    "create": Staging(written=True),
    "delete": Staging(Scene.PATCHED),
    "healthz": UNREADY,
    "livez": UNREADY,
    "readyz": UNREADY,
    "list-continue-expired": RESTARTED,
    "list-exact-expired": RESTARTED,
    "watch-expired": RESTARTED,
    "watchlist-old-rv": RESTARTED,
    "list-exact": Staging(Scene.FILLED),
    "list-full": Staging(Scene.FILLED),
    "list-limit-rv0": Staging(Scene.FILLED, asked_before="list-full"),
    "list-not-older-than": Staging(Scene.FILLED),
    "list-page-1": Staging(Scene.FILLED),
    "list-page-2": Staging(Scene.FILLED),
    "patch-merge": Staging(Scene.UPDATED),
    "update": Staging(Scene.CREATED),
    "update-conflict": Staging(Scene.UPDATED),
    "watch-churn": Staging(Scene.DELETED, after=lambda story: story.play("watch-churn")),
    "watch-label-transition": Staging(Scene.CHURNED),
    "watch-partial-metadata": Staging(Scene.CHURNED_AGAIN),
    "watch-replay": Staging(Scene.CHURNED),
    "watch-rv-0": Staging(Scene.CHURNED),
    "watch-rv-unset": Staging(Scene.CHURNED),
    "watch-table": Staging(Scene.CHURNED_AGAIN, clock="09:01:35"),
    "watch-too-old": Staging(Scene.CHURNED),
    "watchlist": Staging(Scene.IDLE, after=lambda story: story.play("watchlist")),
}
"""By exchange; `DEFAULT` for those not named."""
DEFAULT = Staging()


def staging_of(name: str) -> Staging:
    return SHARDED if "sharded" in name else STAGINGS.get(name, DEFAULT)


def staged(staging: Staging) -> tuple[ApiServerApp, Story | None]:
    moment = datetime.fromisoformat(f"2026-11-20T{staging.clock}+00:00")

    def now() -> datetime:
        return moment.astimezone(UTC) + timedelta(microseconds=1)

    app = build_app(staging.settings, now=now)
    app.failing |= staging.failing
    if staging.restarted:
        restarted(app)
        return app, None
    story = Story(app)
    story.bring_to(staging.scene)
    return app, story


def comparable(text: str, recorded: Recorded, staging: Staging) -> str:
    """What of a body is compared."""
    if recorded.name == "discovery-legacy-api":
        return re.sub(r'"serverAddress":"[^"]*"', '"serverAddress":""', text)
    if recorded.request.method in ("POST", "PUT", "PATCH") and recorded.status < 300:
        document = json.loads(text)
        metadata = document["metadata"]
        for entry in metadata["managedFields"]:
            entry.update(time="", fieldsV1={})
        if staging.written:
            metadata.update(uid="", creationTimestamp="")
        return json.dumps(document)
    return text


async def exchange(recorded: Recorded, staging: Staging) -> tuple[int, dict[str, str], str]:
    app, story = staged(staging)
    connection = InProcessConnection(app)
    request = recorded.request
    if staging.token:
        headers = (*request.headers, ("Authorization", f"Bearer {staging.token}"))
        request = type(request)(request.method, request.path, request.query, headers, request.body)
    if staging.asked_before:
        async with connection.open(load(staging.asked_before).request) as response:
            await response.read()
    async with connection.open(request) as response, asyncio.TaskGroup() as tasks:
        if staging.after is not None and story is not None:
            happens = staging.after

            async def happen() -> None:
                await asyncio.sleep(LIVE_AFTER_S)
                happens(story)

            tasks.create_task(happen())
        return response.status, dict(response.headers), (await response.read()).decode()


@pytest.mark.parametrize("name", names())
def test_exchange(name: str) -> None:
    recorded, staging = load(name), staging_of(name)
    status, headers, body = in_virtual_time(exchange(recorded, staging))

    assert status == recorded.status, body
    for header in HEADERS:
        assert headers.get(header) == recorded.headers.get(header), header
    if recorded.lines is not None:
        assert [line for line in body.split("\n") if line] == list(recorded.lines)
        return
    expected = recorded.body or ""
    cut = re.fullmatch(r"(.*)\.\.\.<cut, (\d+) characters in all>", expected, re.DOTALL)
    if cut is not None:
        assert body.startswith(cut[1])
        assert len(body) == int(cut[2])
    else:
        assert comparable(body, recorded, staging) == comparable(expected, recorded, staging)


@pytest.mark.parametrize("name", ["watch-churn", "watchlist"])
def test_bookmarks_come_when_the_real_server_sent_them(name: str) -> None:
    """About two seconds before the end: never earlier, and at most the 1.25 s of the timer later."""
    recorded, staging = load(name), staging_of(name)
    timeout_s = float(dict(recorded.request.query)["timeoutSeconds"])

    async def arrival() -> float:
        app, story = staged(staging)
        loop = asyncio.get_running_loop()
        async with InProcessConnection(app).open(recorded.request) as response:
            assert staging.after is not None
            assert story is not None
            await asyncio.sleep(LIVE_AFTER_S)
            staging.after(story)
            async for chunk in response.chunks():
                if b'"BOOKMARK"' in chunk and b"initial-events-end" not in chunk:
                    return loop.time()
        raise AssertionError("no bookmark")

    arrived = in_virtual_time(arrival())
    assert timeout_s - 2 <= arrived <= timeout_s - 2 + 1.25
    assert timeout_s - 2 <= recorded.times[-1] <= timeout_s - 2 + 1.25
