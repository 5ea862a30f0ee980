"""What the path of a request names: a resource that is followed, one that is not, or nothing at all.

kube-apiserver answers the last two differently, and so does this: a Status, or a page that is not there.
"""

from __future__ import annotations

from ...shards.model.errors import NotReady
from ...shards.model.resources import Resource, ResourceType
from ..query.fanout import UnknownResource
from ..query.routing import Routing
from ..serving.paths import ResourcePath
from .discovery import Discovery

NO_SUBRESOURCES = ": Shoal does not serve subresources"
"""But for ``status``, whose answer is the object."""


class Resources:
    """Those of the newest routes."""

    def __init__(self, routing: Routing, discovery: Discovery) -> None:
        self._routing = routing
        self._discovery = discovery

    def readable(self, path: ResourcePath) -> ResourceType | None:
        """The resource whose object or collection a path names; None where kube-apiserver has no page at all.

        Raises:
            UnknownResource: it would answer with a Status.
            NotReady: there are no routes yet.
        """
        known = self.known(path.identity)
        if known is None:
            return None
        if path.subresource is not None and not _is_object(path, known):
            raise UnknownResource(NO_SUBRESOURCES)
        if known.namespaced != (path.namespace is not None) and (path.name or not known.namespaced):
            raise UnknownResource
        return known

    def served(self, resource: Resource) -> bool:
        """Whether the API server has a resource, followed here or not.

        Raises:
            UnknownResource, NotReady: as `readable`, for one it does not have.
        """
        if str(resource) in dict(self._routing.index.table.excluded):
            return True
        return self.known(resource) is not None

    def known(self, resource: Resource) -> ResourceType | None:
        """A resource, subresources taken on trust. Answers and raises as `readable`."""
        routes = self._routing.index
        if routes.epoch == 0:
            raise NotReady(self._routing.problem, retry_after_s=1)
        known = routes.resource_type(resource)
        if known is None:
            excluded = dict(routes.table.excluded).get(str(resource))
            if excluded:
                raise UnknownResource(f": {resource} is not followed: {excluded}")
            if not self._discovery.has_built_in(resource, routes):
                return None
            raise UnknownResource
        return known


def _is_object(path: ResourcePath, known: ResourceType) -> bool:
    """Whether a path ends in ``status``, which kube-apiserver answers with the whole object."""
    return path.subresource == "status" and "status" in known.subresources and not path.watching
