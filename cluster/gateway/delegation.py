"""Whether Shoal itself may ask who somebody is and what they may: TokenReviews and SubjectAccessReviews.

The API server is asked (``SelfSubjectAccessReview``) when somebody looks at readiness: again after `LACKING_LIFE_S`
while the permission is lacking, because it can be granted at any time, and after `GRANTED_LIFE_S` otherwise. A gateway
that lacks it answers nobody, so it is not ready; the sentence says what to apply. An API server that does not answer
says nothing about permissions: that is no problem here.

The permission is that of the cluster role ``system:auth-delegator``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, TypeVar

import msgspec

from ...shards.api.client import ApiConnection, fetch
from ...shards.api.requests import JSON, ApiRequest
from ...shards.model.errors import Garbage, ShoalError
from .settings import AuthenticationSettings
from .verdicts import Verdicts

log = logging.getLogger("shoal.cluster.gateway.delegation")

LACKING_LIFE_S: Final = 3.0
GRANTED_LIFE_S: Final = 60.0
TIMEOUT_S: Final = 2.0
"""Of the question: readiness is not to wait for an API server that is away."""
MAY_I = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
WHO_AM_I = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_HEADERS = (("Accept", JSON), ("Content-Type", JSON))
_TOKENS = ("authentication.k8s.io", "tokenreviews")
_ACCESS = ("authorization.k8s.io", "subjectaccessreviews")
_SERVICE_ACCOUNT = "system:serviceaccount:"


class _Finding(msgspec.Struct, frozen=True):
    problem: str = ""

    @property
    def good(self) -> bool:
        return not self.problem


class _Allowed(msgspec.Struct):
    allowed: bool = False


class _MayI(msgspec.Struct):
    status: _Allowed


class _UserInfo(msgspec.Struct):
    username: str = ""


class _Known(msgspec.Struct, rename="camel"):
    user_info: _UserInfo


class _WhoAmI(msgspec.Struct):
    status: _Known


_Review = TypeVar("_Review", _MayI, _WhoAmI)


class Delegation:
    """Asks over a connection that is Shoal's own."""

    def __init__(self, connection: ApiConnection, settings: AuthenticationSettings) -> None:
        self._connection = connection
        self._needed = (_TOKENS, _ACCESS) if settings.tokens else (_ACCESS,)
        self._findings: Verdicts[str, _Finding] = Verdicts(
            "Shoal's own permissions",
            good_life_s=GRANTED_LIFE_S,
            bad_life_s=LACKING_LIFE_S,
            remembered=1,
            at_once=1,
            waiting=0,
            timeout_s=TIMEOUT_S,
        )

    async def problem(self) -> str:
        """What Shoal may not, and what to apply; empty if it may, or if nobody can say."""
        try:
            return (await self._findings.of("ours", self._ask)).problem
        except ShoalError:
            return ""

    async def aclose(self) -> None:
        """Ends what is being asked."""
        await self._findings.aclose()

    async def _ask(self) -> _Finding:
        answers = await asyncio.gather(*(self._may(group, resource) for group, resource in self._needed))
        lacking = [
            f"{resource}.{group}"
            for (group, resource), allowed in zip(self._needed, answers, strict=True)
            if not allowed
        ]
        if not lacking:
            return _Finding()
        name = await self._name()
        log.warning("shoal may not review", extra={"user": name, "lacking": lacking})
        return _Finding(
            f"{f'Shoal, which is {name} to the API server,' if name else 'Shoal'} may not create "
            f"{' and '.join(lacking)}, so nobody can be let in: {_grant(name)}"
        )

    async def _may(self, group: str, resource: str) -> bool:
        attributes = {"verb": "create", "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        return (await self._post(MAY_I, review, _MayI)).status.allowed

    async def _name(self) -> str:
        """Who Shoal is to the API server; empty where it does not say (before 1.28)."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            return (await self._post(WHO_AM_I, review, _WhoAmI)).status.user_info.username
        except ShoalError:
            return ""

    async def _post(self, path: str, document: dict[str, Any], kind: type[_Review]) -> _Review:
        request = ApiRequest("POST", path, headers=_HEADERS, body=msgspec.json.encode(document))
        _, body = await fetch(self._connection, request)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise Garbage(f"the answer to {path} is no review: {error}") from error


def _grant(name: str) -> str:
    """The command that grants it."""
    if name.startswith(_SERVICE_ACCOUNT):
        subject = f"--serviceaccount={name.removeprefix(_SERVICE_ACCOUNT)}"
    else:
        subject = f"--user={name or 'NAME'}"
    return f"kubectl create clusterrolebinding shoal-reviews --clusterrole=system:auth-delegator {subject}"
