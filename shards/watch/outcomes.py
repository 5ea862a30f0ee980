"""From what happened to a request or stream to the events that the reflector machine knows."""

from __future__ import annotations

import asyncio
from typing import Final

from ..api.client import ERROR_BODY_BYTES_MAX, ApiResponse
from ..api.requests import ApiRequest, refusal
from ..model.errors import Broken, CertificateRejected, ConnectionFailed, Garbage, KubeconfigError
from ..model.observations import ErrorLine, GarbageLine, Item
from ..model.versions import Version
from .steps import Declined, ErrorReported, Event, Failed, StreamEnd, StreamEnded
from .stream import EventStream

FAILURES: Final = (ConnectionFailed, KubeconfigError, Garbage, TimeoutError)
"""What a request or stream may end with that is nobody's bug."""


async def declined(response: ApiResponse) -> Declined:
    """An answer that is not the one asked for."""
    body = await response.read(ERROR_BODY_BYTES_MAX)
    return Declined(refusal(response.status, response.headers, body))


def failed(error: BaseException, request: ApiRequest) -> Failed:
    """A request without a usable answer."""
    match error:
        case CertificateRejected():
            return Failed("certificate", error.message)
        case ConnectionFailed():
            return Failed("connection", error.message)
        case KubeconfigError():
            return Failed("credentials", error.message)
        case Garbage():
            return Failed("garbage", f"{request.path}: {error.message}")
        case _:
            return Failed("silent", f"{request.path}: no answer in time")


def control(item: Item, version: Version, *, delivered: bool) -> Event:
    """A line that ends a stream, be it an error or no watch event at all."""
    match item:
        case ErrorLine():
            return ErrorReported(item, version, delivered)
        case GarbageLine():
            message = f"a line is no watch event ({item.problem}): {item.excerpt}"
            return StreamEnded("garbage", version, delivered, message)
        case _:
            raise Broken(f"reflector: {item} is no control item")


def ended(error: BaseException, stream: EventStream, version: Version, *, delivered: bool) -> StreamEnded:
    """A stream that did not end by itself."""
    how: StreamEnd
    match error:
        case TimeoutError():
            how = "overlong" if asyncio.get_running_loop().time() >= stream.deadline else "silent"
            message = "the stream outlived its time" if how == "overlong" else "the stream fell silent"
        case Garbage():
            how, message = "garbage", error.message
        case _:
            how, message = "broken", str(error)
    return StreamEnded(how, version, delivered, message)


def completed(stream: EventStream, version: Version, *, delivered: bool) -> StreamEnded:
    """A stream that ended by itself."""
    if stream.incomplete:
        return StreamEnded("truncated", version, delivered, "the last line of the stream is not complete")
    return StreamEnded("clean", version, delivered)
