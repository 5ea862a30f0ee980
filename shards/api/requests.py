"""What is asked of the API server, as values, and what the head of its answer means. Pure.

Every request Shoal makes is built here, so that the parameters of a LIST or WATCH are in one place and can be
tested without a connection. Nothing here knows when to ask (`watch.protocol`) or how (`api.client`).

The parameters are those of the API concepts page,
https://kubernetes.io/docs/reference/using-api/api-concepts/: a LIST whose objects are taken never carries a resource
version, so it is a consistent read and can never be older than what is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, urlencode

import msgspec

from ..model.errors import Upstream
from ..model.partitions import ExceptNamespaces, HashRange, OneNamespace, Partition
from ..model.refs import Key, ref_of
from ..model.resources import Resource
from ..model.versions import UNKNOWN, Version

Pairs: TypeAlias = tuple[tuple[str, str], ...]

JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io, application/json"
"""Accept of a list of metadata alone; an aggregated server that does not know the form answers the objects."""
METADATA_OF_ONE = METADATA.replace("PartialObjectMetadataList", "PartialObjectMetadata")
DISCOVERY_V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
"""Accept of an aggregated discovery document; servers before 1.27 answer the legacy form instead."""

GATEWAY_HEADER = "shoal-frontier"
"""An answer that carries it comes from Shoal's gateway."""

EXCERPT_CHARS = 300
"""Of an error answer that is not a Status: enough for "404 page not found" and the first line of a proxy's
page."""


class ApiRequest(msgspec.Struct, frozen=True):
    """One request, without where it goes and who sends it: the connection adds both."""

    method: str
    path: str
    query: Pairs = ()
    headers: Pairs = (("Accept", JSON),)
    body: bytes = b""
    stream: bool = False
    """The answer has no end of its own: no time limit between its bytes is set by the connection."""

    @property
    def target(self) -> str:
        """Path and query as they stand in the request line."""
        path = quote(self.path, safe="/:@!$&'()*+,;=-._~")
        return f"{path}?{urlencode(self.query, quote_via=quote)}" if self.query else path


def list_request(
    partition: Partition,
    *,
    limit: int | None = None,
    continue_token: str = "",
    not_older_than: Version = UNKNOWN,
) -> ApiRequest:
    """A consistent LIST of a partition, or one page of it; with `not_older_than` any state that has reached it.

    The continue token does not carry the selectors, so they are sent with every page.
    """
    query = list(_cover_query(partition))
    if not_older_than != UNKNOWN:
        query += [("resourceVersion", str(not_older_than)), ("resourceVersionMatch", "NotOlderThan")]
    if limit is not None:
        query.append(("limit", str(limit)))
    if continue_token:
        query.append(("continue", continue_token))
    return ApiRequest("GET", _collection_path(partition), tuple(query))


def identity_list_request(partition: Partition, *, limit: int, continue_token: str = "") -> ApiRequest:
    """One page of a consistent LIST of a partition, metadata alone."""
    return _of_metadata(list_request(partition, limit=limit, continue_token=continue_token))


def identity_request(resource: Resource, key: Key) -> ApiRequest:
    """A consistent LIST of one object, metadata alone: unlike a GET it says at which version it is not there."""
    namespace, name = ref_of(key)
    query = (("fieldSelector", f"metadata.name={name}"), ("limit", "1"))
    return _of_metadata(ApiRequest("GET", resource.path(namespace or None), query))


def metadata_request(resource: Resource, key: Key) -> ApiRequest:
    """A GET of one object, metadata alone."""
    namespace, name = ref_of(key)
    return ApiRequest("GET", resource.path(namespace or None, name), headers=(("Accept", METADATA_OF_ONE),))


def _of_metadata(request: ApiRequest) -> ApiRequest:
    return msgspec.structs.replace(request, headers=(("Accept", METADATA),))


def streaming_list_request(partition: Partition, *, timeout_s: int) -> ApiRequest:
    """A WATCH that begins with everything there is (KEP-3157). Without a version it is as new as a LIST."""
    query = (
        ("watch", "1"),
        ("sendInitialEvents", "true"),
        ("resourceVersionMatch", "NotOlderThan"),
        ("allowWatchBookmarks", "true"),
        ("timeoutSeconds", str(timeout_s)),
    )
    return ApiRequest("GET", _collection_path(partition), (*query, *_cover_query(partition)), stream=True)


