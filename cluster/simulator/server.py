"""The embedded API server as something to start: `build_app` for in-process use, `ApiServer` on a socket.

`ApiServer` runs uvicorn (httptools, the running loop) inside the present event loop and is what tests and
``shoal apiserver`` hold on to: `url`, `storage`, `verbs`, `faults`, `app`. A busy port is found out
before anything starts. TLS needs a certificate and key; with a client CA, clients must show a certificate
it signed.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ...shards.model.errors import SettingsError
from ...shards.model.resources import Resource
from ..listening import HttpServer, bind
from ..serving.certificates import peer_certificate
from .access import Access
from .app import ApiServerApp
from .builtin import builtin_types
from .faults import Faults
from .rbac import RoleBasedAccess, bootstrap_objects
from .requests import ABORT, CERTIFICATE
from .served import Catalogue
from .settings import SimulatorSettings
from .storage import Storage
from .verbs import Verbs, Writer

_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of ``generateName`` suffixes: without vowels and look-alikes (``apimachinery/pkg/util/rand``)."""
SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for serving HTTPS."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """With it, only clients with a certificate from this authority are let in."""
    optional: bool = False
    """Clients without a certificate are let in too, and say otherwise who they are."""


def build_app(
    settings: SimulatorSettings | None = None, *, now: Callable[[], datetime] | None = None
) -> ApiServerApp:
    """A server with the built-in resources and the system's namespaces, not listening anywhere.

    `now` is the wall clock of creation times; a virtual one makes a seeded server repeatable to the byte.
    """
    settings = settings or SimulatorSettings()
    rng = Random(settings.seed)
    clock = now or _utc_now
    storage = Storage(
        revision=settings.revision,
        history_events=settings.history_events,
        history_bytes=settings.history_bytes,
    )
    verbs = Verbs(
        Catalogue(builtin_types()),
        storage,
        now=clock,
        new_uid=lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        name_suffix=lambda: "".join(rng.choice(_NAME_ALPHABET) for _ in range(5)),
    )
    namespaces = verbs.served(Resource("", "v1", "namespaces"))
    for name in SYSTEM_NAMESPACES:
        verbs.create(namespaces, None, {"metadata": {"name": name}}, Writer("kube-apiserver"))
    if settings.rbac:
        for resource, document in bootstrap_objects():
            verbs.create(verbs.served(resource), None, document, Writer("kube-apiserver"))
    access = Access(settings.users, rbac=RoleBasedAccess(storage) if settings.rbac else None, now=clock)
    # A generator of their own for faults: arming one must not change the uids that follow.
    faults = Faults(storage, Random(rng.getrandbits(64)))
    return ApiServerApp(verbs, faults, access, settings, clock, Random(rng.getrandbits(64)))


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ApiServer:
    """An API server listening in this process.

    An async context manager; or `start` and `stop`. It shares the running event loop.
    """

    def __init__(
        self,
        app: ApiServerApp | None = None,
        *,
        settings: SimulatorSettings | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: Tls | None = None,
    ) -> None:
        """`port` 0 takes a free one; `settings` are for the app made when none is given."""
        self.app = app if app is not None else build_app(settings)
        self.host = host
        self.port = port
        self._tls = tls
        self._server: HttpServer | None = None

    @property
    def url(self) -> str:
        """Where it listens; of use once started."""
        scheme = "https" if self._tls else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def storage(self) -> Storage:
        """What it holds."""
        return self.app.storage

    @property
    def verbs(self) -> Verbs:
        """For writing without HTTP."""
        return self.app.verbs

    @property
    def faults(self) -> Faults:
        """For arming faults without HTTP."""
        return self.app.faults

    async def start(self) -> None:
        """Listens.

        Raises:
            AddressUnavailable: the address is in use, not ours, or not permitted.
            SettingsError: the TLS files cannot be used.
        """
        listener = bind(self.host, self.port)
        self.port = int(listener.getsockname()[1])
        try:
            self._server = HttpServer(self.app, listener, http=_Protocol, **self._tls_options())
        except (OSError, ssl.SSLError) as error:
            listener.close()
            raise SettingsError(f"the TLS certificate, key or client CA cannot be used: {error}") from error
        await self._server.start()

    async def stop(self) -> None:
        """Ends every stream and stops listening; does nothing when not running."""
        if self._server is None:
            return
        self.app.close()
        server, self._server = self._server, None
        await server.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _tls_options(self) -> dict[str, Any]:
        tls = self._tls
        if tls is None:
            return {}
        return {
            "ssl_certfile": str(tls.certificate),
            "ssl_keyfile": str(tls.key),
            "ssl_ca_certs": str(tls.client_ca) if tls.client_ca else None,
            "ssl_cert_reqs": _verification(tls),
        }


def _verification(tls: Tls) -> ssl.VerifyMode:
    if tls.client_ca is None:
        return ssl.CERT_NONE
    return ssl.CERT_OPTIONAL if tls.optional else ssl.CERT_REQUIRED


class _Protocol(HttpToolsProtocol):
    """Lets the app break its connection (`requests.ABORT`) and know its client's certificate."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = dict(self.scope.get("extensions") or {})
        extensions[ABORT] = {"abort": self._break}
        extensions[CERTIFICATE] = peer_certificate(self.transport.get_extra_info("ssl_object"))
        self.scope["extensions"] = extensions

    def _break(self) -> None:
        # What was written still goes out, as from a server that died a moment later.
        if self.cycle.response_started:
            self.transport.close()
        else:
            self.transport.abort()
