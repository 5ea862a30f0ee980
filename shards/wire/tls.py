"""TLS of the direct connections, when settings ask: both sides show a certificate of the same authority.

Names are not compared (see `WireSettings.tls_ca`); the shard's certificate goes into the proofs of the handshake
instead, so that one side cannot be led to another that has a certificate too.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from ..model.errors import SettingsError
from ..settings import WireSettings
from .authentication import binding_of


def server_context(settings: WireSettings) -> ssl.SSLContext | None:
    """TLS as a shard speaks it; None without. Reads files. Raises SettingsError."""
    return _context(settings, ssl.PROTOCOL_TLS_SERVER)


def client_context(settings: WireSettings) -> ssl.SSLContext | None:
    """TLS as a gateway speaks it; None without. Reads files. Raises SettingsError."""
    return _context(settings, ssl.PROTOCOL_TLS_CLIENT)


def _context(settings: WireSettings, side: ssl._SSLMethod) -> ssl.SSLContext | None:
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        # NB: a password callback, because OpenSSL would otherwise ask for one on the terminal.
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=_no_password)
        context.load_verify_locations(settings.tls_ca)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"wire.tls_certificate, wire.tls_key, wire.tls_ca ({settings.tls_certificate}, {settings.tls_key}, "
            f"{settings.tls_ca}) cannot be used on this node: {error}; expected PEM files"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a passphrase")


def own_binding(settings: WireSettings) -> bytes:
    """What a shard says of its own certificate; empty without TLS. Raises SettingsError."""
    if settings.tls_certificate is None:
        return b""
    try:
        text = Path(settings.tls_certificate).read_text(encoding="ascii")
        begin = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----", begin) + len("-----END CERTIFICATE-----")
        return binding_of(ssl.PEM_cert_to_DER_cert(text[begin:end]))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"wire.tls_certificate {settings.tls_certificate} cannot be used on this node: {error}; "
            "expected a PEM file that begins with the certificate"
        ) from error


def peer_binding(transport: asyncio.BaseTransport) -> bytes:
    """What a gateway says of the certificate it was shown; empty without TLS."""
    tls = transport.get_extra_info("ssl_object")
    return binding_of(None if tls is None else tls.getpeercert(binary_form=True))
