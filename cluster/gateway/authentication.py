"""Who asks: a client certificate, a bearer token that the API server knows, or nobody.

The order and the rules are kube-apiserver's (``authentication/request/x509``, ``bearertoken``, ``anonymous``): a
certificate first; then the first Authorization header, if it is ``Bearer`` and has a token; a token that is nobody's is
401 even where anonymous requests are allowed; other schemes count as no credentials. Certificates were verified by TLS
before they come here; that they have not expired meanwhile is looked at for each request.

Tokens are judged by the API server (TokenReview). Verdicts are remembered by the SHA-256 of the token, good ones for
`token_life_s` (10 s), bad ones for `unknown_token_life_s` (2 s); many requests with one token are one question. While
the API server is away verdicts live to their end; then the answer is 503, never "somebody". A token is held as long as
an open watch needs it to be looked at again, and is never logged, shown or part of an error.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from ...shards.model.errors import Unauthorized
from ..serving.certificates import PeerCertificate, certificate_user
from ..serving.identity import ANONYMOUS, User, authenticated, header_text, impersonation_asked
from .authorization import Authorization
from .http import Request
from .impersonation import impersonate
from .reviews import Reviewer, TokenVerdict
from .settings import AuthenticationSettings, AuthorizationSettings
from .verdicts import Verdicts

TOKEN_CHARS_MAX: Final = 64 << 10
"""A longer token is nobody's."""


class Untrusted(Unauthorized):
    """The certificate's authority was removed after its connection had begun: a new one has to be made."""


Credential = Literal["token", "certificate", "none"]


async def _nobody() -> User:
    return ANONYMOUS


@dataclass(frozen=True, slots=True)
class Caller(User):
    """A user and how we know."""

    credential: Credential = "none"
    renewal: Callable[[], Awaitable[User]] = field(default=_nobody, repr=False, compare=False)

    async def renew(self) -> User:
        """Who the same credentials make them now.

        Raises:
            Unauthorized: nobody any more.
            Forbidden: they may not impersonate any more whom they did.
            NotReady: the API server cannot be asked.
        """
        return await self.renewal()


def _caller(user: User, credential: Credential, renewal: Callable[[], Awaitable[User]]) -> Caller:
    return Caller(user.name, user.uid, user.groups, user.extra, credential, renewal)


NOBODY = Caller(ANONYMOUS.name, groups=ANONYMOUS.groups)


class Authenticator:
    """Knows who asks. `wall` is the wall clock in seconds, for the dates of certificates."""

    def __init__(
        self,
        settings: AuthenticationSettings,
        reviewer: Reviewer,
        authorization: Authorization,
        *,
        reviews: AuthorizationSettings | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`reviews` bounds the questions under way, as those of permissions."""
        bounds = reviews or AuthorizationSettings()
        self._settings = settings
        self._reviewer = reviewer
        self._authorization = authorization
        self._wall = wall
        self._tokens: Verdicts[bytes, TokenVerdict] = Verdicts(
            "tokens",
            good_life_s=settings.token_life_s,
            bad_life_s=settings.unknown_token_life_s,
            remembered=settings.remembered,
            at_once=bounds.reviews_at_once,
            waiting=bounds.reviews_waiting,
            timeout_s=bounds.review_timeout_s,
        )

    @property
    def asks(self) -> bool:
        """Whether anybody is asked who they are. If not, nothing is authorized either."""
        return asks_who(self._settings)

    def is_open(self, path: str) -> bool:
        """Whether a path is answered to everybody, unasked."""
        return path.rstrip("/") in self._settings.open_paths

    def knows(self, request: Request) -> bool:
        """Whether it can be said without asking the API server who asks, or that nobody does."""
        token = bearer_token(request.values("authorization"))
        if not (token and self._settings.tokens) or len(token) > TOKEN_CHARS_MAX:
            return True
        return self._tokens.held(_digest(token)) is not None

    async def authenticate(self, request: Request, certificate: PeerCertificate | None = None) -> Caller:
        """Who asks, or whom they impersonate.

        Raises:
            Unauthorized: no credentials, or nobody's.
            Forbidden: they may not impersonate whom they want to.
            BadRequest: impersonation headers without a user.
            NotReady: the API server cannot be asked.
            TooManyRequests: too many questions are waiting.
        """
        if not self.asks:
            return NOBODY
        caller = await self._identify(request, certificate)
        wanted = impersonation_asked(request.fields)
        if wanted is None:
            return caller

        async def renewed() -> User:
            return await impersonate(await caller.renew(), wanted, self._authorization)

        user = await impersonate(caller, wanted, self._authorization)
        return _caller(user, caller.credential, renewed)

    async def aclose(self) -> None:
        """Ends what is being asked."""
        await self._tokens.aclose()

    async def _identify(self, request: Request, certificate: PeerCertificate | None) -> Caller:
        token = bearer_token(request.values("authorization"))
        if certificate is not None and self._settings.certificates:
            try:
                return await self._by_certificate(certificate)
            except Unauthorized:
                if not (token and self._settings.tokens):
                    raise
        if token and self._settings.tokens:
            return await self._by_token(token)
        if self._settings.anonymous:
            return NOBODY
        raise Unauthorized("Unauthorized")

    async def _by_certificate(self, certificate: PeerCertificate) -> Caller:
        if not certificate.trusted():
            raise Untrusted("Unauthorized")
        user = certificate_user(certificate, self._wall())
        if user is None:
            raise Unauthorized("Unauthorized")

        async def renewed() -> User:
            return await self._by_certificate(certificate)

        return _caller(authenticated(user), "certificate", renewed)

    async def _by_token(self, token: str) -> Caller:
        if len(token) > TOKEN_CHARS_MAX:
            raise Unauthorized("Unauthorized")
        verdict = await self._tokens.of(_digest(token), lambda: self._reviewer.token(token))
        if verdict.user is None:
            raise Unauthorized("Unauthorized")

        async def renewed() -> User:
            return await self._by_token(token)

        return _caller(authenticated(verdict.user), "token", renewed)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def asks_who(settings: AuthenticationSettings) -> bool:
    """Whether these settings ask anybody who they are."""
    return settings.tokens or settings.certificates or settings.anonymous


def bearer_token(authorizations: tuple[str, ...]) -> str:
    """The token of the first Authorization header; empty if it holds none (``bearertoken.AuthenticateRequest``)."""
    parts = authorizations[0].strip().split(" ", 2) if authorizations else []
    if len(parts) < 2 or parts[0].lower() != "bearer":
        return ""
    return header_text(parts[1])
