"""Which form of an answer the Accept header asks for: JSON or YAML, whole objects, metadata only, or a Table.

The rules are kube-apiserver's (``apiserver/pkg/endpoints/handlers/negotiation``): clauses are ordered by
their quality and, among equals, wildcards last; the first one that can be served wins; one that asks for a
transformation or parameter value the server does not have is passed over, not an error. A header that leaves
nothing is 406. Protobuf is not served here: a client that lists it before JSON gets JSON, as from a server
for custom resources.

Pure. Rendering is in `documents`, `tables` and `discovery`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from ...shards.model.errors import BadRequest, NotAcceptable
from ...shards.model.selector_tests import echoed

Media: TypeAlias = Literal["application/json", "application/yaml"]
Conversion: TypeAlias = Literal["", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"]
MetaVersion: TypeAlias = Literal["v1", "v1beta1"]
IncludeObject: TypeAlias = Literal["Metadata", "Object", "None"]
DiscoveryForm: TypeAlias = Literal["v2", "v2beta1", "legacy"]

MEDIA: tuple[Media, ...] = ("application/json", "application/yaml")

NOT_ACCEPTABLE = (
    "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, "
    "application/vnd.kubernetes.protobuf, application/json;stream=watch, "
    "application/vnd.kubernetes.protobuf;stream=watch"
)
"""kube-apiserver's text, protobuf included: clients and the conformance suite compare it."""

ACCEPT_CHARS_MAX = 8 << 10
"""A longer Accept header is not read and leaves nothing, so it is 406; client-go's longest has some 200."""
_CONVERSIONS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
"""What Go's ``strconv.ParseBool`` takes for true."""
_READ_BY_PEOPLE = ("curl", "Wget", "Mozilla/5.0")
_INCLUDE = ("Metadata", "Object", "None")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The form agreed on."""

    media: Media = "application/json"
    convert: Conversion = ""
    """Empty: whole objects."""
    include_object: IncludeObject = "Metadata"
    """What a Table's rows carry besides their cells; of no meaning for the other forms."""
    meta_version: MetaVersion = "v1"
    """Version of meta.k8s.io in which `convert` was asked for."""
    pretty: bool = False
    """Indented JSON."""
    stream: str = ""
    """The streaming schema the clause named: ``watch`` or empty."""

    @property
    def content_type(self) -> str:
        """For the Content-Type header, which repeats the stream parameter and nothing else."""
        return f"{self.media};stream={self.stream}" if self.stream else self.media

    def require(self, *, is_list: bool) -> None:
        """Checks the conversion against what is answered: one object (also each event of a watch) or a list.

        Raises:
            NotAcceptable: the metadata of an object was asked of a list, or the reverse.
        """
        if is_list and self.convert == "PartialObjectMetadata":
            raise NotAcceptable("you requested PartialObjectMetadata, but the requested object is a list")
        if not is_list and self.convert == "PartialObjectMetadataList":
            raise NotAcceptable(
                "you requested PartialObjectMetadataList, but the requested object is not a list"
            )


def negotiate(
    accept: str | None, *, stream: bool = False, include_object: str = "", pretty: bool = False
) -> Accepted:
    """Chooses the form of an object, list or watch.

    Args:
        accept: the Accept header; None or empty takes JSON.
        stream: the request is a watch; YAML has no streaming form.
        include_object: the ``includeObject`` parameter, checked when a Table is chosen.
        pretty: the ``pretty`` parameter.

    Raises:
        NotAcceptable: no clause can be served.
        BadRequest: `include_object` is none of the policies.
    """
    for clause in _clauses(accept):
        for media in MEDIA:
            if not clause.names(media) or (stream and media == "application/yaml"):
                continue
            accepted = _take(clause.parameters, media, include_object=include_object, pretty=pretty)
            if accepted is not None:
                return accepted
    raise NotAcceptable(NOT_ACCEPTABLE)


def negotiate_discovery(accept: str | None) -> DiscoveryForm:
    """Chooses aggregated discovery or the legacy form.

    Raises:
        NotAcceptable: no clause can be served.
    """
    for clause in _clauses(accept):
        for media in MEDIA:
            if not clause.names(media):
                continue
            asked = _asked(clause.parameters)
            if not any(asked):
                return "legacy"
            if media != "application/json":
                continue
            match asked:
                case ("apidiscovery.k8s.io", ("v2" | "v2beta1") as version, "APIGroupDiscoveryList"):
                    return version
                case _:
                    continue
    raise NotAcceptable(NOT_ACCEPTABLE)


