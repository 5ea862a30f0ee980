"""Watching an installation come up: a progress bar for the initial sync, and what it waits for, in words."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ...shards.model.errors import ShoalError
from ..gateway.status import InstallationStatus
from .render import number
from .server import Server

POLL_S = 0.5


async def interruptible(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main`; SIGINT and SIGTERM cancel it, it tidies up, and this returns as if it had finished."""
    task = asyncio.create_task(main, name="command")
    loop = asyncio.get_running_loop()
    for interruption in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(interruption, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def until_interrupted(main: Coroutine[Any, Any, None]) -> None:
    """`interruptible` on an event loop of its own."""
    asyncio.run(interruptible(main))


async def follow(url: str, console: Console, *, stay: bool) -> None:
    """Shows the initial sync until it is complete; with `stay`, then waits to be cancelled."""
    async with Server(url) as server:
        await synced(server, console)
    if stay:
        await asyncio.Event().wait()


async def synced(server: Server, console: Console) -> InstallationStatus:
    """Shows a progress bar until every followed resource is synced or refused; returns the last status."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[objects]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[waiting]}", style="yellow"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("syncing partitions", total=None, objects="", waiting="")
        told = ""
        while True:
            status, waiting = None, ""
            try:
                status = await server.status()
            except ShoalError as error:
                waiting = str(error)
            if status is not None:
                done, total, objects = _progress(status)
                waiting = _waiting(status)
                progress.update(task, completed=done, total=total or None, objects=f"{number(objects)} objects")
                if total and done == total and not waiting:
                    return status
            progress.update(task, waiting=waiting)
            if waiting != told and waiting and not console.is_terminal:
                # Without a terminal there is no bar: what it waits for is said once each time it changes.
                console.print(f"waiting: {waiting}", markup=False)
            told = waiting
            await asyncio.sleep(POLL_S)


def _progress(status: InstallationStatus) -> tuple[int, int, int]:
    """Partitions that are done, all partitions, objects held so far."""
    partitions = status.report.coordinator.partitions if status.report.coordinator else ()
    done = sum(partition.state in ("synced", "refused", "gone") for partition in partitions)
    return done, len(partitions), sum(partition.objects for partition in partitions)


def _waiting(status: InstallationStatus) -> str:
    """What keeps discovery from succeeding; the partitions' own progress is the bar."""
    coordinator = status.report.coordinator
    return coordinator.discovery.waiting_for if coordinator else status.report.coordinator_problem
