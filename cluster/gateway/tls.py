"""HTTPS for the gateway: certificates that rotate, certificates of clients, and what may be listened on.

`ServerContext` looks at its files when a connection comes, at most once a second, and serves that and later
connections with what is there now; those that are open keep what they have, but for one thing: once an authority of
clients is not among the present ones any more, no certificate shown before counts (`client_certificate`). Files that
do not fit together (a rotation half-way) leave the last good ones in use, with a warning. Each set of files is a TLS
context of its own, so an authority that was removed is trusted by no later handshake, not even one that resumes an
older session.

A certificate that does not verify, or has expired, fails in the handshake (kube-apiserver would answer 401). TLS 1.2
at least. Files are small and local, so they are read on the event loop.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from ...shards.model.errors import SettingsError
from ..serving.certificates import PeerCertificate, peer_certificate
from .settings import AuthenticationSettings, TlsSettings

__all__ = [
    "PeerCertificate",
    "ServerContext",
    "check_exposure",
    "client_certificate",
    "is_loopback",
    "no_password",
    "peer_certificate",
    "tls_problem",
]

log = logging.getLogger("shoal.cluster.gateway.tls")

LOOK_AGAIN_S: Final = 1.0
"""Files are looked at no more often than this."""


# -- what may be listened on ---------------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, tls: TlsSettings, authentication: AuthenticationSettings) -> None:
    """Refuses to let others than this machine read what nobody protects.

    Raises:
        SettingsError: `host` is not loopback, and there is no TLS or nobody is asked who they are.
    """
    if is_loopback(host):
        return
    missing = []
    if tls.certificate is None:
        missing.append("TLS (gateway.tls.certificate and gateway.tls.key)")
    if not (authentication.tokens or authentication.certificates):
        missing.append("authentication (gateway.authentication.tokens or .certificates)")
    if missing:
        raise SettingsError(
            f"listen address {host!r} is refused: anything but loopback (127.0.0.1, ::1 or localhost) needs "
            f"{' and '.join(missing)}, or whoever reaches it reads everything that is followed"
        )


# -- serving -------------------------------------------------------------------------------------------------


class ServerContext(ssl.SSLContext):
    """A server's TLS context whose certificates follow their files. Give it to a server as any other.

    Event loops wrap every connection anew (`wrap_bio`): that is where the present files come in.
    """

    _settings: TlsSettings
    _now: Callable[[], float]
    _current: _Loaded
    _seen: tuple[object, ...]
    _looked_at: float
    _problem: str

    @classmethod
    def of(cls, settings: TlsSettings, *, now: Callable[[], float] = time.monotonic) -> ServerContext:
        """The context for these files; `now` gives seconds that never go back.

        Raises:
            SettingsError: they cannot be read, or do not fit together.
        """
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context._settings = settings
        context._now = now
        context._problem = ""
        context._seen = _state(settings)
        context._current = _load(settings, context)
        context._looked_at = now()
        return context

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """A connection with the certificates of now."""
        self.refresh()
        return self._current.wrap_bio(*arguments, **named)

    def trusts(self, context: _Loaded) -> bool:
        """Whether the authorities of a context are all accepted now."""
        self.refresh()
        return context is self._current or context.authorities <= self._current.authorities

    def refresh(self) -> None:
        """Loads the files if they have changed since they were last loaded."""
        now = self._now()
        if now - self._looked_at < LOOK_AGAIN_S:
            return
        self._looked_at = now
        seen = _state(self._settings)
        if seen == self._seen:
            return
        try:
            self._current = _load(self._settings, self)
        except SettingsError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning("new certificates cannot be used, the old stay", extra={"problem": str(error)})
            return
        self._seen, self._problem = seen, ""
        log.info("certificates replaced", extra={"certificate": self._settings.certificate})


class _Loaded(ssl.SSLContext):
    """The context of one set of files."""

    owner: ServerContext
    authorities: frozenset[bytes]
    """Those whose client certificates are accepted."""


def client_certificate(connection: ssl.SSLObject | None) -> PeerCertificate | None:
    """The client's certificate, which knows whether its authority is still one of ours."""
    found = peer_certificate(connection)
    if found is None or connection is None or not isinstance(context := connection.context, _Loaded):
        return found
    return replace(found, trusted=partial(context.owner.trusts, context))


def _files(settings: TlsSettings) -> tuple[str, ...]:
    return tuple(file for file in (settings.certificate, settings.key, settings.client_ca) if file)


def _state(settings: TlsSettings) -> tuple[object, ...]:
    """What changes when a file does; links are followed, as mounted secrets are swapped by one."""
    found: list[object] = []
    for file in _files(settings):
        try:
            status = Path(file).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _load(settings: TlsSettings, owner: ServerContext) -> _Loaded:
    assert settings.certificate is not None
    assert settings.key is not None
    context = _Loaded(ssl.PROTOCOL_TLS_SERVER)
    context.owner = owner
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(
            f"gateway.tls: certificate {settings.certificate} and key {settings.key} cannot be used: "
            f"{tls_problem(error)}"
        ) from error
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"gateway.tls.client_ca {settings.client_ca} cannot be used: {tls_problem(error)}"
            ) from error
        context.verify_mode = ssl.CERT_OPTIONAL
    context.authorities = frozenset(context.get_ca_certs(binary_form=True))
    return context


def no_password() -> str:
    """Without this OpenSSL would ask a terminal."""
    raise ValueError("the key is encrypted, which is not supported")


def tls_problem(error: Exception) -> str:
    """What is wrong with a file, in the words of OpenSSL or of the system."""
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return getattr(error, "strerror", None) or str(error)
