"""Questions people ask about themselves: ``kubectl auth can-i`` and ``kubectl auth whoami``.

``SelfSubjectAccessReview`` (``authorization.k8s.io/v1``) and ``SelfSubjectReview`` (``authentication.k8s.io/v1``) are
POSTs that write nothing, so they are answered here in every mode: about the user the gateway found, impersonation
included, and about what this gateway would do. Reading is the API server's verdict (`Authorization`). So is writing
where writes are forwarded; where they are refused nobody may, whatever the API server would say.

A gateway that asks nobody who they are lets everybody read. What such a one forwards is done as whoever the caller's
own credentials say, so who that is, and whether they may write, is forwarded too.

Bodies are JSON, or protobuf as kubectl sends it, and bounded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import msgspec

from ...shards.model.errors import BadRequest, UnsupportedMediaType
from ...shards.model.resources import Resource, ResourceType
from ..serving.documents import encode, present
from ..serving.identity import Attributes
from ..serving.negotiation import negotiate_document, wants_pretty
from ..serving.paths import RequestPath, ResourcePath
from ..serving.protobuf import MEDIA_TYPE, decode_protobuf
from ..serving.review_documents import AccessSpec, user_document
from .asked import Asked
from .authorization import Authorization
from .http import JSON, Answer, Message, Receive, Request
from .reviews import AccessVerdict
from .writing import Forwarder, read_body

ACCESS: Final = ResourceType(
    resource=Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    kind="SelfSubjectAccessReview",
    namespaced=False,
    singular="selfsubjectaccessreview",
    verbs=("create",),
)
IDENTITY: Final = ResourceType(
    resource=Resource("authentication.k8s.io", "v1", "selfsubjectreviews"),
    kind="SelfSubjectReview",
    namespaced=False,
    singular="selfsubjectreview",
    verbs=("create",),
)
SELF_REVIEWS: Final = (ACCESS, IDENTITY)
"""What is answered here; discovery lists it."""
READ_ONLY: Final = "Shoal is read-only"
BODY_BYTES_MAX: Final = 64 << 10
BODY_TIMEOUT_S: Final = 10.0
_RESOURCE_READS: Final = frozenset({"get", "list", "watch"})
_PATH_READS: Final = frozenset({"get", "head", "options"})


class _Review(msgspec.Struct):
    spec: AccessSpec = msgspec.field(default_factory=AccessSpec)


class SelfReviews:
    """Answers the two reviews."""

    def __init__(self, authorization: Authorization, *, asks: bool, forwarder: Forwarder | None) -> None:
        """`asks`: people are asked who they are; without `forwarder` writes are refused."""
        self._authorization = authorization
        self._asks = asks
        self._forwarder = forwarder

    def takes(self, request: Request, path: RequestPath) -> bool:
        """Whether a request is one of the two."""
        return request.method == "POST" and _asked_for(path) is not None

    async def answer(self, asked: Asked) -> None:
        """Answers a request that is taken.

        Raises:
            BadRequest, Invalid, UnsupportedMediaType: the body is no such review, or asks nothing.
            RequestTooLarge, ClientLeft, TimedOut: it did not come whole.
            NotReady, TooManyRequests: as `Authorization.verdict`.
            ShoalError: as `Forwarder.forward`.
        """
        review = _asked_for(asked.path)
        assert review is not None
        asked.exchange.verb = "review"
        body = await read_body(asked.request, asked.client.receive, BODY_BYTES_MAX, BODY_TIMEOUT_S)
        document = _decoded(body, asked.request.headers.get("content-type", ""), review)
        status: dict[str, Any]
        if review is IDENTITY:
            if self._forwarder is not None and not self._asks:
                await self._forward(self._forwarder, asked, body)
                return
            status = {"userInfo": user_document(asked.user)}
        else:
            attributes = _question(document)
            if self._forwarder is not None and not self._asks and not _reads(attributes):
                await self._forward(self._forwarder, asked, body)
                return
            verdict = await self._verdict(asked, attributes)
            status = {"allowed": verdict.allowed} | ({"reason": verdict.reason} if verdict.reason else {})
        await asked.exchange.send(_answer(asked.request, {**document, "status": status}))

    async def _verdict(self, asked: Asked, attributes: Attributes) -> AccessVerdict:
        if self._forwarder is None and not _reads(attributes):
            return AccessVerdict(allowed=False, reason=READ_ONLY)
        if not self._asks:
            return AccessVerdict(allowed=True)
        return await self._authorization.verdict(asked.user, attributes)

    async def _forward(self, forwarder: Forwarder, asked: Asked, body: bytes) -> None:
        client = replace(asked.client, receive=_again(body, asked.client.receive))
        try:
            await forwarder.forward(replace(asked, client=client))
        finally:
            asked.exchange.resource = ""  # it is none that is followed


def _asked_for(path: RequestPath) -> ResourceType | None:
    if not isinstance(path, ResourcePath) or path.namespace or path.name or path.watching:
        return None
    return next((review for review in SELF_REVIEWS if review.resource == path.identity), None)


def _decoded(body: bytes, content_type: str, review: ResourceType) -> dict[str, Any]:
    """The document of a review, with its kind and version in front.

    Raises:
        BadRequest: not one.
        UnsupportedMediaType: neither JSON nor protobuf.
    """
    media = content_type.partition(";")[0].strip().lower() or JSON
    document: dict[str, Any]
    if media == MEDIA_TYPE:
        document = decode_protobuf(body)
    elif media == JSON:
        try:
            document = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body is no {review.kind} in JSON: {error}") from error
    else:
        raise UnsupportedMediaType(
            f"a review is read as {JSON} or {MEDIA_TYPE}; the Content-Type of this one is another"
        )
    head = {"kind": review.kind, "apiVersion": review.resource.api_version}
    for key, wanted in head.items():
        if document.get(key, wanted) != wanted:
            raise BadRequest(f"the {key} of the body is not {wanted}, which is what this path takes")
    return {**head, "metadata": {}, **document}


def _question(document: dict[str, Any]) -> Attributes:
    """What is asked. Raises BadRequest or Invalid."""
    try:
        spec = msgspec.convert(document, _Review).spec
    except msgspec.ValidationError as error:
        raise BadRequest(f"the body is no {ACCESS.kind}: {error}") from error
    return spec.attributes(ACCESS.kind)


def _reads(attributes: Attributes) -> bool:
    return attributes.verb in (_PATH_READS if attributes.path else _RESOURCE_READS)


def _answer(request: Request, document: dict[str, Any]) -> Answer:
    pretty = wants_pretty(request.parameter("pretty"), request.headers.get("user-agent"))
    accepted = negotiate_document(request.headers.get("accept"), pretty=pretty)
    return Answer(201, accepted.content_type, present(encode(document), accepted))


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` with the body once more in front of what is still to come."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
