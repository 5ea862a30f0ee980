"""TLS contexts for API servers, from the files that a kubeconfig, a service account or `connect` names.

What it keeps true: the same contents make the same context, because kept-alive connections belong to one; other
contents, after a rotation, make another.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model.errors import KubeconfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What a context is made of; all files are PEM."""

    authority: str | None = None
    """None: the authorities of the system."""
    trusted: str | None = None
    """More authorities."""
    certificate: str | None = None
    key: str | None = None
    verify: bool = True


class BadTls(Exception):  # noqa: N818 - what was found; callers make an error of their own of it
    """Files that make no context. Its text says why, in the words of OpenSSL or of the system."""


class BadAuthority(BadTls):
    """`TlsFiles.authority` cannot be used."""


class BadTrusted(BadTls):
    """`TlsFiles.trusted` cannot be used."""


class BadCertificate(BadTls):
    """`TlsFiles.certificate` and `TlsFiles.key` cannot be used, or not with each other."""


class TlsContexts:
    """Makes TLS contexts, the same one for the same contents.

    Args:
        trusted: File of authorities beyond those that a configuration names.
    """

    def __init__(self, *, trusted: str | None = None) -> None:
        self.trusted = trusted
        self._last: tuple[tuple[object, ...], ssl.SSLContext] | None = None

    def of(self, configuration: Any, where: str) -> ssl.SSLContext | None:
        """The context for a configuration of the `kubernetes` package; None for plain HTTP.

        Raises:
            KubeconfigError: authority, certificate or key cannot be used.
        """
        if not str(configuration.host).lower().startswith("https"):
            return None
        files = TlsFiles(
            authority=configuration.ssl_ca_cert or None,
            trusted=self.trusted,
            certificate=configuration.cert_file or None,
            key=configuration.key_file or None,
            verify=configuration.verify_ssl,
        )
        try:
            return self.made_of(files)
        except BadAuthority as error:
            raise KubeconfigError(
                f"{where}: the certificate authority is not a PEM certificate: {error}"
            ) from error
        except BadCertificate as error:
            raise KubeconfigError(f"{where}: client certificate and key do not fit: {error}") from error
        except BadTls as error:
            raise KubeconfigError(f"ca {self.trusted} cannot be used: {error}") from error

    def made_of(self, files: TlsFiles) -> ssl.SSLContext:
        """The context of these files.

        Raises:
            BadTls: they make none.
        """
        identity = (
            _contents(files.authority, BadAuthority),
            _contents(files.trusted, BadTrusted),
            _contents(files.certificate, BadCertificate),
            _contents(files.key, BadCertificate),
            files.verify,
        )
        if self._last is None or self._last[0] != identity:
            self._last = (identity, _context(files))
        return self._last[1]


def _contents(file: str | None, wrong: type[BadTls]) -> bytes | None:
    try:
        return Path(file).read_bytes() if file else None
    except OSError as error:
        raise wrong(f"{error.strerror or error} ({file})") from error


def _context(files: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.authority)
    except (OSError, ValueError) as error:
        raise BadAuthority(_problem(error)) from error
    # Python 3.13 turns this on; the authorities of many clusters lack the extensions it wants, and no other
    # client wants them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    if files.trusted:
        try:
            context.load_verify_locations(cafile=files.trusted)
        except (OSError, ValueError) as error:
            raise BadTrusted(_problem(error)) from error
    if files.certificate:
        try:
            context.load_cert_chain(files.certificate, files.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise BadCertificate(_problem(error)) from error
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _no_password() -> str:
    """Without this OpenSSL would ask a terminal."""
    raise ValueError("the key is encrypted, which is not supported")


def _problem(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return getattr(error, "strerror", None) or str(error)
