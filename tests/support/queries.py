"""Questions as a URL puts them, for tests that ask the router itself."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.cluster.query.request import CollectionQuery
from shoal.cluster.serving.options import ListOptions
from shoal.shards.model.resources import ResourceType


def collection_query(
    resource_type: ResourceType, parameters: Iterable[tuple[str, str]] = (), *, namespace: str | None = None
) -> CollectionQuery:
    """A list of a resource; `parameters` are the decoded pairs of a URL's query. Raises as `ListOptions.parse`."""
    options = ListOptions.parse(parameters, resource_type)
    return CollectionQuery(resource=resource_type.resource, namespace=namespace, options=options)
