"""The connection to the API server: requests in, status, headers and bytes out. All HTTP of Shoal's clients.

`ApiConnection` is what the rest of Shoal sees; `HttpConnection` is the real one, on aiohttp. It adds where
the server is and who asks (`Credentials`), verifies the server's certificate unless the credentials say
otherwise, and maps the library's exceptions to `ConnectionFailed` and `CertificateRejected`, whose texts name
the URL and what to do. It never retries, with one exception: after a 401, or TLS that failed, it asks once more if its
credentials can be renewed (an exec plug-in, files that were rotated). It never decodes: lines and pages are
`api.decode`'s.

Receiving a watch event of 9 KB sent as one HTTP chunk, as kube-apiserver does, costs aiohttp about 12 us of CPU
with a read buffer of 64 KiB, its default, and 4 to 8 us with 256 KiB; a bare asyncio protocol around httptools
takes 3 us. Hence aiohttp, 256 KiB, and chunks handed on as large as they are found in the buffer.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import msgspec
from yarl import URL

from ..model.errors import CertificateRejected, ConnectionFailed, Garbage
from ..settings import ApiSettings
from .requests import ApiRequest, Pairs, refusal, upstream_error

log = logging.getLogger("shoal.shards.api")

USER_AGENT = "shoal"

READ_BUFFER_BYTES = 256 << 10
"""See the measurement above. At twice this aiohttp stops reading, so a slow consumer holds no more than
that."""

BODY_BYTES_MAX = 1 << 30
"""Of an answer read as a whole. An unpaged LIST of 100 000 pods is about 1 GB; nobody can use more than
that."""

ERROR_BODY_BYTES_MAX = 64 << 10
"""Of an error answer: a Status, or a proxy's page whose beginning is enough."""

KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 30, 10, 3
"""TCP keep-alive: a peer that vanished without a word is noticed after a minute instead of two hours.
client-go has the same from HTTP/2 pings (30 s and 15 s)."""


class ApiResponse(Protocol):
    """An answer whose head has arrived. Valid inside the context that yielded it."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; the values of a name that came several times joined by commas."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, in pieces of no particular size. Ends only with a complete answer.

        Raises:
            ConnectionFailed: the connection broke before the answer was complete.
        """

    async def read(self, limit: int = BODY_BYTES_MAX) -> bytes:
        """The whole body.

        Raises:
            ConnectionFailed: as `chunks`.
            Garbage: it is longer than `limit` bytes.
        """


class ApiConnection(Protocol):
    """A way to ask the API server."""

    def open(self, request: ApiRequest) -> AbstractAsyncContextManager[ApiResponse]:
        """Sends a request; entering waits for the head of the answer, leaving ends the exchange.

        Raises:
            ConnectionFailed: nothing answered, or not in time.
            CertificateRejected: what answered could not prove to be the API server.
            KubeconfigError: the credentials cannot be had any more.
        """

    def pinned(self) -> AbstractAsyncContextManager[ApiConnection]:
        """A connection all of whose requests, one after the other, go over one TCP connection, so that one server
        answers them all. Where that cannot be had, entering the request raises ConnectionFailed.
        """

    async def aclose(self) -> None:
        """Closes every connection; open answers end with ConnectionFailed."""


async def fetch(connection: ApiConnection, request: ApiRequest) -> tuple[Mapping[str, str], bytes]:
    """Headers and body of a request that must succeed; a 304 has an empty body.

    Raises:
        Upstream: the API server answered with an error.
        ConnectionFailed: see `ApiConnection.open`.
    """
    async with connection.open(request) as response:
        if response.status == 304:
            return response.headers, b""
        if 200 <= response.status < 300:
            return response.headers, await response.read()
        refused = refusal(response.status, response.headers, await response.read(ERROR_BODY_BYTES_MAX))
        raise upstream_error(request, refused)


async def fetch_json(connection: ApiConnection, request: ApiRequest) -> Any:
    """The parsed body of a request that must succeed.

    Raises:
        Upstream, ConnectionFailed: as `fetch`.
        Garbage: the body is not JSON.
    """
    _, body = await fetch(connection, request)
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise Garbage(f"the answer to {request.method} {request.target} is not JSON: {error}") from error


# -- who asks, and whom --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API server is and what proves who we are."""

    server: str
    """Scheme, host, port and, behind some proxies, a path; no slash at the end."""
    tls: ssl.SSLContext | None = None
    """None for plain HTTP."""
    headers: Pairs = ()
    """Authorization and impersonation."""
    server_name: str | None = None
    """The name the certificate has to be for, if not the host of `server`."""
    proxy: str | None = None
    """A proxy named in the kubeconfig; those of the environment are never used."""


