"""Questions to the API server about people: is this token somebody's, may this user do that.

`Reviewer` asks them (``TokenReview`` and ``SubjectAccessReview``, ``k8s.io/api/authentication/v1`` and
``authorization/v1``) with Shoal's own credentials and reads the answers; nothing is remembered here (`verdicts`)
and nothing decided. Whatever is not a clear answer is `NotReady`: nobody is let in because the API server is away,
overloaded, or does not let Shoal ask. No text made here holds a token, because none of the API server's is passed on
for a TokenReview.
"""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import msgspec

from ...shards.api.client import ApiConnection, fetch
from ...shards.api.requests import JSON, ApiRequest
from ...shards.model.errors import ConnectionFailed, NotReady, ShoalError, Upstream
from ...shards.model.selector_tests import echoed
from ..serving.identity import Attributes, User

log = logging.getLogger("shoal.cluster.gateway.reviews")

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_HEADERS = (("Accept", JSON), ("Content-Type", JSON))
_GRANT = "bind Shoal's identity to the cluster role system:auth-delegator"


class TokenVerdict(msgspec.Struct, frozen=True):
    """Whose token it is; None: nobody's, or not for us."""

    user: User | None

    @property
    def good(self) -> bool:
        """Whether it is somebody's."""
        return self.user is not None


class AccessVerdict(msgspec.Struct, frozen=True):
    """Whether somebody may do something."""

    allowed: bool
    reason: str = ""
    """What the authorizer says about it; of a refusal it goes into the message."""

    @property
    def good(self) -> bool:
        """Whether they may."""
        return self.allowed


class _UserInfo(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _UserInfo = msgspec.field(default_factory=_UserInfo)
    audiences: list[str] | None = None


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _AccessStatus(msgspec.Struct):
    allowed: bool = False
    denied: bool = False
    reason: str = ""


class _AccessReview(msgspec.Struct):
    status: _AccessStatus


_Review = TypeVar("_Review", _TokenReview, _AccessReview)


class Reviewer:
    """Asks over a connection that is Shoal's own."""

    def __init__(self, connection: ApiConnection, *, audiences: tuple[str, ...] = ()) -> None:
        self._connection = connection
        self._audiences = audiences
        self._problem = ""
        """What was logged last: a failure is logged once, not with every question."""

    async def token(self, token: str) -> TokenVerdict:
        """Whose token it is.

        Raises:
            NotReady: the API server gave no clear answer.
        """
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = self._audiences
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        status = (await self._ask(TOKEN_REVIEWS, review, _TokenReview)).status
        if not status.authenticated or not status.user.username:
            return TokenVerdict(None)
        # A server that knows nothing of audiences would have accepted any.
        if self._audiences and not set(self._audiences) & set(status.audiences or ()):
            return TokenVerdict(None)
        found = status.user
        extra = {key: tuple(values) for key, values in (found.extra or {}).items()}
        return TokenVerdict(User(found.username, found.uid, tuple(found.groups or ()), extra))

    async def access(self, user: User, attributes: Attributes) -> AccessVerdict:
        """Whether the user may.

        Raises:
            NotReady: the API server gave no clear answer.
        """
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": access_spec(user, attributes),
        }
        status = (await self._ask(ACCESS_REVIEWS, review, _AccessReview)).status
        return AccessVerdict(status.allowed and not status.denied, echoed(status.reason))

    async def _ask(self, path: str, review: dict[str, Any], kind: type[_Review]) -> _Review:
        request = ApiRequest("POST", path, headers=_HEADERS, body=msgspec.json.encode(review))
        try:
            answer = msgspec.json.decode(await self._fetch(request), type=kind)
        except Upstream as error:
            hint = f": {_GRANT}" if error.http_status in (401, 403) else ""
            why = f"it answered {error.http_status}{hint}"
        except msgspec.MsgspecError:
            why = "its answer is no review"
        except ShoalError as error:
            # NB: it names the API server's address, which is no business of somebody nobody knows yet.
            self._failed(path, error)
            why = "it cannot be reached, or does not answer; the gateway's log says more"
        else:
            self._problem = ""
            return answer
        raise NotReady(f"the API server cannot be asked by {path.rpartition('/')[2]}: {why}", retry_after_s=1)

    def _failed(self, path: str, error: ShoalError) -> None:
        if error.message != self._problem:
            self._problem = error.message
            log.warning("the API server cannot be asked", extra={"path": path, "problem": error.message})

    async def _fetch(self, request: ApiRequest) -> bytes:
        try:
            _, body = await fetch(self._connection, request)
        except ConnectionFailed:
            # A kept-alive connection may have been closed at the other end just now, and a question changes nothing.
            _, body = await fetch(self._connection, request)
        return body


def access_spec(user: User, attributes: Attributes) -> dict[str, Any]:
    """The ``spec`` of a SubjectAccessReview. Members without a value are left out, as Go's encoder does."""
    spec: dict[str, Any] = {"user": user.name}
    if attributes.resource:
        found: dict[str, Any] = {
            "verb": attributes.verb,
            "group": attributes.group,
            "version": attributes.version,
            "resource": attributes.resource,
            "subresource": attributes.subresource,
            "namespace": attributes.namespace,
            "name": attributes.name,
        }
        if attributes.field_selector:
            found["fieldSelector"] = {"rawSelector": attributes.field_selector}
        if attributes.label_selector:
            found["labelSelector"] = {"rawSelector": attributes.label_selector}
        spec["resourceAttributes"] = {key: value for key, value in found.items() if value}
    else:
        spec["nonResourceAttributes"] = {"path": attributes.path, "verb": attributes.verb}
    identity = {"groups": user.groups, "uid": user.uid, "extra": dict(user.extra)}
    return spec | {key: value for key, value in identity.items() if value}