def watch_request(partition: Partition, *, version: Version, timeout_s: int) -> ApiRequest:
    """A WATCH of everything that changed after `version`."""
    query = (
        ("watch", "1"),
        ("resourceVersion", str(version)),
        ("allowWatchBookmarks", "true"),
        ("timeoutSeconds", str(timeout_s)),
    )
    return ApiRequest("GET", _collection_path(partition), (*query, *_cover_query(partition)), stream=True)


def document_request(path: str, *, accept: str = JSON, etag: str = "") -> ApiRequest:
    """A document that is not an object: discovery, ``/version``. With `etag`, 304 if it is unchanged."""
    conditional = (("If-None-Match", etag),) if etag else ()
    return ApiRequest("GET", path, headers=(("Accept", accept), *conditional))


def _collection_path(partition: Partition) -> str:
    match partition.cover:
        case OneNamespace(namespace=namespace) | HashRange(namespace=str(namespace)):
            return partition.resource.path(namespace)
        case _:
            return partition.resource.path()


def _cover_query(partition: Partition) -> Pairs:
    """What the path does not say. A server may ignore a ``shardSelector``, so what arrives is checked."""
    match partition.cover:
        case ExceptNamespaces(namespaces=carved):
            return _except_query(carved)
        case HashRange(excluded=carved) as part:
            return (*_except_query(carved), ("shardSelector", part.selector))
        case _:
            return ()


def _except_query(carved: tuple[str, ...]) -> Pairs:
    return (("fieldSelector", ",".join(f"metadata.namespace!={name}" for name in carved)),) if carved else ()


# -- what an answer means ------------------------------------------------------------------------------------

Meaning = Literal[
    "ok",
    "expired",
    "vanished",
    "unsupported",
    "unauthorized",
    "forbidden",
    "overloaded",
    "failed",
]
"""What a follower does about a status, be it of an answer or inside an ERROR line:

========== ===================== ===========================================================
ok         200                   go on
expired    410                   the version or token is forgotten: list afresh
vanished   404                   no such resource (any more)
unsupported other 4xx            this form of the question is not understood
unauthorized, forbidden 401, 403 only a person changes the answer: ask slowly
overloaded 429, 503              later, as Retry-After says
failed     everything else       later
========== ===================== ===========================================================
"""

_MEANINGS: Mapping[int, Meaning] = {
    401: "unauthorized",
    403: "forbidden",
    404: "vanished",
    408: "failed",
    410: "expired",
    429: "overloaded",
    503: "overloaded",
}


def meaning(status: int) -> Meaning:
    """What a follower does about an HTTP status or the code of a Status."""
    if 200 <= status < 300:
        return "ok"
    known = _MEANINGS.get(status)
    if known is not None:
        return known
    return "unsupported" if 400 <= status < 500 else "failed"


class Refusal(msgspec.Struct, frozen=True):
    """An answer that is not the one asked for."""

    status: int
    message: str
    """The Status message, or the beginning of whatever the body was."""
    reason: str = ""
    """The Status reason; empty if there was none."""
    retry_after_s: float | None = None
    document: Mapping[str, Any] | None = None
    """The Status, if the body was one."""

    @property
    def meaning(self) -> Meaning:
        """What to do about it."""
        return meaning(self.status)

    @property
    def label(self) -> str:
        """What counters call it."""
        match self.meaning:
            case "unauthorized" | "forbidden" | "overloaded" | "expired" as name:
                return name
            case _:
                return f"http_{self.status}"


class _Status(msgspec.Struct):
    kind: str = ""
    message: str = ""
    reason: str = ""


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """Reads an error answer; `headers` have lower-case names. Never fails: the body may be anything."""
    document: dict[str, Any] | None = None
    message = body[: 4 * EXCERPT_CHARS].decode("utf-8", "replace").strip()[:EXCERPT_CHARS]
    reason = ""
    try:
        parsed = msgspec.json.decode(body, type=_Status)
        if parsed.kind == "Status":
            document = msgspec.json.decode(body)
            message, reason = parsed.message or message, parsed.reason
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # a proxy's page, or "404 page not found": the excerpt says it
    return Refusal(status, message or f"HTTP {status}", reason, retry_after(headers), document)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds a Retry-After header asks for, or None.

    Only the form in seconds, which is what kube-apiserver and its proxies send; a date is taken as absent,
    and the caller's own backoff applies.
    """
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def upstream_error(request: ApiRequest, refused: Refusal) -> Upstream:
    """The error for a request that was refused and is not asked again."""
    seconds = refused.retry_after_s
    return Upstream(
        f"the API server answered {request.method} {request.target} with {refused.status}: {refused.message}",
        http_status=refused.status,
        upstream_status=refused.document,
        retry_after_s=None if seconds is None else int(seconds),
    )