class Credentials(Protocol):
    """Where endpoints come from: they change when tokens are rotated."""

    async def endpoint(self) -> Endpoint:
        """The endpoint to use now.

        Raises:
            KubeconfigError: it cannot be determined.
        """

    def rejected(self, endpoint: Endpoint, *, again: bool = False) -> bool:
        """The server does not know us by `endpoint` (401). True if the next one may be different. `again`: nor did it
        by the one before, for the same request; that is only told.
        """

    def doubted(self, endpoint: Endpoint) -> bool:
        """TLS with the server failed, or connecting: files may have been rotated. True if the next may be different."""


class PlainCredentials:
    """A server that asks nobody for anything: the embedded API server, ``kubectl proxy``."""

    def __init__(self, server: str) -> None:
        self._endpoint = Endpoint(server.rstrip("/"))

    async def endpoint(self) -> Endpoint:
        """Always the same."""
        return self._endpoint

    def rejected(self, endpoint: Endpoint, *, again: bool = False) -> bool:  # noqa: ARG002 - one signature for all
        """Nothing to renew."""
        return False

    def doubted(self, endpoint: Endpoint) -> bool:  # noqa: ARG002 - one signature for all credentials
        """Nothing to renew."""
        return False


# -- the real connection -------------------------------------------------------------------------------------


class HttpConnection:
    """`ApiConnection` over HTTP/1.1. Belongs to the event loop that uses it first.

    One request takes one TCP connection for as long as it is open; kept-alive ones are used again.
    """

    def __init__(self, credentials: Credentials, settings: ApiSettings | None = None) -> None:
        self._credentials = credentials
        self._settings = settings or ApiSettings()
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[ApiResponse]:
        """As `ApiConnection.open`."""
        async with AsyncExitStack() as exchange:
            endpoint = await self._credentials.endpoint()
            try:
                response = await self._send(request, endpoint, exchange)
            except ConnectionFailed as error:
                endpoint = await self._rotated(endpoint, request, error)
                response = await self._send(request, endpoint, exchange)
            if response.status == 401 and self._credentials.rejected(endpoint):
                log.info("credentials rejected, renewing them", extra={"server": endpoint.server})
                await exchange.aclose()
                endpoint = await self._credentials.endpoint()
                response = await self._send(request, endpoint, exchange)
                if response.status == 401:
                    self._credentials.rejected(endpoint, again=True)
            yield response

    async def _rotated(self, endpoint: Endpoint, request: ApiRequest, error: ConnectionFailed) -> Endpoint:
        """The endpoint to try instead, if files were rotated since; otherwise raises `error`."""
        if endpoint.tls is None or not self._credentials.doubted(endpoint):
            raise error
        found = await self._credentials.endpoint()
        # A server that does not take our certificate says so only when the request is under way (TLS 1.3).
        if found == endpoint or (error.sent and request.method != "GET"):
            raise error
        log.info("no connection, trying the certificates there are now", extra={"server": found.server})
        return found

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[ApiConnection]:
        """As `ApiConnection.pinned`."""
        pinned = _PinnedConnection(self._credentials, self._settings)
        try:
            yield pinned
        finally:
            await pinned.aclose()

    async def aclose(self) -> None:
        """As `ApiConnection.aclose`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(self, request: ApiRequest, endpoint: Endpoint, exchange: AsyncExitStack) -> _HttpResponse:
        # Messages are for people: without the query.
        shown = f"{endpoint.server}{request.path}"
        settings = self._settings
        try:
            response = await exchange.enter_async_context(
                self._open_session().request(
                    request.method,
                    URL(f"{endpoint.server}{request.target}", encoded=True),
                    headers=(*request.headers, *endpoint.headers),
                    data=request.body or None,
                    ssl=endpoint.tls if endpoint.tls is not None else True,
                    server_hostname=endpoint.server_name,
                    proxy=endpoint.proxy,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        total=None,
                        connect=settings.connect_timeout_s,
                        sock_read=None if request.stream else settings.request_timeout_s,
                    ),
                )
            )
        except _LIBRARY_ERRORS as error:
            failed = connection_error(shown, error, settings)
            failed.sent = not isinstance(error, _NOT_CONNECTED)
            raise failed from error
        return _HttpResponse(response, shown, settings)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._settings.connections,
                    socket_factory=self._socket,
                ),
                # Compressed answers would cost both sides more CPU than the network between them saves.
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                skip_auto_headers=("Content-Type",),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=READ_BUFFER_BYTES,
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _socket(self, address: Any) -> socket.socket:
        return _keepalive_socket(address)


class _PinnedConnection(HttpConnection):
    """All requests over one TCP connection: sockets are counted, and one opened later is refused.

    That the library keeps a connection open and finds it again is its business; that it did is proved by there being
    no other: no socket was made since the first answer.
    """

    def __init__(self, credentials: Credentials, settings: ApiSettings) -> None:
        super().__init__(credentials, msgspec.structs.replace(settings, connections=1))
        self._sockets = 0
        self._pinned = 0

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[ApiResponse]:
        """As `ApiConnection.open`; ConnectionFailed as well if the connection of the first request was not kept."""
        async with super().open(request) as response:
            self._pinned = self._pinned or self._sockets
            if self._sockets != self._pinned:
                raise ConnectionFailed(f"the connection for {request.path} was not kept: another was opened")
            yield response

    def _socket(self, address: Any) -> socket.socket:
        self._sockets += 1
        return super()._socket(address)


class _HttpResponse:
    """`ApiResponse` around aiohttp's."""

    def __init__(self, response: aiohttp.ClientResponse, url: str, settings: ApiSettings) -> None:
        self.status = response.status
        self.headers: dict[str, str] = {}
        for name, value in response.headers.items():
            # Several of one name (Warning) are one list, as HTTP has it.
            known = self.headers.get(name.lower())
            self.headers[name.lower()] = value if known is None else f"{known}, {value}"
        self._response = response
        self._url = url
        self._settings = settings

    async def chunks(self) -> AsyncIterator[bytes]:
        """As `ApiResponse.chunks`."""
        readany = self._response.content.readany
        try:
            while chunk := await readany():
                yield chunk
        except _LIBRARY_ERRORS as error:
            raise connection_error(self._url, error, self._settings) from error

    async def read(self, limit: int = BODY_BYTES_MAX) -> bytes:
        """As `ApiResponse.read`."""
        parts, size = [], 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise Garbage(f"the answer to {self._url} is longer than the {limit} bytes allowed for it")
        return b"".join(parts)


