"""Credentials that are read again: every `RELOAD_S`, when the server rejects them, and when TLS with it fails.

What it keeps true: a kubeconfig, key or plug-in that cannot be used for a moment takes the last credentials away from
nobody. They are kept, a warning is logged, and everything is read again every `AGAIN_S`, until the server rejects them
or the plug-in's have expired. While somebody reads, nobody else waits whose last credentials still count: a plug-in
that hangs delays one request.

Renewing has a limit where it does not help. A plug-in that gives the same again, or something else that is rejected as
well, is left alone for `RENEW_AT_MOST_EVERY_S`; one that gave what was accepted may be asked again at any time, however
often tokens are rotated.

What is read, and how, is the caller's (`kubeconfig`). An unreadable token is kept even after it was rejected: its file
is being written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ..model.errors import KubeconfigError
from .client import Endpoint
from .plugin import PluginCredentials
from .tokens import AGAIN_S

log = logging.getLogger("shoal.shards.api")

RELOAD_S: Final = 60.0
"""client-go reads a token file again every minute (``transport.NewCachedFileTokenSource``)."""
RENEW_AT_MOST_EVERY_S: Final = 30.0
"""After a renewal that did not help: a thousand partitions would each start a plug-in, again and again."""


class TokenGone(KubeconfigError):  # noqa: N818 - as those of `model.errors`
    """No token can be read, which happens while its file is written."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was read."""

    endpoint: Endpoint
    plugin: PluginCredentials | None = None
    """The plug-in's part of it, to be used again."""
    renewable: bool = False
    """The credentials may be different when they are read again."""


class ReloadedCredentials:
    """`Credentials` that `read` finds; it is given what the plug-in said last, None if it is to be run again."""

    def __init__(self, read: Callable[[PluginCredentials | None], Awaitable[Found]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._endpoint: Endpoint | None = None
        """None: not read yet, or rejected."""
        self._last: Endpoint | None = None
        """The same, and still there when it was rejected."""
        self._rejected: Endpoint | None = None
        """What is being renewed."""
        self._plugin: PluginCredentials | None = None
        self._renewable = False
        self._read_after = float("-inf")
        self._looked_at = float("-inf")
        self._renew_after = float("-inf")
        self._problem = ""
        self._failure: tuple[float, str] | None = None
        """Why there are no credentials any more, and when to see again."""

    async def endpoint(self) -> Endpoint:
        """As `Credentials.endpoint`."""
        if self._endpoint is not None and (_now() < self._read_after or self._lock.locked()):
            return self._endpoint
        async with self._lock:
            if self._endpoint is None or _now() >= self._read_after:
                self._endpoint = await self._renewed()
            return self._endpoint

    def rejected(self, endpoint: Endpoint, *, again: bool = False) -> bool:
        """As `Credentials.rejected`."""
        if again:
            self._leave_alone()
            return False
        if endpoint is not self._endpoint:
            return True
        if not self._renewable or _now() < self._renew_after:
            return False
        self._rejected, self._endpoint, self._plugin = endpoint, None, None
        return True

    def doubted(self, endpoint: Endpoint) -> bool:
        """As `Credentials.doubted`."""
        if endpoint is not self._endpoint:
            return True
        if _now() < self._looked_at + AGAIN_S:
            return False
        self._read_after = float("-inf")
        return True

    async def _renewed(self) -> Endpoint:
        if self._failure is not None and _now() < self._failure[0]:
            raise KubeconfigError(self._failure[1])
        try:
            found = await self._read(self._plugin)
        except KubeconfigError as error:
            self._read_after = _now() + AGAIN_S
            if self._last is None:
                raise
            if not self._is_good(error):
                # Whoever waits for the lock would start the plug-in that has just failed.
                self._failure = self._read_after, error.message
                self._endpoint = None
                raise
            self._warn(error)
            return self._last
        finally:
            self._looked_at = _now()
        self._read_after = _now() + RELOAD_S
        self._plugin, self._renewable = found.plugin, found.renewable
        if found.endpoint == self._rejected:
            self._leave_alone()
        self._rejected, self._failure, self._problem = None, None, ""
        # Kept while it is the same: who was given it knows it by its identity.
        if self._last is None or found.endpoint != self._last:
            self._last = found.endpoint
        return self._last

    def _is_good(self, error: KubeconfigError) -> bool:
        """Whether the last credentials are as good as they were, now that they cannot be read again."""
        if isinstance(error, TokenGone):
            return True
        return self._endpoint is not None and (self._plugin is None or not self._plugin.ended)

    def _leave_alone(self) -> None:
        self._renew_after = _now() + RENEW_AT_MOST_EVERY_S

    def _warn(self, error: KubeconfigError) -> None:
        if error.message != self._problem:
            log.warning(
                "credentials cannot be read again, the last ones are kept", extra={"problem": error.message}
            )
        self._problem = error.message


def _now() -> float:
    return asyncio.get_running_loop().time()
