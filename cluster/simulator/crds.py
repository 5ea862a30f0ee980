"""CustomResourceDefinitions: from a definition object to the resources it makes the server serve.

Checks what decides whether and how a resource is served (names, scope, versions); schemas are kept and not
enforced, so objects are neither pruned nor defaulted. Conditions are true at once where kube-apiserver's
controllers take a few hundred milliseconds. Pure; creating and ending collections is `verbs`' business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...shards.model.errors import Invalid
from ...shards.model.resources import PrinterColumn, Resource, ResourceType
from .objects import Document, copied
from .served import Served

DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
"""In the order of legacy discovery."""
_SCOPES = ("Cluster", "Namespaced")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def default_definition(document: Document) -> Document:
    """The definition as the server stores it: list kind, singular and conversion filled in, status begun.

    Raises:
        Invalid: a name, scope or version list that cannot be served.
    """
    definition = copied(document)
    spec = definition.get("spec")
    problems = _problems(definition)
    if problems or not isinstance(spec, dict):
        name = (definition.get("metadata") or {}).get("name", "")
        texts = [f"{problem['field']}: {problem['message']}" for problem in problems]
        text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        raise Invalid(
            f'CustomResourceDefinition.apiextensions.k8s.io "{name}" is invalid: {text}',
            details={
                "name": name,
                "group": DEFINITIONS.group,
                "kind": "CustomResourceDefinition",
                "causes": problems,
            },
        )
    names = spec["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec["names"] = _in_order(names, ("plural", "singular", "shortNames", "kind", "listKind", "categories"))
    spec.setdefault("conversion", {"strategy": "None"})
    ordered = _in_order(spec, ("group", "names", "scope", "versions", "conversion", "preserveUnknownFields"))
    definition["spec"] = ordered
    status = definition.setdefault("status", {})
    stored = next(version["name"] for version in spec["versions"] if version.get("storage"))
    known = list(status.get("storedVersions") or [])
    begun = {
        "conditions": status.get("conditions"),
        "acceptedNames": status.get("acceptedNames") or {"plural": "", "kind": ""},
        "storedVersions": known if stored in known else [*known, stored],
    }
    definition["status"] = begun
    return definition


def established(definition: Document, time: str) -> Document:
    """The definition with the conditions of one that is served."""
    updated = copied(definition)
    old = {one["type"]: one for one in updated["status"].get("conditions") or []}
    conditions = [
        {
            "type": "NamesAccepted",
            "status": "True",
            "lastTransitionTime": time,
            "reason": "NoConflicts",
            "message": "no conflicts found",
        },
        {
            "type": "Established",
            "status": "True",
            "lastTransitionTime": time,
            "reason": "InitialNamesAccepted",
            "message": "the initial names have been accepted",
        },
    ]
    updated["status"]["conditions"] = [old.get(one["type"], one) for one in conditions]
    updated["status"]["acceptedNames"] = dict(updated["spec"]["names"])
    return updated


def terminating(definition: Document, time: str) -> Document:
    """The definition while its objects are being deleted."""
    updated = copied(definition)
    updated["metadata"]["deletionTimestamp"] = time
    updated["status"].setdefault("conditions", [])
    updated["status"]["conditions"] = [
        *(updated["status"]["conditions"] or []),
        {
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": time,
            "reason": "InstanceDeletionInProgress",
            "message": "CustomResource deletion is in progress",
        },
    ]
    return updated


def served_by(definition: Document) -> list[Served]:
    """The resources a definition (as `default_definition` made it) is served as, one a served version."""
    spec = definition["spec"]
    types = {version["name"]: _type(spec, version) for version in spec["versions"]}
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    return [
        Served(types[version["name"]], types[storage])
        for version in spec["versions"]
        if version.get("served")
    ]


def collection_of(definition: Document) -> str:
    """Name of the collection of the definition's objects; also the name of the definition."""
    spec = definition["spec"]
    return f"{spec['names']['plural']}.{spec['group']}"


def _type(spec: Mapping[str, Any], version: Mapping[str, Any]) -> ResourceType:
    names = spec["names"]
    return ResourceType(
        resource=Resource(spec["group"], version["name"], names["plural"]),
        kind=names["kind"],
        list_kind="" if names["listKind"] == f"{names['kind']}List" else names["listKind"],
        namespaced=spec["scope"] == "Namespaced",
        singular=names["singular"],
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        verbs=_VERBS,
        subresources=tuple(sorted(version.get("subresources") or {})),
        custom=True,
        selectable_fields=tuple(
            one["jsonPath"].removeprefix(".") for one in version.get("selectableFields") or ()
        ),
        printer_columns=tuple(
            PrinterColumn(
                name=column["name"],
                type=column["type"],
                json_path=column["jsonPath"],
                format=column.get("format", ""),
                description=column.get("description", ""),
                priority=column.get("priority", 0),
            )
            for column in version.get("additionalPrinterColumns") or ()
        ),
    )


def _problems(definition: Document) -> list[dict[str, str]]:
    spec = definition.get("spec")
    if not isinstance(spec, dict):
        return [_required("spec")]
    names = spec.get("names") or {}
    group, plural, kind = spec.get("group", ""), names.get("plural", ""), names.get("kind", "")
    versions = spec.get("versions") or []
    problems = [
        _required(f"spec.{path}")
        for path, value in (
            ("group", group),
            ("scope", spec.get("scope")),
            ("versions", versions),
            ("names.plural", plural),
            ("names.kind", kind),
        )
        if not value
    ]
    name = (definition.get("metadata") or {}).get("name", "")
    if group and plural and name != f"{plural}.{group}":
        problems.append(_wrong("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if spec.get("scope") and spec["scope"] not in _SCOPES:
        problems.append(
            {
                "reason": "FieldValueNotSupported",
                "message": f'Unsupported value: "{spec["scope"]}": supported values: "Cluster", "Namespaced"',
                "field": "spec.scope",
            }
        )
    if plural and not _LABEL.fullmatch(plural):
        problems.append(_wrong("spec.names.plural", plural, "must be a lowercase RFC 1035 label"))
    if versions and sum(bool(version.get("storage")) for version in versions) != 1:
        problems.append(
            {
                "reason": "FieldValueInvalid",
                "message": "Invalid value: must have exactly one version marked as storage version",
                "field": "spec.versions",
            }
        )
    return problems


def _required(field: str) -> dict[str, str]:
    return {"reason": "FieldValueRequired", "message": "Required value", "field": field}


def _wrong(field: str, value: str, why: str) -> dict[str, str]:
    return {"reason": "FieldValueInvalid", "message": f'Invalid value: "{value}": {why}', "field": field}


def _in_order(mapping: Mapping[str, Any], order: tuple[str, ...]) -> dict[str, Any]:
    return {name: mapping[name] for name in order if name in mapping} | dict(mapping)