def _keepalive_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Linux's names; elsewhere the system's own (long) times apply.
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection


# -- the one boundary to the library's exceptions ------------------------------------------------------------

_LIBRARY_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, RuntimeError, ValueError)
"""RuntimeError is aiohttp's "Session is closed", ValueError its complaint about a header or an URL."""


_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""Raised before anything is sent."""


def connection_error(url: str, error: BaseException, settings: ApiSettings) -> ConnectionFailed:
    """What went wrong, in words that name the URL and what to do about it."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return CertificateRejected(
                f"the certificate of {url} does not verify: {_reason(error)}; name the right authority as "
                "certificate-authority in the kubeconfig (or the certificate's own name as tls-server-name), "
                "or, only where nobody can listen, set insecure-skip-tls-verify"
            )
        case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return ConnectionFailed(
                f"no TLS with {url}: {_reason(error)}; is it an https port, and is our certificate accepted?"
            )
        case aiohttp.ClientConnectorDNSError():
            return ConnectionFailed(f"the host of {url} is not known: {_reason(error)}")
        case aiohttp.ClientProxyConnectionError():
            return ConnectionFailed(f"the kubeconfig's proxy for {url} does not answer: {_reason(error)}")
        case aiohttp.ConnectionTimeoutError():
            return ConnectionFailed(
                f"no connection to {url} within {settings.connect_timeout_s:g} s: the server does not "
                f"answer, or all {settings.connections} connections are in use"
            )
        case aiohttp.SocketTimeoutError():
            return ConnectionFailed(f"{url} sent nothing for {settings.request_timeout_s:g} s")
        case aiohttp.ClientConnectorError():
            return ConnectionFailed(f"cannot connect to {url}: {_reason(error)}; is the API server running?")
        case aiohttp.ServerDisconnectedError():
            return ConnectionFailed(f"{url} closed the connection instead of answering")
        case aiohttp.ClientPayloadError():
            return ConnectionFailed(f"{url} broke off in the middle of its answer")
        case _:
            return ConnectionFailed(f"the connection to {url} failed: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """The innermost cause in the words of the operating system or of OpenSSL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or str(error)
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror | ssl.SSLError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
