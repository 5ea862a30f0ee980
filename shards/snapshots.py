"""Snapshots of partitions: written now and then, and read by a shard that is started again, so that it need not list.

What it keeps true: nothing depends on a snapshot. One that is missing, old, damaged, of another form, of another API
server or cannot be read now means a list, as if there had never been one; one that cannot be written leaves the last
one in place. All of it is counted and said. What is read is complete and undamaged, or not used.

A snapshot has the newest states only, not their history: a shard that was away does not know what others let be shown
meanwhile, so what it reads counts as a list made at that version (`resuming`). Which API server it is of is told by the
uid of the namespace ``kube-system``; where that cannot be learnt, snapshots are neither written nor used.

Values that are not to be shown are not written either: what is held redacted is written as it is held. Secrets with
their values are left out unless the settings ask for them, and files of them that are not to be there are removed.

Neighbours: `locations` has the places, `store.snapshot_format` the file, `store.transfer` its frames. `resuming` calls
`load`; what is written, and when, is `snapshot_writing`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Final, Protocol, TypeVar

from .api.client import ApiConnection
from .api.server_identity import ServerIdentity
from .handle import Assignment
from .locations import Location, LocationFailed, Reader
from .model.covers import contains, parse_cover
from .model.errors import BadRequest, Garbage
from .model.partitions import Partition
from .model.resources import Resource
from .receiving import in_turns
from .settings import SnapshotSettings
from .store import snapshot_format as form
from .store.snapshot_format import Form, Label
from .store.transfer import Arrival, Extract

log = logging.getLogger("shoal.shards.snapshots")

T = TypeVar("T")

SECRETS: Final = str(Resource("", "v1", "secrets"))
STEP_S: Final = 30.0
"""A place that does not answer for so long has failed."""
THREADS: Final = 2
"""For places; one that hangs keeps the other."""
IDENTITY_FIRST_S, IDENTITY_MAX_S = 1.0, 10.0
"""Pauses while the API server does not say which one it is: it could not be listed either."""


NO_IDENTITY: Final = (
    "nobody can tell which API server it is: it does not show the namespace kube-system (allow `get`)"
)


class OffLoop(Protocol):
    """Runs what blocks."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """What `work` returns or raises; LocationFailed if it does not end in time."""


class Threads:
    """Runs it in threads. One that hangs for ever is given up, and keeps its thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="snapshots")

    async def __call__(self, work: Callable[[], T], /) -> T:
        """As `OffLoop`."""
        try:
            async with asyncio.timeout(STEP_S):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TimeoutError:
            raise LocationFailed(f"the place of the snapshots did not answer within {STEP_S:g} s") from None


