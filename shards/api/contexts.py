"""TLS contexts for API servers, from the files that a kubeconfig or a service account names.

What it keeps true: the same contents make the same context, because kept-alive connections belong to one; other
contents, after a rotation, make another.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from ..model.errors import KubeconfigError


class TlsContexts:
    """Makes TLS contexts, the same one for the same files: kept-alive connections belong to a context."""

    def __init__(self) -> None:
        self._last: tuple[tuple[object, ...], ssl.SSLContext] | None = None

    def of(self, configuration: Any, where: str) -> ssl.SSLContext | None:
        """The context for a configuration; None for plain HTTP.

        Raises:
            KubeconfigError: authority, certificate or key cannot be used.
        """
        if not str(configuration.host).startswith("https"):
            return None
        files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        contents = tuple(Path(file).read_bytes() if file else None for file in files)
        identity = (*contents, configuration.verify_ssl)
        if self._last is None or self._last[0] != identity:
            self._last = (identity, _tls_context(configuration, where))
        return self._last[1]


def _tls_context(configuration: Any, where: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    except ssl.SSLError as error:
        raise KubeconfigError(
            f"{where}: the certificate authority is not a PEM certificate: {error}"
        ) from error
    # Python 3.13 turns this on; the authorities of many clusters lack the extensions it wants, and no other
    # client wants them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    if configuration.cert_file:
        try:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        except ssl.SSLError as error:
            raise KubeconfigError(f"{where}: client certificate and key do not fit: {error}") from error
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
