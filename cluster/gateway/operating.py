"""What people ask of the coordinator through a gateway: why things are as they are, and orders by hand.

``GET /shoal/v1/explain``   lines of text; with ``about``, only what concerns a resource, a partition or a shard
``POST /shoal/v1/orders``   one order (`coordinator.commands`) as JSON, ``{"type": "drain", "shard": "shard-1"}``; the
                            answer is what will come of it: ``{"lines": [...]}``

Who may is the API server's to say, as of any page: ``get`` and ``post`` of these paths, as nonResourceURLs. A gateway
that asks nobody who they are answers this machine alone (`doorway`); and an order has to come as JSON, which the page
of somebody else cannot send from a browser.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from ...coordinator.commands import Order
from ...shards.model.errors import BadRequest, MethodNotAllowed, NotReady, UnsupportedMediaType
from ..serving.paths import OtherPath, RequestPath
from .asked import Asked
from .http import JSON, Answer, text_answer
from .status import Operated
from .writing import read_body

EXPLAIN: Final = "/shoal/v1/explain"
ORDERS: Final = "/shoal/v1/orders"
BODY_BYTES_MAX: Final = 64 << 10
BODY_TIMEOUT_S: Final = 10.0
CALL_TIMEOUT_S: Final = 10.0
_ABOUT_CHARS: Final = 4096


class Taken(msgspec.Struct, frozen=True):
    """The answer to an order that was taken."""

    lines: tuple[str, ...]
    """What will come of it."""


class Operating:
    """Answers both paths."""

    def __init__(self, coordinator: Operated) -> None:
        self._coordinator = coordinator

    def takes(self, path: RequestPath) -> bool:
        """Whether a request is for one of them."""
        return isinstance(path, OtherPath) and path.path.rstrip("/") in (EXPLAIN, ORDERS)

    async def answer(self, asked: Asked) -> None:
        """Answers a request that is taken.

        Raises:
            MethodNotAllowed: neither GET of the one nor POST of the other.
            BadRequest, UnsupportedMediaType, RequestTooLarge, ClientLeft, TimedOut: the order cannot be read.
            NotReady: the coordinator is away.
            ShoalError: as `CoordinatorHandle.order` and `CoordinatorHandle.explain`.
        """
        request = asked.request
        if request.path.rstrip("/") == EXPLAIN:
            asked.exchange.verb = "explain"
            if not request.reads:
                raise MethodNotAllowed(f"{EXPLAIN} is read with GET")
            await asked.exchange.send(await self._explain(asked))
            return
        asked.exchange.verb = "order"
        if request.method != "POST":
            raise MethodNotAllowed(f"{ORDERS} takes an order with POST")
        await asked.exchange.send(await self._order(asked))

    async def _explain(self, asked: Asked) -> Answer:
        about = asked.request.parameter("about") or ""
        if len(about) > _ABOUT_CHARS:
            raise BadRequest(f"parameter about: longer than {_ABOUT_CHARS} characters")
        async with _deadline():
            lines = await self._coordinator.explain(about)
        return text_answer("\n".join(lines))

    async def _order(self, asked: Asked) -> Answer:
        media = asked.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != JSON:
            raise UnsupportedMediaType(f"an order is read as {JSON}; the Content-Type of this one is another")
        body = await read_body(asked.request, asked.client.receive, BODY_BYTES_MAX, BODY_TIMEOUT_S)
        try:
            order = msgspec.json.decode(body, type=Order)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body is no order: {error}") from error
        async with _deadline():
            lines = await self._coordinator.order(order)
        return Answer(200, JSON, msgspec.json.encode(Taken(tuple(lines))) + b"\n")


@contextlib.asynccontextmanager
async def _deadline() -> AsyncIterator[None]:
    """Within it the coordinator has to answer; one that does not is away."""
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            yield
    except TimeoutError as late:
        raise NotReady(
            f"the coordinator did not answer within {CALL_TIMEOUT_S:g} s", retry_after_s=1
        ) from late
