"""What a refusal means to who asked: the Status of an answer as one of the errors of `shards.model.errors`.

An error keeps the server's message, reason and details; its class says what may be done about it, and its note
(`__notes__`) which request was refused. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...shards.api.requests import ApiRequest, Refusal, upstream_error
from ...shards.model.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    NotReady,
    RetryLater,
    ShoalError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    UnsupportedMediaType,
)

_KINDS: Final[tuple[type[ShoalError], ...]] = (
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    UnsupportedMediaType,
)
_BY_REASON: Final[Mapping[str, type[ShoalError]]] = {
    **{kind.reason: kind for kind in _KINDS},
    "Gone": Expired,
    "ServiceUnavailable": NotReady,
    "ServerTimeout": TimedOut,
}
_BY_CODE: Final[Mapping[int, type[ShoalError]]] = {
    **{kind.code: kind for kind in _KINDS if kind is not AlreadyExists},
    503: NotReady,
}
TOO_LARGE_VERSION: Final = "ResourceVersionTooLarge"
"""Cause of the 504 for a version that the server has not reached yet."""
_READ_ONLY: Final = "Shoal is read-only"
"""What a gateway that passes no writes on answers to them."""
_INSTEAD: Final = (
    "write to the API server itself (a client of shoal.local), or have the gateway pass writes on with their writer's "
    "own credentials (gateway.writes: forward)"
)


def refused(request: ApiRequest, answer: Refusal) -> ShoalError:
    """The error for an answer: of the Status' reason, else of the HTTP status; `Upstream` for what is neither."""
    kind = _BY_REASON.get(answer.reason) or _BY_CODE.get(answer.status)
    error: ShoalError
    if kind is None:
        error = upstream_error(request, answer)
    else:
        document: Mapping[str, Any] = answer.document or {}
        seconds = answer.retry_after_s
        error = kind(
            _message(kind, request, answer),
            details=_mapping(document.get("details")),
            metadata=_mapping(document.get("metadata")),
            retry_after_s=None if seconds is None else int(seconds),
        )
    error.add_note(f"asked: {request.method} {request.target}")
    return error


def _mapping(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


def _message(kind: type[ShoalError], request: ApiRequest, answer: Refusal) -> str:
    # A Status of a server speaks for itself; the bare answers of proxies and unknown paths do not.
    if kind is MethodNotAllowed and _READ_ONLY in answer.message:
        return f"{answer.message}: {_INSTEAD}"
    if answer.document is not None and not (kind is Unauthorized and answer.message == "Unauthorized"):
        return answer.message
    if kind is Unauthorized:
        return (
            f"the server does not know who asks ({request.method} {request.path}: {answer.message}); is the token or "
            "the client certificate there, and still good?"
        )
    return f"{request.method} {request.path} was answered {answer.status}: {answer.message}"


def causes(error: ShoalError) -> frozenset[str]:
    """The reasons of the causes that an error's details name."""
    found = (error.details or {}).get("causes")
    if not isinstance(found, list):
        return frozenset()
    return frozenset(str(cause.get("reason", "")) for cause in found if isinstance(cause, Mapping))


def comes_right(error: ShoalError) -> bool:
    """Whether the same question may be answered a little later: too many requests, not ready, a version that is not
    reached yet. A 504 of another kind has already taken what time there was.
    """
    if isinstance(error, TimedOut):
        return TOO_LARGE_VERSION in causes(error)
    return isinstance(error, RetryLater)
