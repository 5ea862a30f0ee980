"""Evictions: POST of an ``Eviction`` (``policy/v1``) to a pod, as ``kubectl drain`` asks for them.

The pod is deleted unless a PodDisruptionBudget that selects it allows no disruption now; then the answer is 429 and
whoever asked comes again. Budgets have the status somebody wrote: nothing here counts healthy pods, so an eviction does
not use its budget up either. Source: ``pkg/registry/core/pod/storage/eviction.go``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...shards.model.errors import BadRequest, ShoalError, TooManyRequests
from ...shards.model.resources import Resource, ResourceType
from ...shards.model.selectors import LabelSelector
from . import validation
from .objects import Document, parse_object
from .served import Served
from .storage import Stored
from .verbs import Verbs, Writer

BUDGETS = Resource("policy", "v1", "poddisruptionbudgets")
EVICTION = ResourceType(resource=Resource("policy", "v1", "evictions"), kind="Eviction", namespaced=True)
"""What the body is; there is no such collection."""
SUCCESS: Document = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
_UNPROTECTED = ("Pending", "Succeeded", "Failed")
"""Phases in which a pod counts for no budget."""


class Disrupting(TooManyRequests):
    """A budget does not allow it now."""

    def __init__(self, budget: Document) -> None:
        status = budget.get("status") or {}
        why = (
            f"The disruption budget {budget['metadata']['name']} needs {status.get('desiredHealthy', 0)} healthy pods "
            f"and has {status.get('currentHealthy', 0)} currently"
        )
        super().__init__(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            details={"causes": [{"reason": "DisruptionBudget", "message": why}]},
        )


def evict(  # noqa: PLR0917 - the parts of one request
    verbs: Verbs, pods: Served, namespace: str | None, name: str, eviction: Document, writer: Writer
) -> None:
    """Deletes a pod for `eviction`.

    Raises:
        NotFound: there is no such pod.
        BadRequest: the eviction is of another.
        Conflict: preconditions do not hold.
        Disrupting: a budget does not allow it now.
        ShoalError: several budgets select it.
    """
    given = (eviction.get("metadata") or {}).get("name")
    if given and given != name:
        raise BadRequest("name in URL does not match name in Eviction object")
    stored = verbs.get(pods, namespace, name)
    options = eviction.get("deleteOptions") or {}
    pod = parse_object(stored.body)
    if not _unprotected(pod):
        _ask_budgets(verbs, stored)
    dry_run = writer.dry_run or bool(options.get("dryRun"))
    verbs.delete(pods, namespace, name, options, replace(writer, dry_run=dry_run))


def decode(body: bytes, content_type: str) -> Document:
    """The Eviction in a body. Raises as `validation.decode_body`."""
    return validation.decode_body(body, content_type, EVICTION)


def _unprotected(pod: Document) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in _UNPROTECTED or bool(pod["metadata"].get("deletionTimestamp"))


def _ask_budgets(verbs: Verbs, pod: Stored) -> None:
    budgets = list(_budgets(verbs, pod))
    if len(budgets) > 1:
        raise ShoalError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    for budget in budgets:
        if (budget.get("status") or {}).get("disruptionsAllowed", 0) <= 0:
            raise Disrupting(budget)


def _budgets(verbs: Verbs, pod: Stored) -> Iterator[Document]:
    collection = verbs.collection(verbs.served(BUDGETS))
    for stored in collection.page(namespace=pod.namespace, matches=None).objects:
        budget = parse_object(stored.body)
        selector = (budget.get("spec") or {}).get("selector")
        if selector is not None and _selector(selector).matches(pod.labels):
            yield budget


def _selector(document: Mapping[str, Any]) -> LabelSelector:
    """A ``metav1.LabelSelector``; an empty one selects everything."""
    parts = [f"{key}={value}" for key, value in (document.get("matchLabels") or {}).items()]
    for requirement in document.get("matchExpressions") or ():
        key, values = requirement.get("key"), ",".join(requirement.get("values") or ())
        match requirement.get("operator"):
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(f"{key}")
            case _:
                parts.append(f"!{key}")
    return LabelSelector.parse(",".join(parts))
