"""Which objects a LIST or WATCH is about: label, field and shard selectors as one predicate. Pure.

The grammar of ``shardSelector`` is `shards.model.shard_selectors`'.
"""

from __future__ import annotations

from collections.abc import Callable

from ...shards.model.selectors import EVERY_FIELD, EVERY_LABEL, FieldSelector, LabelSelector
from ...shards.model.shard_selectors import BadShardSelector, ShardSelector, parse_shard_selector
from .served import Served
from .storage import Stored

__all__ = ["BadShardSelector", "Predicate", "ShardSelector", "parse_shard_selector", "predicate"]

Predicate = Callable[[Stored], bool]


def predicate(
    served: Served,
    *,
    labels: LabelSelector = EVERY_LABEL,
    fields: FieldSelector = EVERY_FIELD,
    shards: ShardSelector | None = None,
    namespace: str | None = None,
) -> Predicate | None:
    """Whether an object is meant; None if every object is. `namespace` is the path's, if it has one."""
    tests: list[Predicate] = []
    if namespace is not None:
        tests.append(lambda stored: stored.namespace == namespace)
    if labels:
        tests.append(lambda stored: labels.matches(stored.labels))
    if fields:
        tests.append(_field_test(served, fields))
    if shards is not None:
        chosen = shards.matches
        tests.append(lambda stored: chosen(stored.namespace, stored.uid))
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda stored: all(test(stored) for test in tests)


def _field_test(served: Served, fields: FieldSelector) -> Predicate:
    index = served.field_index

    def value_of(stored: Stored, field: str) -> str:
        if field == "metadata.name":
            return stored.name
        if field == "metadata.namespace":
            return stored.namespace
        at = index.get(field)
        return "" if at is None else stored.fields[at]

    return lambda stored: fields.matches(lambda field: value_of(stored, field))
