"""Asks the API server what it serves: `Discovery.look` is one look, `Snapshot` what is known after it.

A look costs two requests of which both are usually answered 304; servers without aggregated discovery (before
1.26) are asked group by group. What a look cannot learn does not make anything vanish: a group that cannot be
asked keeps the resources known before, and a look that fails changes nothing. Definitions of custom resources
are read where that is allowed and done without where not.

Reading the documents is `discovery_parse` and `definitions`, deciding what follows from them `catalogue`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

from ..shards.api.requests import ApiRequest, document_request, refusal, upstream_error
from ..shards.model.errors import ConnectionFailed, Garbage, ShoalError, Upstream
from .definitions import (
    ACCEPT_METADATA,
    DEFINITIONS,
    Definition,
    Revision,
    apply_definitions,
    parse_definition,
    parse_revisions,
)
from .discovery_parse import (
    ACCEPT_AGGREGATED,
    Discovered,
    DiscoveredGroup,
    DiscoveredVersion,
    Form,
    GroupVersions,
    keep_known,
    parse_resources,
    parse_root,
)
from .retention import Retention
from .settings import DiscoverySettings

_T = TypeVar("_T")

_AT_ONCE = 4
"""Requests of one look at the same time."""
_DEFINITIONS_PAGE = "500"
_NAMED_MAX = 3
"""Definitions named in a note."""


class _Answer(Protocol):
    """What discovery needs of an answer; `shards.api.client.ApiResponse` has it."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    async def read(self) -> bytes: ...


class Connection(Protocol):
    """What discovery needs of a connection; `shards.api.client.ApiConnection` has it."""

    def open(self, request: ApiRequest) -> AbstractAsyncContextManager[_Answer]:
        """Sends a request; the answer's head is there when entered.

        Raises:
            ConnectionFailed: no answer.
        """

    async def aclose(self) -> None:
        """Closes it; safe to repeat."""


class Snapshot(NamedTuple):
    """What is known about the API server."""

    groups: tuple[DiscoveredGroup, ...] = ()
    server_version: bytes = b""
    """Body of ``/version``, as it came."""
    form: Form = "aggregated"
    notes: tuple[str, ...] = ()
    """What is done without, as sentences."""


class _Fetched(NamedTuple):
    status: int
    etag: str
    body: bytes


class _Root(NamedTuple):
    """The last answer of ``/api`` or ``/apis``."""

    etag: str
    discovered: Discovered


