"""How many objects a query means, by the values of a path: answered from indexes and entries, never from bodies.

A count of everything by namespace jumps over the sorted keys from one namespace to the next; by a label, it adds up
label sets; by an indexed field, the sizes of the index. Whatever else is asked looks at the entries that match, each
label set once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from ..model.errors import BadRequest
from ..model.fields import METADATA_FIELDS
from .entries import Entry, LabelSet
from .snapshot import Selection, Snapshot, value_getter

_LABEL: Final = re.compile(r"metadata\.labels\[(.+)\]")


def label_of(group_by: str) -> str | None:
    """The label key of ``metadata.labels[KEY]``; None for every other path. Quotes around the key are taken off."""
    found = _LABEL.fullmatch(group_by)
    if found is None:
        return None
    key = found[1]
    quoted = len(key) > 2 and key[0] == key[-1] and key[0] in "'\""
    return key[1:-1] if quoted else key


def count_groups(
    snapshot: Snapshot, selection: Selection, group_by: str, fields: tuple[str, ...], *, namespaced: bool
) -> dict[str, int]:
    """Objects by the value of `group_by`; those without the path under the empty text.

    Raises:
        BadRequest: no such path can be grouped by.
    """
    label = label_of(group_by)
    if label is None and group_by not in (*METADATA_FIELDS, *fields):
        known = ", ".join((*METADATA_FIELDS, *fields))
        raise BadRequest(
            f"cannot group by {group_by!r}: expected metadata.labels[KEY] or one of the fields {known}"
        )
    if selection.trivial:
        found = snapshot.group_sizes(selection, group_by, label)
        if found is not None:
            return found
    entries = snapshot.found(selection)
    if label is not None:
        return _by_label(entries, label)
    return dict(Counter(map(value_getter(group_by, fields, namespaced=namespaced), entries)))


def _by_label(entries: Iterable[Entry], label: str) -> dict[str, int]:
    sizes: Counter[LabelSet] = Counter(entry.labels for entry in entries)
    found: Counter[str] = Counter()
    for label_set, size in sizes.items():
        found[label_set.labels().get(label, "")] += size
    return dict(found)
