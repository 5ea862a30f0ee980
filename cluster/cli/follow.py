"""Watching an installation come up and stay up: a progress bar for the initial sync, and what it waits for, in words.

On a terminal the bar and the sentences are redrawn in place; without one a sentence is printed once.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from ...shards.model.errors import ShoalError
from ...shards.model.queries import PartitionStatistics
from ..gateway.status import InstallationStatus
from .render import number, seconds

POLL_S = 0.5
HEALTH_POLL_S = 2.0
PATIENCE_S = 2.0
"""What is over sooner is not worth a line: shards that start, a connection that is made again."""
SENTENCES_MAX = 5
"""So many things that are waited for are shown; the rest is counted."""


class StatusReports(Protocol):
    """An installation that can be looked at: a gateway (`Server`), or one that was just brought up."""

    async def status(self) -> InstallationStatus:
        """What it reports about itself. Raises ShoalError where it does not answer."""


async def interruptible(
    main: Coroutine[Any, Any, None], *, gently: Callable[[], bool] = lambda: False
) -> signal.Signals | None:
    """Runs `main`; SIGINT and SIGTERM cancel it, and it tidies up. Returns the signal that did, if one did.

    A signal that comes while it tidies up is ignored: what is half ended would be left behind. SIGINT is offered
    to `gently` first, which says whether that takes care of it.
    """
    task = asyncio.create_task(main, name="command")
    loop = asyncio.get_running_loop()
    came: list[signal.Signals] = []

    def interrupt(interruption: signal.Signals) -> None:
        if not came and not (interruption == signal.SIGINT and gently()):
            came.append(interruption)
            task.cancel()

    for interruption in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(interruption, interrupt, interruption)
    try:
        await task
    except asyncio.CancelledError:
        if not came:
            raise
    return came[0] if came else None


def until_interrupted(
    main: Coroutine[Any, Any, None], *, gently: Callable[[], bool] = lambda: False
) -> signal.Signals | None:
    """`interruptible` on an event loop of its own."""
    return asyncio.run(interruptible(main, gently=gently))


async def follow(shoal: StatusReports, console: Console, *, stay: bool) -> None:
    """Shows the initial sync until it is complete; with `stay`, then what goes wrong until it is cancelled."""
    status = await synced(shoal, console)
    sentences = _Sentences(console)
    if status.cannot_review:
        sentences.say(status.cannot_review)
    if stay:
        await _well(shoal, sentences)


async def synced(shoal: StatusReports, console: Console) -> InstallationStatus:
    """Shows a progress bar until every followed resource is synced or refused; returns the last status."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[objects]}"),
        TimeElapsedColumn(),
    )
    loop = asyncio.get_running_loop()
    began = loop.time()
    bar = Progress(*columns, console=console)
    task = bar.add_task("syncing partitions", total=None, objects="")
    sentences = _Sentences(console)
    objects = total = 0
    status: InstallationStatus | None = None
    with Live(bar, console=console, transient=True) as live:
        while True:
            try:
                status = await shoal.status()
            except ShoalError as error:
                waiting = [str(error)]
            else:
                done, total, objects = _progress(status)
                waiting = _waiting(status)
                bar.update(task, completed=done, total=total or None, objects=f"{number(objects)} objects")
                if _discovered(status) and done == total:
                    break
            if not console.is_terminal:
                sentences.show(waiting)
            live.update(Group(bar, *(Text(f"  waiting: {sentence}", style="yellow") for sentence in waiting)))
            await asyncio.sleep(POLL_S)
    assert status is not None
    refused = _refused(status)
    console.print(
        f"synced {number(objects)} objects in {number(total)} partitions within {seconds(loop.time() - began)}"
        + (f"; refused: {len(refused)}" if refused else "")
    )
    for sentence in _few(refused):
        console.print(sentence, markup=False, soft_wrap=True)
    return status


async def _well(shoal: StatusReports, sentences: _Sentences) -> None:
    """Says what goes wrong, and when all is well again."""
    while True:
        await asyncio.sleep(HEALTH_POLL_S)
        try:
            waiting = _waiting(await shoal.status())
        except ShoalError as error:
            waiting = [str(error)]
        sentences.show(waiting)


class _Sentences:
    """Prints sentences that stay for a moment, once, and once there are none any more, that it waits no longer."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    def say(self, sentence: str) -> None:
        """Prints one at once."""
        self._told.add(sentence)
        self._console.print(f"waiting: {sentence}", markup=False, soft_wrap=True)

    def show(self, sentences: list[str]) -> None:
        """Takes what is true now."""
        now = asyncio.get_running_loop().time()
        # How long it is until the next try changes every time, and is not news.
        plain = [sentence.partition("; trying again in ")[0] for sentence in sentences]
        self._since = {sentence: self._since.get(sentence, now) for sentence in plain}
        for sentence, since in self._since.items():
            if sentence not in self._told and now - since >= PATIENCE_S:
                self.say(sentence)
        if self._told and not plain:
            self._told.clear()
            self._console.print("no longer waiting")


def _few(sentences: list[str]) -> list[str]:
    more = len(sentences) - SENTENCES_MAX
    return sentences if more <= 0 else [*sentences[:SENTENCES_MAX], f"{more} more; see `shoal status`"]


def _discovered(status: InstallationStatus) -> bool:
    coordinator = status.report.coordinator
    return (
        coordinator is not None
        and coordinator.discovery.succeeded_age_s is not None
        and coordinator.epoch > 0
    )


def _held(status: InstallationStatus) -> list[PartitionStatistics | None]:
    """Every placed partition as its shard has it; None where the shard has not said anything of it yet.

    What the shards say themselves is newer than what they last told the coordinator.
    """
    placed = status.report.coordinator.partitions if status.report.coordinator else ()
    held = {
        (shard, own.partition): own
        for shard, statistics in status.report.statistics().items()
        for own in statistics.partitions
    }
    return [held.get((part.shard, part.partition)) if part.shard is not None else None for part in placed]


def _progress(status: InstallationStatus) -> tuple[int, int, int]:
    """Partitions that are done, all partitions, objects held so far."""
    held = _held(status)
    done = sum(own is not None and own.state in ("synced", "refused", "gone") for own in held)
    return done, len(held), sum(own.objects for own in held if own is not None)


def _waiting(status: InstallationStatus) -> list[str]:
    """What goes wrong. What is merely not synced yet is the bar, and what is refused is said once."""
    coordinator = status.report.coordinator
    if coordinator is None:
        return [status.report.coordinator_problem]
    if coordinator.discovery.waiting_for:
        return [coordinator.discovery.waiting_for]
    return _few(
        [
            *([status.cannot_review] if status.cannot_review else []),
            *(
                f"{shard.shard} is {shard.state}: {shard.message or 'no answer yet'}"
                for shard in coordinator.shards
                if shard.state != "healthy"
            ),
        ]
    )


def _refused(status: InstallationStatus) -> list[str]:
    return [
        f"{own.partition} is refused: {own.message}"
        for own in _held(status)
        if own is not None and own.state == "refused"
    ]
