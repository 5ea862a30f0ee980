"""Client certificates as identities: who the other side of a TLS connection is, by kube-apiserver's rules.

TLS has verified a certificate before it comes here. Used by the gateway and by the embedded server. Pure.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from .identity import User

_UID: Final = "1.3.6.1.4.1.57683.2"
"""Of a certificate's subject: the user's uid (kube-apiserver from 1.34)."""


def _trusted() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A client's certificate that TLS has verified."""

    common_name: str
    organizations: tuple[str, ...]
    not_after: float
    """Wall-clock seconds."""
    uid: str = ""
    fingerprint: str = ""
    """SHA-256 of its DER form, hexadecimal."""
    trusted: Callable[[], bool] = field(default=_trusted, compare=False, repr=False)
    """Whether its authority is still one of those that are accepted; TLS asks only when a connection begins."""


def peer_certificate(connection: ssl.SSLObject | ssl.SSLSocket | None) -> PeerCertificate | None:
    """The certificate of the other side; None without TLS, or if it showed none.

    `connection` is ``transport.get_extra_info("ssl_object")``.
    """
    found: Any = connection.getpeercert() if connection is not None else None
    if connection is None or not found:
        return None
    subject = [pair for names in found.get("subject", ()) for pair in names]
    common_names = [value for name, value in subject if name == "commonName"]
    der = connection.getpeercert(binary_form=True) or b""
    return PeerCertificate(
        common_name=common_names[-1] if common_names else "",
        organizations=tuple(value for name, value in subject if name == "organizationName"),
        not_after=ssl.cert_time_to_seconds(found["notAfter"]),
        uid=next((value for name, value in subject if name == _UID), ""),
        fingerprint=hashlib.sha256(der).hexdigest(),
    )


def certificate_user(certificate: PeerCertificate, wall_s: float) -> User | None:
    """The user a certificate stands for (``x509.CommonNameUserConversion``); None: it names none, or has expired."""
    if not certificate.common_name or wall_s > certificate.not_after:
        return None
    extra = {"authentication.kubernetes.io/credential-id": (f"X509SHA256={certificate.fingerprint}",)}
    return User(certificate.common_name, certificate.uid, certificate.organizations, extra)
