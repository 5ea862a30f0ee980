"""What the API server serves: a resource (group, version, plural name) and what discovery says about it.

`Resource` is the identity used as a key everywhere; `ResourceType` adds what is needed to list it, to answer
for it and to print it. Neither knows which part of a resource somebody holds: that is a partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

import msgspec

ResourceText = NewType("ResourceText", str)
"""A resource as text: ``v1/pods``, ``apps/v1/deployments``."""


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """Group, version and plural name of a resource, as in the path of its collection."""

    group: str
    """API group; empty for the core group."""
    version: str
    name: str
    """Plural name, lower case: ``pods``."""

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of its objects: ``v1`` or ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Path of its group and version: ``/api/v1`` or ``/apis/apps/v1``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def qualified_name(self) -> str:
        """Group resource as kubectl and Status details write it: ``pods``, ``deployments.apps``."""
        return f"{self.name}.{self.group}" if self.group else self.name

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Path of the collection (all namespaces if `namespace` is None), or of one object of it."""
        path = self.root
        if namespace:
            path += f"/namespaces/{namespace}"
        path += f"/{self.name}"
        return f"{path}/{name}" if name else path

    def __str__(self) -> ResourceText:
        return ResourceText(f"{self.api_version}/{self.name}")

    @classmethod
    def parse(cls, text: str) -> Resource:
        """Reads ``v1/pods`` or ``apps/v1/deployments``.

        Raises:
            ValueError: the text has neither two nor three non-empty parts.
        """
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"{text!r} is not a resource: expected VERSION/NAME or GROUP/VERSION/NAME")
        return cls("", *parts) if len(parts) == 2 else cls(*parts)


class PrinterColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One ``additionalPrinterColumns`` entry of a CustomResourceDefinition version."""

    name: str
    type: str
    json_path: str
    format: str = ""
    description: str = ""
    priority: int = 0


class SubresourceType(msgspec.Struct, frozen=True, kw_only=True):
    """One subresource as discovery describes it: what it takes and answers, and its verbs."""

    name: str
    """Without the resource's: ``status``, ``scale``."""
    kind: str
    group: str = ""
    """Group of `kind`; empty together with `version` where it is the resource's own group and version."""
    version: str = ""
    verbs: tuple[str, ...] = ()


class ResourceType(msgspec.Struct, frozen=True, kw_only=True):
    """A resource and what discovery and, for custom ones, its definition say about it."""

    resource: Resource
    kind: str
    namespaced: bool
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    """Names below an object: ``status``, ``scale``. Never followed."""
    subresource_types: tuple[SubresourceType, ...] = ()
    """The same with kinds and verbs, where they are known; only rendering discovery needs them."""
    list_kind: str = ""
    """Kind of its lists; empty: the kind with ``List`` appended, unless its definition says otherwise."""
    custom: bool = False
    """Defined by a CustomResourceDefinition: its objects carry apiVersion and kind inside lists as well."""
    selectable_fields: tuple[str, ...] = ()
    """Paths beyond the metadata ones that a field selector may name: ``spec.nodeName``."""
    indexed_fields: tuple[str, ...] = ()
    """Those of `selectable_fields` that the settings declare: of any type, and held in an index."""
    printer_columns: tuple[PrinterColumn, ...] = ()
    """Of custom resources only; built-in kinds have their columns in `cluster.serving`."""
