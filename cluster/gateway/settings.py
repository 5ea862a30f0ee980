"""Settings of the gateway that are not about where it listens: who may ask, and what becomes of writes.

`cluster.settings` composes them into ``gateway``. Plain frozen values; nothing is read from outside.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1)]
OPENABLE = ("/metrics", "/shoal/v1/status", "/version")
"""Pages that show no object and may be shown to everybody."""


class AuthenticationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom the gateway answers. With nothing switched on it asks nobody who they are, and listens on loopback only."""

    tokens: bool = False
    """Bearer tokens, which the API server judges (TokenReview). Shoal's own identity needs the cluster role
    ``system:auth-delegator`` for this and for every question of permission."""
    certificates: bool = False
    """Client certificates from the authority ``gateway.tls.client_ca``: the common name is the user, organizations are
    groups, as for kube-apiserver."""
    anonymous: bool = False
    """Requests without credentials are ``system:anonymous`` instead of 401; what they may read is the API server's
    to say, as for everybody."""
    open_paths: tuple[str, ...] = ()
    """Pages that are answered to everybody without a question, besides health: some of ``/metrics``,
    ``/shoal/v1/status`` and ``/version``."""
    audiences: tuple[str, ...] = ()
    """Audiences a token must be for, one of them; empty: those of the API server."""
    token_life_s: Seconds = 10.0
    """A token found good is not asked about again for so long. kube-apiserver itself keeps such verdicts for 10 s."""
    unknown_token_life_s: Seconds = 2.0
    """The same for a token found bad."""
    remembered: Count = 10_000
    """Tokens remembered, of either kind."""

    def __post_init__(self) -> None:
        """Raises ValueError for a path that shows objects, and for audiences of tokens that nobody looks at."""
        if self.audiences and not self.tokens:
            raise ValueError("gateway.authentication.audiences needs gateway.authentication.tokens")
        closed = [path for path in self.open_paths if path not in OPENABLE]
        if closed:
            raise ValueError(
                f"gateway.authentication.open_paths: {closed[0]!r} cannot be open; only {', '.join(OPENABLE)} can"
            )


class AuthorizationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a verdict of the API server (SubjectAccessReview) counts. On whenever somebody is asked who they are."""

    allowed_life_s: Seconds = 10.0
    """Somebody allowed something is not asked about again for so long; so long a permission that was withdrawn still
    answers. kube-apiserver keeps the verdicts of its own webhook for 300 s."""
    denied_life_s: Seconds = 5.0
    """The same for a refusal; so long a new permission may take to work."""
    remembered: Count = 50_000
    """Verdicts remembered, of either kind."""
    reviews_at_once: Count = 64
    """Questions under way to the API server at a time, tokens and permissions each."""
    reviews_waiting: Count = 2_000
    """Questions that may wait for their turn; one more is answered 429."""
    review_timeout_s: Seconds = 10.0
    """A question not answered within this is 503."""
    recheck_s: Annotated[float, Meta(ge=1, le=86_400)] = 30.0
    """An open watch asks again at least this often whether its user is still known and allowed."""
    unproven_s: Seconds = 120.0
    """While the API server answers no such question an open watch goes on for so long, and then ends."""


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files for serving HTTPS, PEM. They are read again when they change; connections that are open stay."""

    certificate: str | None = None
    """Certificate and those between it and its authority; None: plain HTTP. Must be readable where the gateway runs."""
    key: str | None = None
    client_ca: str | None = None
    """Authorities whose client certificates are accepted; goes with ``gateway.authentication.certificates``."""

    def __post_init__(self) -> None:
        """Raises ValueError where one file is named without the other it needs."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("gateway.tls: certificate and key go together, and one of them is missing")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("gateway.tls.client_ca needs gateway.tls.certificate and gateway.tls.key")


class ForwardingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of forwarding, for ``gateway.writes: forward``."""

    body_bytes_max: Count = 3 << 20
    """A longer body is 413, as for kube-apiserver."""
    at_once: Count = 64
    """Requests on their way to the API server at a time; one more waits `wait_s` and is then 429."""
    wait_s: Seconds = 5.0
    timeout_s: Seconds = 65.0
    """Seconds for a body to arrive, and from there to the head of the answer; kube-apiserver gives up after 60."""
    streams: Count = 256
    """Logs read through the gateway at a time. Each takes a connection to the API server, and none that others need."""
    streams_per_user: Count = 64
    """Of one user; one more is 429. Less than `streams`, so that nobody takes them all."""

    def __post_init__(self) -> None:
        """Raises ValueError where one user could take what is for all."""
        if self.streams_per_user >= self.streams:
            raise ValueError(
                f"gateway.forwarding.streams_per_user is {self.streams_per_user}: expected less than "
                f"gateway.forwarding.streams, {self.streams}"
            )
