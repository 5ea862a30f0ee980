"""When snapshots are written, and how: in pieces, no faster than is allowed, and only of what is worth it.

What it keeps true: a partition is written when it is followed and complete, and enough of it has changed since the last
time; what cannot be written is tried again in the next period, and said once. Files that are of no use to anybody any
more are removed: those that are too old to be used, and secrets with their values that are not to be there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from .following import Followed
from .locations import Draft, LocationFailed
from .model.errors import Garbage
from .model.partitions import Partition, PartitionId
from .snapshots import NO_IDENTITY, Snapshots
from .store import snapshot_format as form
from .store.past import Past
from .store.snapshot_format import Label
from .store.transfer import Extract

log = logging.getLogger("shoal.shards.snapshots")

PIECE_BYTES: Final = 256 << 10
"""Written at a time."""
TICK_S: Final = 10.0
"""How often is looked for what is due, at least; a tenth of `every_s` if that is shorter."""
WORTH_PART: Final = 200
"""A partition of which less than one object of so many has changed is written after `WORTH_PERIODS` only."""
WORTH_PERIODS: Final = 4
SWEEP_S: Final = 3600.0
"""Between two looks for files that are of no use to anybody."""
ABANDON_S: Final = 1.0
"""For removing a draft that will not be completed; it is removed later otherwise."""


class _Last(NamedTuple):
    """A partition, and its last snapshot."""

    held: Followed
    due: float
    at: float = float("-inf")
    changes: int = -1


class SnapshotWriter:
    """Writes the partitions of one shard. `followed` says which they are."""

    def __init__(
        self, snapshots: Snapshots, *, incarnation: str, followed: Callable[[], Iterable[Followed]]
    ) -> None:
        self._snapshots = snapshots
        self._settings = snapshots.settings
        self._incarnation = incarnation
        self._followed = followed
        self._rng = random.Random(f"snapshots {snapshots.shard} {incarnation}")
        self._last: dict[PartitionId, _Last] = {}
        self._failing = self._said_no_identity = False
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, unless it has begun."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run(), name="snapshots")

    async def stop(self) -> None:
        """Ends it; what is half written is dropped, and the last snapshot of it stays."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        swept_at = float("-inf")
        while True:
            try:
                if now() - swept_at >= SWEEP_S:
                    swept_at = now()
                    await self.sweep()
                for held in self._due():
                    await self.write(held)
            except Exception:
                # A bug; snapshots are worth less than anything else that goes on here.
                log.exception("snapshots failed")
            await asyncio.sleep(min(TICK_S, self._settings.every_s / 10))

    def _due(self) -> list[Followed]:
        now, every_s = asyncio.get_running_loop().time(), self._settings.every_s
        known, self._last = self._last, {}
        for held in self._followed():
            partition = held.assignment.partition.id
            last = known.get(partition)
            if last is None or last.held is not held:
                # The first one soon: a list that was just made is what there is to be saved.
                last = _Last(held, now + self._rng.random() * every_s / 2)
            self._last[partition] = last
        return [
            one.held
            for one in self._last.values()
            if one.due <= now and self._worth(one, now) and self._snapshots.allowed(one.held.assignment)
        ]

    def _worth(self, last: _Last, now: float) -> bool:
        """Whether enough has changed, or the last one will soon be too old to be used."""
        if now - last.at >= self._settings.max_age_s / 2:
            return True
        changed = _changes(last.held) - last.changes
        return changed > len(last.held.store) // WORTH_PART or (
            changed > 0 and now - last.at >= WORTH_PERIODS * self._settings.every_s
        )

    async def write(self, held: Followed) -> bool:
        """Writes one partition; false if that came to nothing, which is counted and said."""
        now, changes = asyncio.get_running_loop().time(), _changes(held)
        partition, snapshots = held.assignment.partition, self._snapshots
        size = None
        try:
            size = await self._write(held)
        except (LocationFailed, OSError) as error:
            snapshots.outcomes["unwritten"] += 1
            if not self._failing:
                log.warning("snapshot not written", extra={"partition": partition.id, "why": str(error)})
            self._failing = True
        due = now + self._settings.every_s * (0.9 + 0.2 * self._rng.random())
        last = self._last.get(partition.id) or _Last(held, due)
        if size is not None:
            if self._failing:
                log.warning("snapshots are written again", extra={"partition": partition.id})
            self._failing = False
            snapshots.outcomes["written"] += 1
            snapshots.bytes_written += size
            last = last._replace(at=now, changes=changes)
        self._last[partition.id] = last._replace(due=due)
        return size is not None

    async def _write(self, held: Followed) -> int | None:
        """How many bytes; None where there is nothing to be written truly."""
        snapshots, partition = self._snapshots, held.assignment.partition
        server = await snapshots.identity.ask()
        if server == "" and not self._said_no_identity:
            self._said_no_identity = True
            snapshots.outcomes["unknown_server"] += 1
            log.warning("snapshots not written", extra={"why": NO_IDENTITY})
        if not server or not held.comparable:
            return None
        whole = held.store.extract()
        # The newest states alone: nobody knows what others will let be shown until it is read.
        extract = replace(whole, past=Past(whole.past.taken_at, whole.frontier), marks=())
        label = Label(
            resource=str(partition.resource),
            cover=str(partition.cover),
            form=snapshots.form(held.assignment),
            server=server,
            shard=snapshots.shard,
            version=extract.frontier,
            written_at=snapshots.wall(),
            objects=len(extract),
        )
        name = form.file_name(partition.resource, partition.id)
        draft = await snapshots.off_loop(partial(snapshots.location.draft, name, self._incarnation))
        try:
            size = await self._fill(draft, label, extract)
            await snapshots.off_loop(draft.commit)
        except BaseException:
            with suppress(LocationFailed, TimeoutError):
                async with asyncio.timeout(ABANDON_S):
                    await snapshots.off_loop(draft.abandon)
            raise
        return size

    async def _fill(self, draft: Draft, label: Label, extract: Extract) -> int:
        piece = form.labelled(label)
        await self._snapshots.off_loop(partial(draft.write, piece))
        size = len(piece)
        for frame in extract.frames(PIECE_BYTES):
            piece = form.framed(frame)
            await self._snapshots.off_loop(partial(draft.write, piece))
            size += len(piece)
            await asyncio.sleep(len(piece) / self._settings.bytes_per_s)
        return size

    # -- removing ---------------------------------------------------------------------------------------------

    async def released(self, partition: Partition) -> None:
        """Another shard has it now, or nobody: the snapshot is removed if it is this shard's."""
        self._last.pop(partition.id, None)
        snapshots, name = self._snapshots, form.file_name(partition.resource, partition.id)
        try:
            label = await snapshots.label(name)
            if label is not None and label.shard == snapshots.shard:
                await snapshots.off_loop(partial(snapshots.location.remove, name))
        except (Garbage, LocationFailed, OSError) as error:
            log.info("snapshot not removed", extra={"partition": partition.id, "why": str(error)})

    async def sweep(self) -> None:
        """Removes what is of no use, or must not be there."""
        snapshots = self._snapshots
        try:
            await snapshots.off_loop(partial(snapshots.location.tidy, snapshots.wall()))
            names = await snapshots.off_loop(snapshots.location.names)
        except LocationFailed as error:
            log.info("snapshots not looked through", extra={"why": error.message})
            return
        for name in names:
            if not name.endswith(form.SUFFIX):
                continue
            # What cannot be read is left alone: it may be somebody else's.
            with suppress(Garbage, LocationFailed, OSError):
                label = await snapshots.label(name)
                if label is None or await snapshots.remove_forbidden(name, label):
                    continue
                if snapshots.wall() - label.written_at > self._settings.max_age_s:
                    await snapshots.off_loop(partial(snapshots.location.remove, name))


def _changes(held: Followed) -> int:
    """Grows with whatever changes what is held."""
    store = held.store
    return store.turn + sum(store.events[kind] for kind in ("added", "modified", "deleted"))
