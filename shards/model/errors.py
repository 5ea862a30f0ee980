"""Every error Shoal raises. Branches follow what the caller can do; each knows its Kubernetes ``Status``.

A gateway answers with `status()` and needs no mapping table. Errors cross processes: all of them survive
pickling (Ray replaces exceptions that do not by an unreadable stand-in). Exceptions of other libraries are
mapped once, at the boundary to that library, and chained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


def _rebuild(cls: type[ShoalError], message: str, state: dict[str, Any]) -> ShoalError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ShoalError(Exception):
    """Root of the tree.

    `details` and `metadata` go into the Status unchanged; `retry_after_s` also becomes a Retry-After header.
    """

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details) if details is not None else None
        self.metadata = dict(metadata) if metadata else {}
        self.retry_after_s = retry_after_s

    def status(self) -> dict[str, Any]:
        """The Status document, its keys in the API server's order."""
        document: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            document["reason"] = self.reason
        details = dict(self.details or {})
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        if details or self.details is not None:
            document["details"] = details
        document["code"] = self.code
        return document

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args[0] if self.args else "", self.__dict__)


# -- the request is wrong -------------------------------------------------------------------------------------


class BadRequest(ShoalError):  # noqa: N818 - the names are the Status reasons
    """The request cannot be understood: a bad selector, limit, version or token."""

    code = 400
    reason = "BadRequest"


class Unauthorized(ShoalError):  # noqa: N818
    """Nobody the server knows."""

    code = 401
    reason = "Unauthorized"


class Forbidden(ShoalError):  # noqa: N818
    """Known, and not allowed."""

    code = 403
    reason = "Forbidden"


class NotFound(ShoalError):  # noqa: N818
    """No such object, or no such resource."""

    code = 404
    reason = "NotFound"


class MethodNotAllowed(ShoalError):  # noqa: N818
    """The resource does not support the verb."""

    code = 405
    reason = "MethodNotAllowed"


class NotAcceptable(ShoalError):  # noqa: N818
    """None of the media types in Accept can be served."""

    code = 406
    reason = "NotAcceptable"


class Conflict(ShoalError):  # noqa: N818
    """The object was changed since the version the writer read."""

    code = 409
    reason = "Conflict"


class AlreadyExists(ShoalError):  # noqa: N818
    """An object of that name is there."""

    code = 409
    reason = "AlreadyExists"


class UnsupportedMediaType(ShoalError):  # noqa: N818
    """The body's media type is not one the verb takes."""

    code = 415
    reason = "UnsupportedMediaType"


class Invalid(ShoalError):  # noqa: N818
    """Understood, and not valid; `details.causes` say which fields."""

    code = 422
    reason = "Invalid"


class BadShardSelector(ShoalError):  # noqa: N818
    """A shard selector that cannot be read: the API server answers 500 without a reason."""

    code = 500
    reason = ""


# -- list again -----------------------------------------------------------------------------------------------


class Expired(ShoalError):  # noqa: N818
    """The version or continue token asked for is older than what is remembered."""

    code = 410
    reason = "Expired"


class PastLost(Expired):
    """The API server's versions went back (it was restored from a backup, say): all its versions known so far mean
    nothing any more, of whatever partition.
    """


# -- try again later ------------------------------------------------------------------------------------------


class RetryLater(ShoalError):  # noqa: N818
    """The same request may succeed later."""

    code = 503
    reason = "ServiceUnavailable"


class TooManyRequests(RetryLater):
    """Overloaded."""

    code = 429
    reason = "TooManyRequests"


class NotReady(RetryLater):
    """The partition asked for has not been listed yet, or its shard does not answer."""


class NoLeave(NotReady):
    """The shard has not heard of its coordinator for too long: it answers, and lets nothing be shown by its leave."""


class TimedOut(RetryLater):
    """Not done within the time the request had."""

    code = 504
    reason = "Timeout"


class TooLargeVersion(TimedOut):
    """A version that has not been reached. Text and causes are kube-apiserver's."""

    def __init__(self, wanted: int, current: int) -> None:
        super().__init__(
            f"Timeout: Too large resource version: {wanted}, current: {current}",
            details={
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
            },
            retry_after_s=1,
        )


class NotServed(RetryLater):
    """A shard was asked for a partition it does not hold; `epoch` is the newest it has heard of."""

    def __init__(self, partition: str, epoch: int) -> None:
        super().__init__(f"partition {partition} is not served here (epoch {epoch})", retry_after_s=1)
        self.partition = partition
        self.epoch = epoch


# -- the API server we follow ---------------------------------------------------------------------------------


class Upstream(ShoalError):  # noqa: N818
    """The API server answered with an error; `http_status` and, if it sent one, `upstream_status` say which."""

    code = 502
    reason = "BadGateway"

    def __init__(
        self,
        message: str,
        *,
        http_status: int,
        upstream_status: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.http_status = http_status
        self.upstream_status = dict(upstream_status) if upstream_status else None


class ConnectionFailed(ShoalError):  # noqa: N818
    """The API server cannot be reached, or the connection broke; the message says what and where."""

    code = 502
    reason = "BadGateway"
    sent = True
    """Whether the request may have arrived; False: there was never a connection to send it over."""


class CertificateRejected(ConnectionFailed):
    """The API server's certificate does not verify."""


class Garbage(ShoalError):  # noqa: N818
    """Bytes from the API server that are not what its protocol says."""

    code = 502
    reason = "BadGateway"


# -- this installation ----------------------------------------------------------------------------------------


class KubeconfigError(ShoalError):
    """A kubeconfig that is missing, malformed or names what it does not hold."""


class SettingsError(ShoalError):
    """A setting that cannot be used; the message names its path and what was expected."""


class Broken(ShoalError):  # noqa: N818
    """An invariant of Shoal itself does not hold: a bug."""
