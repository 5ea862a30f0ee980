"""The OpenAPI mirror over a scripted API server, and over the embedded one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from support.apiserver import InProcessConnection, in_virtual_time, virtual_apiserver

from shoal.cluster.gateway.http import Answer, Request
from shoal.cluster.gateway.openapi import (
    ACCEPT_CHARS_MAX,
    ENTRY_BYTES,
    FETCH_TIMEOUT_S,
    FETCHES_AT_ONCE,
    PATIENCE_S,
    REVALIDATE_S,
    WAITING_MAX,
    OpenApiMirror,
)
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import BadRequest, ConnectionFailed, NotReady, TooManyRequests

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
PODS = "/openapi/v3/api/v1"


@dataclass
class Page:
    body: bytes = b"{}"
    etag: str = '"E1"'
    status: int = 200
    content_type: str = "application/json"


@dataclass
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.body

    async def read(self, limit: int = 0) -> bytes:
        assert len(self.body) <= limit
        return self.body


@dataclass
class Upstream:
    """An API server that answers from a table."""

    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[ApiRequest] = field(default_factory=list)
    away: bool = False
    takes_s: float = 0.0
    under_way: int = 0
    most: int = 0

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[Response]:
        self.asked.append(request)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.under_way -= 1
        if self.away:
            raise ConnectionFailed("connection refused")
        page = self.pages.get(request.path, Page(b"404 page not found\n", "", 404, "text/plain"))
        headers = {"content-type": page.content_type, "etag": page.etag, "vary": "Accept", "x-secret": "no"}
        if page.etag and dict(request.headers).get("If-None-Match") == page.etag:
            yield Response(304, headers, b"")
        else:
            yield Response(page.status, headers, page.body)

    async def aclose(self) -> None:
        self.away = True


def mirror(upstream: Any, **options: Any) -> OpenApiMirror:
    return OpenApiMirror(upstream, now=lambda: NOW, **options)


def request(path: str, *, hash: str = "", **headers: str) -> Request:  # noqa: A002 - the parameter's name
    parameters = (("timeout", "32s"), *((("hash", hash),) if hash else ()))
    return Request(
        "GET", path, parameters, {name.lower().replace("_", "-"): value for name, value in headers.items()}
    )


async def ask(mirror: OpenApiMirror, path: str, **more: str) -> Answer:
    answer = await mirror.answer(request(path, **more))
    assert answer is not None
    return answer


def test_a_document_is_fetched_once_and_asked_about_later() -> None:
    async def main() -> None:
        upstream = Upstream({"/openapi/v2": Page(b"swagger", '"S"', content_type="application/x")})
        ours = mirror(upstream)
        first = await ask(ours, "/openapi/v2", Accept="application/x")
        assert (first.status, first.body, first.content_type) == (200, b"swagger", "application/x")
        headers = dict(first.headers)
        assert headers["Etag"] == '"S"'
        assert headers["Vary"] == "Accept"
        assert headers["Shoal-Age"] == "0.000"
        assert "X-Secret" not in headers
        assert dict(upstream.asked[0].headers) == {"Accept": "application/x"}
        assert upstream.asked[0].query == ()
        await asyncio.sleep(REVALIDATE_S / 2)
        again = await ask(ours, "/openapi/v2", Accept="application/x")
        assert dict(again.headers)["Shoal-Age"] == f"{REVALIDATE_S / 2:.3f}"
        assert len(upstream.asked) == 1
        await asyncio.sleep(REVALIDATE_S)
        again = await ask(ours, "/openapi/v2", Accept="application/x")
        assert again.body == b"swagger"
        assert dict(again.headers)["Shoal-Age"] == "0.000"
        assert dict(upstream.asked[1].headers)["If-None-Match"] == '"S"'
        upstream.pages["/openapi/v2"] = Page(b"new", '"T"')
        await asyncio.sleep(REVALIDATE_S)
        assert (await ask(ours, "/openapi/v2", Accept="application/x")).body == b"new"

    in_virtual_time(main())


def test_a_client_that_has_it_is_told_so() -> None:
    async def main() -> None:
        ours = mirror(Upstream({"/openapi/v2": Page(b"swagger", '"S"')}))
        for header in ('"S"', 'W/"S"', '"R", "S"', "*"):
            answer = await ask(ours, "/openapi/v2", If_None_Match=header)
            assert (answer.status, answer.body) == (304, b"")
            assert dict(answer.headers)["Etag"] == '"S"'
        assert (await ask(ours, "/openapi/v2", If_None_Match='"R"')).status == 200

    in_virtual_time(main())


def test_forms_are_kept_apart() -> None:
    async def main() -> None:
        upstream = Upstream({"/openapi/v2": Page()})
        ours = mirror(upstream)
        for accept in ("application/json", "application/protobuf", "application/json", ""):
            await ask(ours, "/openapi/v2", Accept=accept)
        assert [dict(one.headers).get("Accept") for one in upstream.asked] == [
            "application/json",
            "application/protobuf",
            None,
        ]

    in_virtual_time(main())


def test_a_hash_is_for_ever_and_an_old_one_leads_to_the_new() -> None:
    async def main() -> None:
        upstream = Upstream({PODS: Page(b"one", '"E1"')})
        ours = mirror(upstream)
        answer = await ask(ours, PODS, hash="E1")
        headers = dict(answer.headers)
        assert answer.body == b"one"
        assert headers["Cache-Control"] == "public, immutable"
        assert headers["Expires"] == "Sat, 20 Nov 2027 09:00:00 GMT"
        await asyncio.sleep(1000 * REVALIDATE_S)
        assert (await ask(ours, PODS, hash="E1")).body == b"one"
        assert len(upstream.asked) == 1, "what never changes is not asked about"
        # The index has told the client of another one: what is here may be old, however new it is.
        upstream.pages[PODS] = Page(b"two", '"E2"')
        answer = await ask(ours, PODS, hash="E2")
        assert answer.body == b"two"
        answer = await ask(ours, PODS, hash="E1")
        assert (answer.status, answer.body) == (301, b"")
        assert dict(answer.headers)["Location"] == f"{PODS}?hash=E2"
        assert dict((await ask(ours, PODS)).headers)["Cache-Control"] == "no-cache, private"

    in_virtual_time(main())


def test_the_index_knows_no_hash() -> None:
    async def main() -> None:
        ours = mirror(Upstream({"/openapi/v3": Page(b"index", '"I"')}))
        answer = await ask(ours, "/openapi/v3", hash="other")
        assert (answer.status, answer.body) == (200, b"index")
        assert dict(answer.headers)["Cache-Control"] == "no-cache, private"

    in_virtual_time(main())


def test_while_the_api_server_is_away_what_is_here_is_served_with_its_age() -> None:
    async def main() -> None:
        upstream = Upstream({"/openapi/v2": Page(b"swagger")})
        ours = mirror(upstream)
        await ask(ours, "/openapi/v2")
        upstream.away = True
        await asyncio.sleep(100)
        answer = await ask(ours, "/openapi/v2")
        assert answer.body == b"swagger"
        assert dict(answer.headers)["Shoal-Age"] == "100.000"
        with pytest.raises(NotReady, match="connection refused") as caught:
            await ask(ours, PODS)
        assert caught.value.retry_after_s == 1
        upstream.away = False
        upstream.pages["/openapi/v2"] = Page(b"", "", 403)
        assert (await ask(ours, "/openapi/v2")).body == b"swagger"
        upstream.pages[PODS] = Page(b'{"kind":"Status","message":"not you"}', "", 403)
        with pytest.raises(NotReady, match="403: not you"):
            await ask(ours, PODS)

    in_virtual_time(main())


def test_an_api_server_that_is_away_is_not_asked_again_and_again() -> None:
    async def main() -> None:
        upstream = Upstream({PODS: Page(b"one", '"E1"')})
        ours = mirror(upstream)
        await ask(ours, PODS)
        upstream.away = True
        await asyncio.sleep(REVALIDATE_S)
        for _ in range(10):
            assert (await ask(ours, PODS)).body == b"one"
            assert (await ask(ours, PODS, hash="E0")).status == 301
        assert len(upstream.asked) == 2
        await asyncio.sleep(REVALIDATE_S)
        upstream.away = False
        upstream.pages[PODS] = Page(b"two", '"E2"')
        assert (await ask(ours, PODS)).body == b"two"

    in_virtual_time(main())


def test_a_slow_api_server_keeps_nobody_waiting_for_what_is_here() -> None:
    async def main() -> None:
        upstream = Upstream({"/openapi/v2": Page(b"swagger")})
        ours = mirror(upstream)
        await ask(ours, "/openapi/v2")
        upstream.takes_s = 10 * PATIENCE_S
        await asyncio.sleep(REVALIDATE_S)
        began = asyncio.get_running_loop().time()
        assert (await ask(ours, "/openapi/v2")).body == b"swagger"
        assert asyncio.get_running_loop().time() - began == PATIENCE_S
        upstream.takes_s = 2 * FETCH_TIMEOUT_S
        began = asyncio.get_running_loop().time()
        with pytest.raises(NotReady, match="no answer within"):
            await ask(ours, PODS)
        assert asyncio.get_running_loop().time() - began == FETCH_TIMEOUT_S
        await ours.aclose()

    in_virtual_time(main())


def test_many_clients_share_one_fetch_and_one_that_leaves_ends_it_for_nobody() -> None:
    async def main() -> None:
        upstream = Upstream({"/openapi/v2": Page(b"swagger")}, takes_s=1.0)
        ours = mirror(upstream)
        leaving = asyncio.create_task(ask(ours, "/openapi/v2"))
        staying = [asyncio.create_task(ask(ours, "/openapi/v2")) for _ in range(50)]
        await asyncio.sleep(0.5)
        leaving.cancel()
        answers = await asyncio.gather(*staying)
        assert {answer.body for answer in answers} == {b"swagger"}
        assert len(upstream.asked) == 1
        paths = [f"{PODS}{at}" for at in range(20)]
        await asyncio.gather(*(ask(ours, path) for path in paths))
        assert upstream.most == FETCHES_AT_ONCE
        waiting = [asyncio.create_task(ask(ours, f"{PODS}x{at}")) for at in range(WAITING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests):
            await ask(ours, "/openapi/v3")
        await asyncio.gather(*waiting)

    in_virtual_time(main())


def test_what_is_kept_is_bounded() -> None:
    async def main() -> None:
        pages = {f"/openapi/v3/apis/g{at}/v1": Page(b"x" * 1000, f'"{at}"') for at in range(10)}
        upstream = Upstream(pages)
        ours = mirror(upstream, cache_bytes=3 * (1000 + ENTRY_BYTES))
        for path in pages:
            await ask(ours, path)
        asked = len(upstream.asked)
        for path in list(pages)[-3:]:
            await ask(ours, path)
        assert len(upstream.asked) == asked
        await ask(ours, next(iter(pages)))
        assert len(upstream.asked) == asked + 1
        upstream.pages["/openapi/v2"] = Page(b"x" * 10_000, '"big"')
        for _ in range(2):
            assert len((await ask(ours, "/openapi/v2")).body) == 10_000
        assert len(upstream.asked) == asked + 3

    in_virtual_time(main())


@pytest.mark.parametrize(
    "path",
    [
        "/openapi",
        "/openapi/",
        "/openapi/v1",
        "/openapi/v2/x",
        "/openapi/v3/../../api/v1/secrets",
        "/openapi/v3/./x",
        "/openapi/v3//x",
        "/openapi/v3/a b",
        "/openapi/v3/%2e%2e",
        "/openapi/v3/a?b",
        "/openapi/v3/\r\nX: y",
        f"/openapi/v3/{'x' * 600}",
    ],
)
def test_nothing_else_of_the_api_server_can_be_reached(path: str) -> None:
    async def main() -> None:
        upstream = Upstream()
        answer = await ask(mirror(upstream), path)
        assert answer.status == 404
        assert upstream.asked == []

    in_virtual_time(main())


def test_what_the_api_server_does_not_have_is_404_and_not_asked_for_each_time() -> None:
    async def main() -> None:
        upstream = Upstream({"/openapi/v3/apis/empty/v1": Page(b"", "")})
        ours = mirror(upstream)
        for path in ("/openapi/v3/apis/none/v1", "/openapi/v3/apis/empty/v1"):
            for _ in range(3):
                answer = await ask(ours, path)
                assert (answer.status, answer.body) == (404, b"404 page not found\n")
        assert len(upstream.asked) == 2
        upstream.pages["/openapi/v3/apis/none/v1"] = Page(b"there now")
        await asyncio.sleep(REVALIDATE_S)
        assert (await ask(ours, "/openapi/v3/apis/none/v1")).body == b"there now"

    in_virtual_time(main())


def test_other_paths_are_nobodys_business_here() -> None:
    async def main() -> None:
        ours = mirror(Upstream())
        assert await ours.answer(request("/api/v1/pods")) is None
        with pytest.raises(BadRequest, match="Accept"):
            await ask(ours, "/openapi/v2", Accept="x" * (ACCEPT_CHARS_MAX + 1))

    in_virtual_time(main())


def test_ending_ends_what_is_waited_for() -> None:
    async def main() -> None:
        ours = mirror(Upstream({"/openapi/v2": Page()}, takes_s=5.0))
        waiting = asyncio.create_task(ask(ours, "/openapi/v2"))
        await asyncio.sleep(1)
        await ours.aclose()
        with pytest.raises(NotReady, match="ending"):
            await waiting

    in_virtual_time(main())


def test_the_embedded_api_servers_documents_come_through_unchanged() -> None:
    async def main() -> None:
        connection = InProcessConnection(virtual_apiserver())
        ours = mirror(connection)
        for path, accept in (
            ("/openapi/v3", "application/json"),
            ("/openapi/v3/apis/batch/v1", "application/json"),
            ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
            ("/openapi/v3/apis/batch/v1", "text/html"),
        ):
            answer = await ask(ours, path, Accept=accept)
            asked = ApiRequest("GET", path, headers=(("Accept", accept),))
            async with connection.open(asked) as response:
                assert answer.status == response.status
                assert answer.content_type == response.headers["content-type"]
                assert answer.body == await response.read()

    in_virtual_time(main())
