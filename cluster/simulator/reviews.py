"""Reviews: who has this token, who am I, may they, may I. Answered as they are created; nothing is stored.

``TokenReview``, ``SelfSubjectReview``, ``SubjectAccessReview``, ``LocalSubjectAccessReview`` and
``SelfSubjectAccessReview``; ``SelfSubjectRulesReview`` is not, and is refused. The answers are those by which the
server itself decides (`access`). Sources: ``pkg/registry/authentication`` and ``pkg/registry/authorization``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...shards.model.errors import BadRequest, Invalid, NotFound
from ..serving.identity import Attributes, User
from ..serving.paths import ResourcePath
from ..serving.review_documents import AccessSpec, user_document
from .access import Access
from .objects import Document
from .rbac import Verdict

GROUPS = ("authentication.k8s.io", "authorization.k8s.io")
"""Everything in them is a review."""


class _Spec(AccessSpec, rename="camel"):
    token: str = ""
    audiences: tuple[str, ...] | None = None
    user: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: dict[str, tuple[str, ...]] | None = None


class _Review(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


def review(path: ResourcePath, kind: str, document: Document, user: User, access: Access) -> Document:
    """The document with its ``status``; `user` is who asks.

    Raises:
        BadRequest: not such a review, or one of an empty token.
        Invalid: it asks nothing, or several things.
        NotFound: a review that is not answered here.
    """
    try:
        spec = msgspec.convert(document, _Review).spec
    except msgspec.ValidationError as error:
        raise BadRequest(f"not a {kind}: {error}") from error
    status: dict[str, Any]
    match path.resource:
        case "selfsubjectreviews":
            status = {"userInfo": user_document(user)}
        case "tokenreviews":
            status = _token_status(spec, access)
        case "selfsubjectaccessreviews":
            status = _access_status(access.verdict(user, spec.attributes(kind)))
        case "subjectaccessreviews" | "localsubjectaccessreviews":
            status = _access_status(access.verdict(_subject(spec, kind), _local(path, spec, kind)))
        case _:
            raise NotFound("the server could not find the requested resource", details={})
    return {**document, "status": status}


def _subject(spec: _Spec, kind: str) -> User:
    if not spec.user and not spec.groups:
        raise Invalid(
            f'{kind}.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group '
            "must be specified"
        )
    return User(spec.user, spec.uid, spec.groups or (), spec.extra or {})


def _local(path: ResourcePath, spec: _Spec, kind: str) -> Attributes:
    attributes = spec.attributes(kind)
    if path.resource == "localsubjectaccessreviews" and attributes.namespace != path.namespace:
        raise BadRequest(
            f'spec.resourceAttributes.namespace must match namespace: "{path.namespace or ""}" is not '
            f'"{attributes.namespace}"'
        )
    return attributes


def _token_status(spec: _Spec, access: Access) -> dict[str, Any]:
    if not spec.token:
        raise BadRequest("token is required for TokenReview in authentication")
    answer = access.token(spec.token, spec.audiences or ())
    if answer.user is None:
        return {"user": {}, "error": answer.error}
    return {"authenticated": True, "user": user_document(answer.user), "audiences": list(answer.audiences)}


def _access_status(verdict: Verdict) -> dict[str, Any]:
    return {"allowed": verdict.allowed} | ({"reason": verdict.reason} if verdict.reason else {})