def negotiate_document(accept: str | None, *, pretty: bool = False) -> Accepted:
    """Chooses the form of a document that is no object: legacy discovery.

    Raises:
        NotAcceptable: no clause can be served.
    """
    for clause in _clauses(accept):
        for media in MEDIA:
            if clause.names(media) and not any(_asked(clause.parameters)):
                return Accepted(media=media, pretty=pretty or clause.parameters.get("pretty") == "1")
    raise NotAcceptable(NOT_ACCEPTABLE)


def discovery_content_type(form: DiscoveryForm) -> str:
    """The Content-Type of a discovery answer in this form."""
    if form == "legacy":
        return "application/json"
    return f"application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList"


def wants_pretty(parameter: str | None, user_agent: str | None) -> bool:
    """Whether indented JSON is wanted: the ``pretty`` parameter says so, or, where there is none, the client is one
    that people look at answers with.
    """
    if parameter:
        return parameter in _TRUE
    return (user_agent or "").startswith(_READ_BY_PEOPLE)


def preferred_media(accept: str | None, offered: Iterable[str]) -> str | None:
    """The first of the media types offered that the header likes best; None if it takes none of them."""
    choices = tuple(offered)
    for clause in _clauses(accept):
        for media in choices:
            if clause.names(media):
                return media
    return None


def etag_matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this ETag, weakly compared; quotes around `etag` are of no matter."""
    if not if_none_match or len(if_none_match) > ACCEPT_CHARS_MAX:
        return False
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(",")}
    return etag.strip('"') in tags or "*" in tags


# -- clauses --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Clause:
    media_type: str
    subtype: str
    quality: float
    parameters: Mapping[str, str]

    def names(self, media: str) -> bool:
        media_type, _, subtype = media.partition("/")
        if self.media_type == "*":
            return self.subtype == "*"
        return self.media_type == media_type and self.subtype in (subtype, "*")

    @property
    def rank(self) -> tuple[float, bool, bool]:
        return (-self.quality, self.media_type == "*", self.subtype == "*")


def _clauses(accept: str | None) -> list[_Clause]:
    """The clauses of the header in the order they are tried; a stable sort keeps the order of equals."""
    return sorted(_parse(accept or "*/*"), key=lambda clause: clause.rank)


def _parse(accept: str) -> Iterator[_Clause]:
    if len(accept) > ACCEPT_CHARS_MAX:
        return
    for part in accept.split(","):
        media_range, *parameters = part.split(";")
        media_type, slash, subtype = media_range.strip().partition("/")
        if not slash:
            if media_type != "*":
                continue  # not a media range: the API server skips it as well
            subtype = "*"
        pairs = {
            key.strip(): value.strip()
            for key, equals, value in (p.partition("=") for p in parameters)
            if equals
        }
        yield _Clause(media_type.strip(), subtype.strip(), _quality(pairs.pop("q", "1")), pairs)


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _asked(parameters: Mapping[str, str]) -> tuple[str, str, str]:
    return parameters.get("g", ""), parameters.get("v", ""), parameters.get("as", "")


def _take(
    parameters: Mapping[str, str], media: Media, *, include_object: str, pretty: bool
) -> Accepted | None:
    """What this clause makes of the media type; None if it asks for something there is not."""
    streaming = parameters.get("stream", "")
    if streaming not in ("", "watch") or (streaming and media == "application/yaml"):
        return None
    pretty = pretty or parameters.get("pretty") == "1"
    group, version, kind = _asked(parameters)
    if not (group or version or kind):
        return Accepted(media=media, pretty=pretty, stream=streaming)
    if group != "meta.k8s.io" or version not in ("v1", "v1beta1") or kind not in _CONVERSIONS:
        return None
    if include_object and kind == "Table" and include_object not in _INCLUDE:
        raise BadRequest(f"unrecognized includeObject value: {echoed(include_object)!r}")
    return Accepted(
        media=media,
        convert=cast("Conversion", kind),
        include_object=cast("IncludeObject", include_object or "Metadata"),
        meta_version=cast("MetaVersion", version),
        pretty=pretty,
        stream=streaming,
    )
