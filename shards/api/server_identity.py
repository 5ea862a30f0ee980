"""Which cluster it is that answers: the uid of its namespace ``kube-system``, which every cluster has, from its first
moment to its last, and behind every address.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from ..model.errors import ConnectionFailed, Garbage, KubeconfigError
from ..model.refs import Key
from ..model.resources import Resource
from .client import ERROR_BODY_BYTES_MAX, ApiConnection
from .requests import metadata_request, refusal

NAMESPACES: Final = Resource("", "v1", "namespaces")
NAMED: Final = Key("kube-system")
ANSWER_S: Final = 10.0
FRESH_S: Final = 10.0
"""Many ask at once when a shard starts; an address does not lead elsewhere within so long."""


class _Metadata(msgspec.Struct):
    uid: str


class _Namespace(msgspec.Struct):
    metadata: _Metadata


_decode: Final = msgspec.json.Decoder(_Namespace).decode


class ServerIdentity:
    """Of whatever a connection leads to. Belongs to the event loop of the connection."""

    def __init__(self, connection: ApiConnection) -> None:
        self._connection = connection
        self._asking = asyncio.Lock()
        self._told: tuple[float, str] | None = None

    async def ask(self) -> str | None:
        """The identity; None if the server does not answer now, and an empty text if it does not say."""
        now = asyncio.get_running_loop().time
        async with self._asking:
            if self._told is None or now() - self._told[0] > FRESH_S:
                identity = await self._ask()
                if identity is None:
                    return None
                self._told = (now(), identity)
            return self._told[1]

    async def _ask(self) -> str | None:
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._connection.open(metadata_request(NAMESPACES, NAMED)) as response,
            ):
                if response.status == 200:
                    return _decode(await response.read()).metadata.uid
                refused = refusal(
                    response.status, response.headers, await response.read(ERROR_BODY_BYTES_MAX)
                )
        except (ConnectionFailed, KubeconfigError, TimeoutError, Garbage):
            return None
        except (msgspec.DecodeError, UnicodeError):
            return ""
        return None if refused.meaning in ("overloaded", "failed", "expired") else ""
