"""The API server's OpenAPI documents, mirrored: ``/openapi/v2``, ``/openapi/v3`` and everything below.

``kubectl explain``, ``kubectl create --validate`` and typed clients read them. The gateway fetches each once for all
clients, keeps the bytes as they came, and asks the API server every `REVALIDATE_S` at most whether they still hold
(If-None-Match). A client gets the API server's own ETag and may ask in the same way.

A version 3 document may be asked for by its hash, which is its ETag; then it never changes and says so. An old hash is
redirected to the newest one known, after the API server was asked again. Both are kube-apiserver's behaviour
(``kube-openapi/pkg/handler3``).

While the API server is away or slow, what was fetched before is served, with its age in ``Shoal-Age``; what was never
fetched is 503. Only paths that can be such documents are passed on: it is Shoal's own account that asks, so nothing
else may be reached through here. Whether the client may read them was decided before (`app`).

Bounded: `CACHE_BYTES` of documents, the longest unused ones go first; `FETCHES_AT_ONCE` fetches; requests for the same
document share one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final
from urllib.parse import urlencode

from ...shards.api.client import ERROR_BODY_BYTES_MAX, ApiConnection
from ...shards.api.requests import ApiRequest, refusal
from ...shards.model.errors import BadRequest, NotReady, ShoalError, TooManyRequests
from ..serving.negotiation import etag_matches
from .http import NO_CACHE, Answer, Headers, Request, no_such_page

log = logging.getLogger("shoal.cluster.gateway.openapi")

REVALIDATE_S: Final = 2.0
"""How long a document is served without asking whether it still holds: a new definition is explained that soon."""
FETCH_TIMEOUT_S: Final = 30.0
"""For one document: kube-apiserver may build version 2 of it anew first, which takes seconds."""
PATIENCE_S: Final = 2.0
"""How long a client whose document is here waits to learn whether it still holds."""
CACHE_BYTES: Final = 64 << 20
DOCUMENT_BYTES_MAX: Final = 64 << 20
"""kube-apiserver's own are 4 MB (version 2) and less; thousands of definitions make several times that."""
FETCHES_AT_ONCE: Final = 4
WAITING_MAX: Final = 64
"""Documents being fetched or waiting for their turn; kube-apiserver has some thirty, and each group of definitions adds
its own.
"""
ENTRY_BYTES: Final = 1 << 10
"""Counted for each document kept besides its body, so that refusals (404) are bounded as well."""
ACCEPT_CHARS_MAX: Final = 1024

_PATH = re.compile(r"/openapi/(?:v2|v3(?P<below>(?:/[A-Za-z0-9._-]+)*))")
_PATH_CHARS_MAX: Final = 512
_PASSED_ON: Final = ("etag", "last-modified", "vary")
_YEAR: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class _Key:
    path: str
    accept: str


@dataclass(slots=True)
class _Document:
    """An answer of the API server that is kept."""

    status: int
    """200, or the refusal that was answered: 404 or 406."""
    content_type: str
    body: bytes
    headers: Headers
    etag: str
    """Without quotes; empty if there is none."""
    confirmed_s: float
    """Loop time at which the API server was last heard to stand by it."""
    failed_s: float = -math.inf
    """Loop time at which it was last asked in vain."""

    @property
    def cost(self) -> int:
        return ENTRY_BYTES + len(self.body)


def is_openapi(path: str) -> bool:
    """Whether a path is one of these documents, be it there or not."""
    return path == "/openapi" or path.startswith("/openapi/")


