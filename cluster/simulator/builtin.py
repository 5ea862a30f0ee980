"""The built-in resources of kube-apiserver v1.36, as its own discovery lists them.

They are package data (``builtin.json``, one resource a line in the form of `ResourceType`), taken from a
recorded answer to aggregated discovery. What discovery does not say, the selectable fields, comes from
`shards.model.fields`. Custom resources are not here: their definitions make their types.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec

from ...shards.model.fields import SELECTABLE_FIELDS
from ...shards.model.resources import ResourceType


@cache
def builtin_types() -> tuple[ResourceType, ...]:
    """Every built-in resource in the order of discovery, also those that can only be created (reviews)."""
    recorded = resources.files(__package__).joinpath("builtin.json").read_bytes()
    types = msgspec.json.decode(recorded, type=tuple[ResourceType, ...])
    return tuple(
        msgspec.structs.replace(
            known, selectable_fields=SELECTABLE_FIELDS.get(known.resource.qualified_name, ())
        )
        for known in types
    )