class _Unusable(Exception):  # noqa: N818 - control flow
    """A snapshot is not used."""

    def __init__(self, outcome: str, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome
        self.why = why


class Snapshots:
    """The snapshots of one shard, in one place. Belongs to the shard's event loop."""

    def __init__(
        self,
        location: Location,
        settings: SnapshotSettings,
        *,
        shard: str,
        connection: ApiConnection,
        managed_fields: bool,
        off_loop: OffLoop | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`wall` is a clock that other processes share; it may jump, which makes a snapshot look older or newer."""
        self.settings = settings
        self.shard = shard
        self.location = location
        self.identity = ServerIdentity(connection)
        self.off_loop: OffLoop = off_loop or Threads()
        self.wall = wall
        self.outcomes: Counter[str] = Counter()
        """``written``, ``resumed``, and why not: ``unwritten``, ``none``, ``old``, ``foreign``, ``other_form``,
        ``garbage``, ``unreadable``, ``unknown_server``."""
        self.bytes_written = 0
        self._managed_fields = managed_fields

    def form(self, assignment: Assignment) -> Form:
        """In which form a partition's objects are held."""
        return Form.of(
            assignment.resource_type, redacted=assignment.redact, managed_fields=self._managed_fields
        )

    def allowed(self, assignment: Assignment) -> bool:
        """Whether there may be a snapshot of it."""
        resource = str(assignment.partition.resource)
        return not self.forbidden(resource, redacted=assignment.redact)

    def forbidden(self, resource: str, *, redacted: bool) -> bool:
        """Whether such a snapshot must not be there."""
        return resource == SECRETS and not redacted and not self.settings.secrets

    async def label(self, name: str) -> Label | None:
        """What a snapshot is of; None if there is none.

        Raises:
            Garbage, LocationFailed, OSError: it cannot be told.
        """

        def read() -> Label | None:
            file = self.location.open(name)
            if file is None:
                return None
            with closing(file):
                return _read_label(file)

        return await self.off_loop(read)

    async def remove_forbidden(self, name: str, label: Label) -> bool:
        """Removes a snapshot that must not be there; whether it had to be."""
        if not self.forbidden(label.resource, redacted=label.form.redacted):
            return False
        try:
            await self.off_loop(lambda: self.location.remove(name))
        except LocationFailed as error:
            log.error("snapshot of secrets not removed", extra={"file": name, "why": error.message})  # noqa: TRY400
        else:
            log.warning("snapshot of secrets removed", extra={"file": name})
        return True

    # -- reading ----------------------------------------------------------------------------------------------

    async def load(self, assignment: Assignment) -> Extract | None:
        """What a snapshot has of a partition, or None if there is none to be used. Waits for an API server that is
        away: without it neither a snapshot could be used nor a list be made.
        """
        partition = assignment.partition
        if not self.allowed(assignment):
            return None
        server = await self._server()
        if not server:
            self.outcomes["unknown_server"] += 1
            log.warning("snapshot not used", extra={"partition": partition.id, "why": NO_IDENTITY})
            return None
        try:
            found = await self._found(assignment, server)
        except _Unusable as unusable:
            self.outcomes[unusable.outcome] += 1
            level = logging.INFO if unusable.outcome == "none" else logging.WARNING
            log.log(level, "snapshot not used", extra={"partition": partition.id, "why": unusable.why})
            return None
        self.outcomes["resumed"] += 1
        extra = {"partition": partition.id, "version": found.frontier, "objects": len(found)}
        log.info("partition resumes", extra=extra)
        return found

    async def _server(self) -> str:
        pause_s = IDENTITY_FIRST_S
        while (server := await self.identity.ask()) is None:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, IDENTITY_MAX_S)
        return server

    async def _found(self, assignment: Assignment, server: str) -> Extract:
        """The snapshot of just this partition, or else the newest of one that contains it."""
        partition = assignment.partition
        own = form.file_name(partition.resource, partition.id)
        problem = _Unusable("none", "there is none")
        try:
            return await self._read(own, assignment, server)
        except _Unusable as unusable:
            problem = unusable
        try:
            names = await self.off_loop(self.location.names)
        except LocationFailed as error:
            raise _Unusable("unreadable", error.message) from error
        labels: list[tuple[float, str]] = []
        prefix = form.file_prefix(partition.resource)
        for name in names:
            if name != own and name.startswith(prefix) and name.endswith(form.SUFFIX):
                with suppress(_Unusable):
                    label = await self._label(name)
                    self._require_useful(label, assignment, server)
                    labels.append((label.written_at, name))
        for _, name in sorted(labels, reverse=True):
            try:
                return await self._read(name, assignment, server)
            except _Unusable as unusable:
                problem = unusable
        raise problem

    async def _label(self, name: str) -> Label:
        try:
            label = await self.label(name)
        except (Garbage, LocationFailed, OSError) as error:
            raise _unusable(error) from error
        if label is None:
            raise _Unusable("none", "there is none")
        return label

    async def _read(self, name: str, assignment: Assignment, server: str) -> Extract:
        try:
            file = await self.off_loop(lambda: self.location.open(name))
            if file is None:
                raise _Unusable("none", "there is none")
            try:
                label = await self.off_loop(lambda: _read_label(file))
                await self.remove_forbidden(name, label)
                self._require_useful(label, assignment, server)
                arrival = Arrival()
                while frame := await self.off_loop(lambda: _read_frame(file)):
                    arrival.take(frame)
                    # Others on this loop get their turn: a frame takes some 10 ms.
                    await asyncio.sleep(0)
                extract = arrival.finish()
            finally:
                with suppress(LocationFailed, OSError):
                    await self.off_loop(file.close)
        except (Garbage, LocationFailed, OSError) as error:
            raise _unusable(error) from error
        return await self._fitting(extract, label, assignment.partition)

    async def _fitting(self, extract: Extract, label: Label, partition: Partition) -> Extract:
        """The part of it that is wanted, as old as it is."""
        said = (str(extract.resource), "".join(map(str, extract.covers)), extract.fields, extract.frontier)
        if said != (label.resource, label.cover, label.form.fields, label.version):
            raise _Unusable("garbage", "what is in it is not what its label says")
        extract = await in_turns(extract.restricting(partition.cover))
        return extract.aged(max(0.0, self.wall() - label.written_at))

    def _require_useful(self, label: Label, assignment: Assignment, server: str) -> None:
        partition = assignment.partition
        if label.form != self.form(assignment):
            raise _Unusable("other_form", "its objects are held in another form than is wanted now")
        if label.server != server:
            raise _Unusable("foreign", "it is of another cluster")
        age_s = self.wall() - label.written_at
        if age_s > self.settings.max_age_s:
            raise _Unusable("old", f"it is {age_s:.0f} s old")
        try:
            covered = contains(parse_cover(label.cover), partition.cover)
        except BadRequest as error:
            raise _Unusable("garbage", error.message) from error
        if label.resource != str(partition.resource) or not covered:
            raise _Unusable("none", "it is of another part of the resource")


def _unusable(error: Exception) -> _Unusable:
    message = getattr(error, "message", None) or str(error)
    return _Unusable("garbage" if isinstance(error, Garbage) else "unreadable", message)


def _read_label(file: Reader) -> Label:
    head = form.read_head(file.read(form.HEAD_BYTES))
    return form.read_label(head, file.read(head.length))


def _read_frame(file: Reader) -> bytes:
    """The next frame; empty at the end of the file, where one may be missing still."""
    beginning = file.read(form.LENGTH_BYTES)
    if not beginning:
        return b""
    length = form.read_length(beginning)
    frame = file.read(length)
    if not length or len(frame) != length:
        raise Garbage(f"a frame of {length} bytes is cut off after {len(frame)}")
    return frame
