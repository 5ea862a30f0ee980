"""Who asks, and whether they may: bearer tokens and allow rules, in place of authentication and RBAC.
Pure.

Off unless the settings name users. On, a request without token is ``system:anonymous``, who may read the
health and version endpoints and nothing else; an unknown token is 401 and what no rule allows is 403,
both with the API server's texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...shards.model.errors import Forbidden, Unauthorized
from ..serving.paths import ResourcePath
from .settings import Rule, User

ANONYMOUS = User(name="system:anonymous", token="", groups=("system:unauthenticated",), rules=())
ADMIN = User(name="system:admin", token="", groups=("system:masters",))
SELF_REVIEWS = ("authentication.k8s.io", "authorization.k8s.io")
"""Groups whose ``self…`` reviews everybody known may create (``system:basic-user``)."""
_OPEN = ("/version", "/healthz", "/livez", "/readyz")
_DISCOVERY = ("/api", "/openapi")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request is about."""

    verb: str
    resource: ResourcePath

    @property
    def name(self) -> str:
        """The resource as rules name it: with its subresource."""
        sub = self.resource.subresource
        return f"{self.resource.resource}/{sub}" if sub else self.resource.resource


class Access:
    """Knows the users."""

    def __init__(self, users: Iterable[User]) -> None:
        self._users = {user.token: user for user in users}

    def authenticate(self, authorization: str | None) -> User:
        """Who the Authorization header names.

        Raises:
            Unauthorized: a token nobody has.
        """
        if not self._users:
            return ADMIN
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return ANONYMOUS
        user = self._users.get(token.strip())
        if user is None:
            raise Unauthorized("Unauthorized")
        return user

    def authorize(self, user: User, attributes: Attributes) -> None:
        """Checks a request for a resource.

        Raises:
            Forbidden: no rule allows it.
        """
        if allows(user.rules, attributes):
            return
        resource = attributes.resource
        scope = f'in the namespace "{resource.namespace}"' if resource.namespace else "at the cluster scope"
        qualified = resource.identity.qualified_name
        named = f' "{resource.name}"' if resource.name else ""
        found = {"name": resource.name or "", "group": resource.group, "kind": resource.resource}
        raise Forbidden(
            f'{qualified}{named} is forbidden: User "{user.name}" cannot {attributes.verb} resource '
            f'"{attributes.name}" in API group "{resource.group}" {scope}',
            details={key: value for key, value in found.items() if value},
        )

    def authorize_path(self, user: User, verb: str, path: str) -> None:
        """Checks a request for anything that is not a resource.

        Raises:
            Forbidden: only health and version are open to everybody, discovery to everybody known.
        """
        if path.startswith(_OPEN) or (user is not ANONYMOUS and path.startswith(_DISCOVERY)):
            return
        if any("*" in rule.resources and "*" in rule.verbs for rule in user.rules):
            return
        raise Forbidden(f'forbidden: User "{user.name}" cannot {verb} path "{path}"', details={})


def allows(rules: Iterable[Rule], attributes: Attributes) -> bool:
    """Whether one of the rules covers the request."""
    resource = attributes.resource
    return any(
        _covers(rule.verbs, attributes.verb)
        and _covers(rule.groups, resource.group)
        and _covers(rule.resources, attributes.name)
        and ("*" in rule.namespaces or (resource.namespace or "") in rule.namespaces)
        for rule in rules
    )


def _covers(allowed: tuple[str, ...], wanted: str) -> bool:
    return "*" in allowed or wanted in allowed
