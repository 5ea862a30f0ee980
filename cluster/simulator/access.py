"""Who asks, and whether they may: bearer tokens, client certificates, impersonation; allow rules or RBAC.

Three degrees. Without users and without RBAC everybody is an administrator. With users, a token names one and that
user's rules decide; a request without token is ``system:anonymous``, who may read the health and version endpoints
and nothing else. With RBAC, the roles and bindings that are stored decide (`rbac`), and a client certificate names a
user too. An unknown token is 401 and what nothing allows is 403, both with the API server's texts. No clock but the
one given, no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from ...shards.model.errors import Unauthorized
from ..serving.certificates import PeerCertificate, certificate_user
from ..serving.identity import (
    ANONYMOUS,
    MASTERS,
    Attributes,
    User,
    authenticated,
    forbidden,
    impersonated,
    impersonation_asked,
    impersonation_checks,
)
from . import settings
from .rbac import RoleBasedAccess, Verdict
from .settings import API_AUDIENCE, Rule

ADMIN = User("system:admin", groups=(MASTERS,))
SELF_REVIEWS = ("authentication.k8s.io", "authorization.k8s.io")
"""Groups whose ``self…`` reviews everybody known may create (``system:basic-user``)."""
INVALID_TOKEN = "invalid bearer token"  # noqa: S105 - a text
_OPEN = ("/version", "/healthz", "/livez", "/readyz")
_DISCOVERY = ("/api", "/openapi")


class TokenAnswer(NamedTuple):
    """Whose a token is and for which of the audiences asked; or why it is nobody's."""

    user: User | None
    audiences: tuple[str, ...] = ()
    error: str = ""


class Access:
    """Knows the users. They may be added and forgotten while the server runs, as tokens are issued and revoked."""

    def __init__(
        self,
        users: Iterable[settings.User],
        *,
        rbac: RoleBasedAccess | None = None,
        now: Callable[[], datetime],
    ) -> None:
        """`rbac` decides if it is given; `now` is the wall clock, for the dates of certificates."""
        self._users: dict[str, settings.User] = {}
        self._rules: dict[str, tuple[Rule, ...]] = {}
        self._rbac = rbac
        self._now = now
        self._guarded = rbac is not None
        for user in users:
            self.add(user)

    def add(self, user: settings.User) -> None:
        """From now on the token is this user's."""
        self._guarded = True
        self._rules[user.name] = user.rules
        if user.token:
            self._users[user.token] = user

    def forget(self, token: str) -> None:
        """From now on the token is nobody's."""
        self._users.pop(token, None)

    # -- who -------------------------------------------------------------------------------------------------

    def authenticate(self, authorization: str | None, certificate: PeerCertificate | None = None) -> User:
        """Who a certificate or the Authorization header names.

        Raises:
            Unauthorized: a token nobody has.
        """
        if not self._guarded:
            return ADMIN
        if certificate is not None:
            user = certificate_user(certificate, self._now().timestamp())
            if user is not None:
                return authenticated(user)
        token = _bearer_token(authorization)
        if not token:
            return ANONYMOUS
        found = self.token(token).user
        if found is None:
            raise Unauthorized("Unauthorized")
        return found

    def token(self, token: str, audiences: tuple[str, ...] = ()) -> TokenAnswer:
        """Whose a token is, for any of `audiences` (without any: for this server)."""
        known = self._users.get(token)
        if known is None:
            return TokenAnswer(None, error=INVALID_TOKEN)
        wanted = audiences or (API_AUDIENCE,)
        common = tuple(audience for audience in wanted if audience in known.audiences)
        if not common:
            has, wants = " ".join(map(_go, known.audiences)), " ".join(map(_go, wanted))
            return TokenAnswer(
                None,
                error=f"[{INVALID_TOKEN}, token audiences [{has}] is invalid for the target audiences [{wants}]]",
            )
        return TokenAnswer(authenticated(User(known.name, known.uid, known.groups, known.extra)), common)

    def act_as(self, user: User, fields: Iterable[tuple[str, str]]) -> User:
        """The user a request is answered as: whom its headers (lower-case names) impersonate, or `user`.

        Raises:
            BadRequest: it impersonates groups or extra without a user.
            Forbidden: `user` may not impersonate all of that.
        """
        wanted = impersonation_asked(fields)
        if wanted is None:
            return user
        for check in impersonation_checks(wanted):
            self.authorize(user, check)
        return impersonated(wanted)

    # -- whether ---------------------------------------------------------------------------------------------

    def authorize(self, user: User, attributes: Attributes) -> None:
        """Checks a request.

        Raises:
            Forbidden: nothing allows it.
        """
        verdict = self.verdict(user, attributes)
        if not verdict.allowed:
            raise forbidden(user, attributes, verdict.reason)

    def verdict(self, user: User, attributes: Attributes) -> Verdict:
        """Whether somebody may do something, and why."""
        if not self._guarded:
            return Verdict(allowed=True)
        if self._rbac is not None:
            return self._rbac.verdict(user, attributes)
        rules = self._rules.get(user.name, ())
        if attributes.resource:
            return Verdict(_self_review(user, attributes) or any(_allows(rule, attributes) for rule in rules))
        open_ = attributes.path.startswith(_OPEN)
        known = not user.anonymous and attributes.path.startswith(_DISCOVERY)
        return Verdict(open_ or known or any("*" in rule.resources and "*" in rule.verbs for rule in rules))


def _bearer_token(authorization: str | None) -> str:
    parts = (authorization or "").strip().split(" ", 2)
    return parts[1] if len(parts) > 1 and parts[0].lower() == "bearer" else ""


def _self_review(user: User, attributes: Attributes) -> bool:
    return (
        not user.anonymous
        and attributes.verb == "create"
        and attributes.group in SELF_REVIEWS
        and attributes.resource.startswith("self")
    )


def _allows(rule: Rule, attributes: Attributes) -> bool:
    """Whether a rule covers the request."""
    return (
        _covers(rule.verbs, attributes.verb)
        and _covers(rule.groups, attributes.group)
        and _covers(rule.resources, attributes.combined)
        and ("*" in rule.namespaces or attributes.namespace in rule.namespaces)
    )


def _covers(allowed: tuple[str, ...], wanted: str) -> bool:
    return "*" in allowed or wanted in allowed


def _go(text: str) -> str:
    return f'"{text}"'