class Discovery:
    """Looks, and remembers what looks have shown. One look at a time."""

    def __init__(self, connection: Connection, settings: DiscoverySettings) -> None:
        self._connection = connection
        self._settings = settings
        self._retention = Retention(settings)
        self._roots: dict[str, _Root] = {}
        self._known: tuple[DiscoveredGroup, ...] = ()  # as found, before retention and definitions
        self._definitions: dict[str, Definition] | None = None
        self._definitions_note = ""
        self._server_version = b""
        self._details_at: float | None = None
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def look(self) -> Snapshot:
        """One look at the API server.

        Raises:
            ConnectionFailed, Upstream, Garbage: nothing was learnt; what was known before stands.
        """
        roots = await _together([self._root("/api"), self._root("/apis")])
        legacy = any(root.legacy is not None for root in roots)
        found = [group for root in roots for group in await self._groups(root)]
        groups, stale = keep_known(self._known, found)
        await self._details(groups)
        declared = {
            resource for definition in (self._definitions or {}).values() for resource in definition.served
        }
        now = asyncio.get_running_loop().time()
        definitions = None if self._definitions is None else self._definitions.values()
        described = apply_definitions(groups, definitions)
        self._known = groups
        return Snapshot(
            self._retention.update(described, declared=declared, now=now),
            self._server_version,
            "legacy" if legacy else "aggregated",
            self._notes(stale),
        )

    def _notes(self, stale: tuple[str, ...]) -> tuple[str, ...]:
        notes = [f"discovery of {name} is stale: its resources are those known before" for name in stale]
        notes += [f"discovery does not show {resource} at the moment" for resource in self._retention.missing]
        if self._definitions_note:
            notes.append(self._definitions_note)
        return tuple(notes)

    # -- groups and resources
    # ---------------------------------------------------------------------------------

    async def _root(self, path: str) -> Discovered:
        before = self._roots.get(path)
        request = document_request(path, accept=ACCEPT_AGGREGATED, etag=before.etag if before else "")
        answer = await self._fetch(request)
        if answer.status == 304 and before is not None:
            return before.discovered
        discovered = parse_root(answer.body, path)
        self._roots[path] = _Root(answer.etag, discovered)
        return discovered

    async def _groups(self, discovered: Discovered) -> tuple[DiscoveredGroup, ...]:
        if discovered.legacy is None:
            return discovered.groups
        return tuple(await _together([self._legacy_group(group) for group in discovered.legacy]))

    async def _legacy_group(self, group: GroupVersions) -> DiscoveredGroup:
        versions = [await self._legacy_version(group.name, version) for version in group.versions]
        return DiscoveredGroup(group.name, tuple(version for version in versions if version is not None))

    async def _legacy_version(self, group: str, version: str) -> DiscoveredVersion | None:
        """One group version; stale if the API service behind it does not answer, None if it has just gone."""
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        try:
            answer = await self._fetch(document_request(path))
            return parse_resources(answer.body, group, version)
        except Upstream as error:
            return None if error.http_status == 404 else DiscoveredVersion(version, (), stale=True)
        except Garbage:
            return DiscoveredVersion(version, (), stale=True)

    # -- definitions and version
    # ------------------------------------------------------------------------------

    async def _details(self, groups: tuple[DiscoveredGroup, ...]) -> None:
        """Reads definitions and ``/version`` again, if there is reason to."""
        now = asyncio.get_running_loop().time()
        due = self._details_at is None or now - self._details_at >= self._settings.definitions_poll_s
        if not due and groups == self._known:
            return
        self._details_at = now
        try:
            self._server_version = (await self._fetch(document_request("/version"))).body
        except (Upstream, ConnectionFailed):
            if not self._server_version:
                self._details_at = None  # again with the next look
        served = {
            known.resource for group in groups for version in group.versions for known in version.resources
        }
        if DEFINITIONS not in served:
            self._definitions, self._definitions_note = None, ""
            return
        try:
            self._definitions, unread = await self._read_definitions()
            self._definitions_note = _unread_note(unread)
        except Upstream as error:
            if error.http_status in (401, 403):
                self._definitions = None
            self._definitions_note = (
                f"custom resources have no columns and selectable fields: {error.message}"
            )
        except (ConnectionFailed, Garbage) as error:
            self._definitions_note = f"definitions of custom resources could not be read: {error.message}"

    async def _read_definitions(self) -> tuple[dict[str, Definition], dict[str, ShoalError]]:
        """The definitions there are, and those that could not be read; only those that changed are read whole.

        One that cannot be read stays as it was known before, and is read again the next time.

        Raises:
            Upstream, ConnectionFailed: they may not be read, or the server is away.
        """
        revisions = await self._revisions()
        known = self._definitions or {}
        current = {
            name: known[name]
            for name, revision in revisions.items()
            if name in known and known[name].revision == revision
        }
        missing = [name for name in revisions if name not in current]
        read = await _together([self._read_definition(name) for name in missing])
        unread: dict[str, ShoalError] = {}
        for name, found in zip(missing, read, strict=True):
            if isinstance(found, ShoalError):
                unread[name] = found
            elif found is not None:
                current[name] = found
        general = [error for error in unread.values() if not isinstance(error, Garbage)]
        if general and not current and len(unread) == len(missing):
            raise general[0]
        current.update((name, known[name]) for name in unread if name in known)
        return current, unread

    async def _revisions(self) -> dict[str, Revision]:
        revisions: dict[str, Revision] = {}
        token = ""
        while True:
            query = (("limit", _DEFINITIONS_PAGE), *((("continue", token),) if token else ()))
            request = ApiRequest("GET", DEFINITIONS.path(), query, (("Accept", ACCEPT_METADATA),))
            page = parse_revisions((await self._fetch(request)).body)
            revisions.update(page.revisions)
            token = page.continue_token
            if not token:
                return revisions

    async def _read_definition(self, name: str) -> Definition | ShoalError | None:
        """One definition, why it cannot be read, or None if it was deleted since it was listed."""
        try:
            return parse_definition((await self._fetch(document_request(DEFINITIONS.path(name=name)))).body)
        except Upstream as error:
            return None if error.http_status == 404 else error
        except (ConnectionFailed, Garbage) as error:
            return error

    # -- one request
    # ------------------------------------------------------------------------------------------

    async def _fetch(self, request: ApiRequest) -> _Fetched:
        try:
            async with (
                self._slots,
                asyncio.timeout(self._settings.timeout_s),
                self._connection.open(request) as response,
            ):
                body = await response.read()
                if response.status not in (200, 304):
                    raise upstream_error(request, refusal(response.status, response.headers, body))
                return _Fetched(response.status, response.headers.get("etag", ""), body)
        except TimeoutError as error:
            raise ConnectionFailed(
                f"no answer to GET {request.path} within {self._settings.timeout_s:g} s"
            ) from error


def _unread_note(unread: Mapping[str, ShoalError]) -> str:
    named = sorted(unread)
    notes = [
        f"the definition {name} cannot be read, so its resources have what was known of them before: "
        f"{unread[name].message}"
        for name in named[:_NAMED_MAX]
    ]
    if len(named) > _NAMED_MAX:
        notes.append(f"and {len(named) - _NAMED_MAX} more definitions cannot be read")
    return "; ".join(notes)


async def _together(calls: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Runs all calls at once (`_AT_ONCE` bounds their requests); the first error stands for all."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(call, name="discovery") for call in calls]
    except BaseExceptionGroup as failures:
        raise _first_failure(failures) from failures
    return [task.result() for task in running]


def _first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """One failure of a group; one that is not ours (a bug) rather than one that is expected to happen."""
    ours: BaseException | None = None
    for failure in failures.exceptions:
        single = _first_failure(failure) if isinstance(failure, BaseExceptionGroup) else failure
        if not isinstance(single, ShoalError):
            return single
        ours = ours or single
    assert ours is not None
    return ours
