"""What a review asks, as it stands in the ``spec`` of its document, and how a user stands in its ``status``.

The documents are ``authorization.k8s.io/v1`` and ``authentication.k8s.io/v1``; they are read here for whoever answers
them. Of the selectors in a question only ``rawSelector`` is read: leaving requirements out asks for more, never for
less. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ...shards.model.errors import Invalid
from .identity import Attributes, User


class Selector(msgspec.Struct, rename="camel"):
    """A label or field selector of a question."""

    raw_selector: str = ""


class ResourceAttributes(msgspec.Struct, rename="camel"):
    """May somebody do this to a resource."""

    verb: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    label_selector: Selector | None = None
    field_selector: Selector | None = None


class PathAttributes(msgspec.Struct):
    """May somebody do this to a path that is no resource's."""

    path: str = ""
    verb: str = ""


class AccessSpec(msgspec.Struct, rename="camel"):
    """The question: one of both."""

    resource_attributes: ResourceAttributes | None = None
    non_resource_attributes: PathAttributes | None = None

    def attributes(self, kind: str) -> Attributes:
        """What is asked; `kind` is the review's, for the message.

        Raises:
            Invalid: neither a resource nor a path, or both.
        """
        what, path = self.resource_attributes, self.non_resource_attributes
        if (what is None) == (path is None):
            which = "both" if what is not None else "neither"
            raise Invalid(
                f'{kind}.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: "{which}": '
                "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            )
        if path is not None:
            return Attributes(path.verb, path=path.path)
        assert what is not None
        return Attributes(
            what.verb,
            what.group,
            what.version,
            what.resource,
            what.subresource,
            what.namespace,
            what.name,
            label_selector=what.label_selector.raw_selector if what.label_selector else "",
            field_selector=what.field_selector.raw_selector if what.field_selector else "",
        )


def user_document(user: User) -> Mapping[str, object]:
    """``authentication.k8s.io/v1 UserInfo``: what is empty is left out."""
    found: dict[str, object] = {
        "username": user.name,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra.items()},
    }
    return {key: value for key, value in found.items() if value}
