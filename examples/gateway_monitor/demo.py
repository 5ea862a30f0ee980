"""The demonstration: an embedded API server with a recorded cluster, the monitor, and people who break things.

Everything is real but the cluster and the people: the API server runs in a process of its own, the monitor talks to it
over HTTP, alerts go over HTTP. It ends with a summary of what was detected, and with 1 if something was not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import click
import msgspec

import shoal

from .monitor import Monitor
from .operators import Operators
from .receivers import HOOK, listening
from .scenario import GROUP, NAMESPACE, RELAXED, Stage, between, first_life, second_life
from .settings import Alertmanager, Alerts, Rollback, Settings, Webhook

START_S, STOP_S = 60.0, 10.0


class Failed(Exception):  # noqa: N818 - read as a sentence
    """The demonstration cannot go on."""


async def demonstrate(alertmanagers: Sequence[str], webhooks: Sequence[str]) -> bool:
    """Runs it; whether everything was detected. Alerts go to the given receivers too."""
    began = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - began:5.1f} s  {text}")

    stage = Stage(say)
    with tempfile.TemporaryDirectory(prefix="gateway-monitor-") as folder:
        say("starting an embedded API server with the recorded cluster")
        async with _api_server(Path(folder)) as server, listening(stage.received) as receivers:
            say(f"API server with {server.objects:,} objects at {server.url}")
            state_file, audit_file = str(Path(folder) / "state.json"), str(Path(folder) / "audit.jsonl")
            settings = Settings(
                alerts=_alerts([receivers, *alertmanagers], [f"{receivers}{HOOK}", *webhooks]),
                rollback=Rollback(delay_s=0.3),
                state_file=state_file,
                audit_file=audit_file,
                save_s=0.5,
            )
            async with shoal.local(str(server.kubeconfig)) as everybody:
                people = Operators(everybody, GROUP)
                before = await people.read("ratelimitpolicies", NAMESPACE, RELAXED)
                say("the monitor starts: it alerts, and shows what it would put back")
                async with _monitoring(server, settings, stage, say):
                    await first_life(stage, people)
                say("the monitor stops")
                await between(stage, people)
                enforcing = msgspec.structs.replace(settings, rollback=Rollback(enforce=True, delay_s=0.3))
                say("the monitor starts again, from its state file, with --enforce")
                async with _monitoring(server, enforcing, stage, say):
                    await second_life(stage, people, before)
            lines = _count_lines(Path(audit_file))
            await stage.expects("every rollback has an audit line", lambda: lines == len(stage.audit))
    return summarize(stage, time.monotonic() - began)


def _alerts(alertmanagers: Sequence[str], webhooks: Sequence[str]) -> Alerts:
    """As the defaults, but in a hurry: somebody is watching."""
    return Alerts(
        alertmanagers=tuple(Alertmanager(url=url, resend_s=5, expire_s=60) for url in alertmanagers),
        webhooks=tuple(Webhook(url=url) for url in webhooks),
        group_wait_s=0.5,
        hold_s={"route_down": 0.5},
    )


@contextlib.asynccontextmanager
async def _monitoring(
    server: _Server, settings: Settings, stage: Stage, say: Callable[[str], None]
) -> AsyncIterator[None]:
    """A monitor that runs while the context is open, and has seen everything there was at first."""
    async with shoal.local(str(server.kubeconfig)) as client:
        monitor = Monitor(
            client,
            settings,
            links=server.url,
            on_transitions=stage.take_transitions,
            on_audit=stage.take_audit,
        )
        stage.monitor = monitor
        running = asyncio.create_task(monitor.run(), name="monitor")
        ready = asyncio.create_task(monitor.ready.wait(), name="monitor is ready")
        try:
            await asyncio.wait((running, ready), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            if not ready.done():
                raise Failed(f"the monitor has not seen everything within {START_S:g} s")
            say(f"the monitor has seen {monitor.objects:,} objects of {len(monitor.followed)} resources")
            yield
        finally:
            for task in (running, ready):
                task.cancel()
            await asyncio.wait((running, ready), timeout=STOP_S)


class _Server(msgspec.Struct, frozen=True):
    url: str
    objects: int
    kubeconfig: str


@contextlib.asynccontextmanager
async def _api_server(folder: Path) -> AsyncIterator[_Server]:
    """``shoal apiserver`` in a process of its own, which ends with this one however this one ends."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "shoal", "apiserver", "--with-parent",
        "--cluster-file", "recorded", "--kubeconfig", str(folder / "kubeconfig"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = await process.stdout.readline()
        if not line:
            raise Failed(f"the embedded API server ended with code {await process.wait()}")
        yield msgspec.json.decode(line, type=_Server)
    except TimeoutError:
        raise Failed(f"the embedded API server did not start within {START_S:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def summarize(stage: Stage, took_s: float) -> bool:
    """Says what was expected and what was seen; whether that is the same."""
    click.echo("")
    for one in stage.seen:
        after = "NOT DETECTED" if one.after_s is None else f"after {one.after_s:4.1f} s"
        click.echo(f"{one.what:45} {after:13} {one.detail}".rstrip())
    missing = sum(one.after_s is None for one in stage.seen)
    click.echo("")
    click.echo(f"expected  {len(stage.seen)}")
    click.echo(f"detected  {len(stage.seen) - missing}")
    click.echo(f"took      {took_s:.0f} s")
    return not missing
