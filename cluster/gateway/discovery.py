"""Discovery as the gateway serves it: the followed resources, with the verbs it answers.

Documents are rendered once for each catalogue and kept until the coordinator publishes another one.
"""

from __future__ import annotations

from ...shards.model.resources import Resource, ResourceType
from ..query.routing import RouteIndex
from ..serving.discovery import DiscoveryDocuments
from ..serving.documents import present
from ..serving.negotiation import (
    discovery_content_type,
    etag_matches,
    negotiate_discovery,
    negotiate_document,
    wants_pretty,
)
from ..serving.paths import DiscoveryPath
from .http import Answer, Request, no_such_page
from .self_reviews import SELF_REVIEWS

VERBS = frozenset({"get", "list", "watch"})
"""What is answered here, besides reviews. Where writes are forwarded all verbs are, and subresources too."""


class Discovery:
    """Answers discovery requests from the newest catalogue."""

    def __init__(self, *, verbs: frozenset[str] | None = VERBS) -> None:
        self._verbs = verbs
        self._catalogue: tuple[ResourceType, ...] = ()
        self._documents = DiscoveryDocuments((), verbs=verbs, also=SELF_REVIEWS)
        self._groups: frozenset[tuple[str, str]] = frozenset()

    def answer(self, path: DiscoveryPath, request: Request, routes: RouteIndex) -> Answer:
        """The document a path names, or 404.

        Raises:
            NotAcceptable: it is asked for in a form there is not.
        """
        documents = self._current(routes)
        if path.version is None and path.group in (None, ""):
            form = negotiate_discovery(request.headers.get("accept"))
            if form != "legacy":
                body, etag = documents.aggregated(path.root, form)
                # Clients and proxies may keep it, as long as they ask whether it has changed.
                headers = (("Cache-Control", "public"), ("Etag", etag), ("Vary", "Accept"))
                if etag_matches(request.headers.get("if-none-match"), etag):
                    return Answer(304, discovery_content_type(form), headers=headers)
                return Answer(200, discovery_content_type(form), body, headers=headers)
            body = documents.groups() if path.root == "apis" else documents.api_versions(request.server)
            return _presented(body, request)
        body_or_none = _page(documents, path)
        if body_or_none is None:
            return no_such_page()
        return _presented(body_or_none, request)

    def serves(self, path: DiscoveryPath, routes: RouteIndex) -> bool:
        """Whether there is such a page."""
        documents = self._current(routes)
        return (path.version is None and path.group in (None, "")) or _page(documents, path) is not None

    def has_built_in(self, resource: Resource, routes: RouteIndex) -> bool:
        """Whether the group and version belong to kube-apiserver itself. There it answers an unknown resource
        with a Status; anywhere else, groups of custom resources included, with plain text.
        """
        self._current(routes)
        return resource.api_version == "v1" or (resource.group, resource.version) in self._groups

    def _current(self, routes: RouteIndex) -> DiscoveryDocuments:
        catalogue = routes.table.catalogue
        if catalogue is not self._catalogue and catalogue != self._catalogue:
            self._documents = DiscoveryDocuments(catalogue, verbs=self._verbs, also=SELF_REVIEWS)
            self._groups = frozenset(
                (known.resource.group, known.resource.version) for known in catalogue if not known.custom
            )
        self._catalogue = catalogue
        return self._documents


def _presented(body: bytes, request: Request) -> Answer:
    """A document of legacy discovery in the form the client accepts.

    Raises:
        NotAcceptable: there is no such form.
    """
    pretty = wants_pretty(request.parameter("pretty"), request.headers.get("user-agent"))
    accepted = negotiate_document(request.headers.get("accept"), pretty=pretty)
    return Answer(200, accepted.content_type, present(body, accepted))


def _page(documents: DiscoveryDocuments, path: DiscoveryPath) -> bytes | None:
    """The page of a group or of a group's version."""
    if path.version is None:
        return documents.group(path.group or "")
    return documents.resources(path.group or "", path.version)