class OpenApiMirror:
    """Answers OpenAPI requests from the API server behind `connection`, which stays the caller's."""

    def __init__(
        self,
        connection: ApiConnection,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._connection = connection
        self._now = now
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[_Key, _Document] = OrderedDict()
        self._kept_bytes = 0
        self._fetching: dict[_Key, asyncio.Task[_Document]] = {}
        self._turns = asyncio.Semaphore(FETCHES_AT_ONCE)

    async def answer(self, request: Request) -> Answer | None:
        """The document a GET or HEAD names; None if the path is not an OpenAPI path at all.

        Raises:
            NotReady: it was never fetched and the API server does not give it now.
            TooManyRequests: too many others are being fetched.
            BadRequest: an Accept header of absurd length.
        """
        if not is_openapi(request.path):
            return None
        path = request.path.rstrip("/")
        if not _mirrored(path):
            return no_such_page()
        accept = request.headers.get("accept", "")
        if len(accept) > ACCEPT_CHARS_MAX:
            raise BadRequest(f"the Accept header is longer than {ACCEPT_CHARS_MAX} characters")
        # kube-apiserver's version 3 index knows no hash; only what is below does.
        wanted = (request.parameter("hash") or "") if path.startswith("/openapi/v3/") else ""
        document = await self._document(_Key(path, accept), wanted)
        return self._rendered(document, path, wanted, request)

    async def aclose(self) -> None:
        """Ends fetches under way; who waits for one gets NotReady."""
        tasks = tuple(self._fetching.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- documents -------------------------------------------------------------------------------------------

    async def _document(self, key: _Key, wanted: str) -> _Document:
        """What is known to hold now, or to have held when the API server was last heard."""
        kept = self._kept.get(key)
        if kept is None:
            return await self._fetched(key)
        self._kept.move_to_end(key)
        by_hash = bool(wanted) and kept.status == 200 and bool(kept.etag)
        if by_hash and wanted == kept.etag:
            return kept
        recent_s = asyncio.get_running_loop().time() - REVALIDATE_S
        # Another hash may be newer than what is here, however lately that was confirmed.
        if kept.failed_s > recent_s or (kept.confirmed_s > recent_s and not by_hash):
            return kept
        try:
            fetch = self._fetch_of(key)
        except TooManyRequests:
            return kept
        await asyncio.wait((fetch,), timeout=PATIENCE_S)
        if not fetch.done() or fetch.cancelled() or fetch.exception() is not None:
            return kept
        return fetch.result()

    async def _fetched(self, key: _Key) -> _Document:
        fetch = self._fetch_of(key)
        # Not awaited itself: a client that leaves must not end what others wait for.
        await asyncio.wait((fetch,))
        if fetch.cancelled():
            raise NotReady(f"{key.path} is not here: the gateway is ending", retry_after_s=1)
        problem = fetch.exception()
        if isinstance(problem, ShoalError):
            raise NotReady(
                f"{key.path} cannot be had from the API server: {problem.message}", retry_after_s=1
            )
        return fetch.result()

    def _fetch_of(self, key: _Key) -> asyncio.Task[_Document]:
        """The fetch under way for this document, or a new one."""
        fetch = self._fetching.get(key)
        if fetch is None:
            if len(self._fetching) >= WAITING_MAX:
                raise TooManyRequests(
                    "too many documents are being fetched from the API server", retry_after_s=1
                )
            fetch = asyncio.create_task(self._fetch(key), name=f"openapi {key.path}")
            self._fetching[key] = fetch
            fetch.add_done_callback(lambda done: self._over(key, done))
        return fetch

    def _over(self, key: _Key, fetch: asyncio.Task[_Document]) -> None:
        self._fetching.pop(key, None)
        if not fetch.cancelled() and (problem := fetch.exception()) is not None:
            if (kept := self._kept.get(key)) is not None:
                kept.failed_s = asyncio.get_running_loop().time()
            log.warning("openapi document not fetched", extra={"path": key.path, "problem": str(problem)})

    async def _fetch(self, key: _Key) -> _Document:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S), self._turns:
                document = await self._ask(key)
        except TimeoutError:
            raise NotReady(f"no answer within {FETCH_TIMEOUT_S:g} s") from None
        self._keep(key, document)
        return document

    async def _ask(self, key: _Key) -> _Document:
        kept = self._kept.get(key)
        headers = [("Accept", key.accept)] if key.accept else []
        if kept is not None and kept.etag:
            headers.append(("If-None-Match", f'"{kept.etag}"'))
        request = ApiRequest("GET", key.path, headers=tuple(headers))
        async with self._connection.open(request) as response:
            now = asyncio.get_running_loop().time()
            if response.status == 304 and kept is not None:
                kept.confirmed_s = now
                return kept
            if response.status in (404, 406):
                return _refused(
                    response.status, response.headers, await response.read(ERROR_BODY_BYTES_MAX), now
                )
            if response.status != 200:
                body = await response.read(ERROR_BODY_BYTES_MAX)
                refused = refusal(response.status, response.headers, body)
                raise NotReady(f"it answered {response.status}: {refused.message}")
            return _received(response.headers, await response.read(DOCUMENT_BYTES_MAX), now)

    def _keep(self, key: _Key, document: _Document) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self._kept_bytes -= old.cost
        if document.cost > self._cache_bytes:
            return
        self._kept[key] = document
        self._kept_bytes += document.cost
        while self._kept_bytes > self._cache_bytes:
            _, unused = self._kept.popitem(last=False)
            self._kept_bytes -= unused.cost

    # -- answers ---------------------------------------------------------------------------------------------

    def _rendered(self, document: _Document, path: str, wanted: str, request: Request) -> Answer:
        age = ("Shoal-Age", f"{asyncio.get_running_loop().time() - document.confirmed_s:.3f}")
        if document.status == 404:
            return no_such_page()
        if document.status != 200:
            return Answer(
                document.status, document.content_type, document.body, headers=(NO_CACHE, *document.headers)
            )
        if wanted and document.etag and wanted != document.etag:
            location = f"{path}?{urlencode({'hash': document.etag})}"
            return Answer(301, document.content_type, b"", headers=(NO_CACHE, ("Location", location), age))
        caching: Headers = (NO_CACHE,)
        if wanted and document.etag:
            caching = (("Cache-Control", "public, immutable"), ("Expires", self._in_a_year()))
        headers = (*caching, *document.headers, age)
        if document.etag and etag_matches(request.headers.get("if-none-match"), document.etag):
            return Answer(304, document.content_type, headers=headers)
        return Answer(200, document.content_type, document.body, headers=headers)

    def _in_a_year(self) -> str:
        return format_datetime(self._now().astimezone(UTC) + _YEAR, usegmt=True)


def _mirrored(path: str) -> bool:
    """Whether a path may be passed on: nothing that could name another place of the API server."""
    if len(path) > _PATH_CHARS_MAX or _PATH.fullmatch(path) is None:
        return False
    return not any(part in (".", "..") for part in path.split("/"))


def _received(headers: Mapping[str, str], body: bytes, now: float) -> _Document:
    if not body:
        # What kube-apiserver says of a group and version that it does not have.
        return _refused(404, headers, body, now)
    return _Document(
        status=200,
        content_type=headers.get("content-type", "application/json"),
        body=body,
        headers=tuple((name.title(), headers[name]) for name in _PASSED_ON if headers.get(name)),
        etag=headers.get("etag", "").removeprefix("W/").strip('"'),
        confirmed_s=now,
    )


def _refused(status: int, headers: Mapping[str, str], body: bytes, now: float) -> _Document:
    content_type = headers.get("content-type", "text/plain; charset=utf-8")
    return _Document(status, content_type, body, (("Vary", "Accept"),), "", now)
