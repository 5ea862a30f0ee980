"""Lists in every form in pieces: JSON as it is, indented JSON, YAML.

A list is its *shell*, which is the list without items, and the items, each shown by itself; joined they are to the byte
what showing the whole list at once would give. So a list of any length is sent as it comes, in bounded memory, and the
event loop gets its turn between two slices: YAML takes a millisecond an object.

Pure. What a shell holds is made in `documents` and `tables`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from .documents import dump_yaml, indented, parse_for_yaml
from .negotiation import Accepted

Items: TypeAlias = Literal["items", "rows"]
_DEEPER: Final = b"\n    "
"""The line break in front of an item of indented JSON."""


class Shell(NamedTuple):
    """What stands around the items of a list."""

    head: bytes
    separator: bytes
    tail: bytes
    empty: bytes
    """The whole list where it has no items."""


def shell(head: bytes, tail: bytes, items: Items, accepted: Accepted) -> Shell:
    """The shell of a list whose JSON is `head`, items and `tail`; `items` is the member that holds them."""
    whole = head + tail
    if accepted.media == "application/yaml":
        document = parse_for_yaml(whole)
        before = {name: value for name, value in document.items() if name < items}
        after = {name: value for name, value in document.items() if name > items}
        opened = (dump_yaml(before) if before else b"") + f"{items}:\n".encode()
        return Shell(opened, b"", dump_yaml(after) if after else b"", dump_yaml(document))
    if accepted.pretty:
        text = indented(whole)
        # Line breaks in texts are escaped, so nothing but the member itself stands two spaces behind one.
        before_items, found, after_items = text.partition(f'\n  "{items}": []'.encode())
        assert found, "a list without items has an empty list of them"
        return Shell(before_items + f'\n  "{items}": ['.encode(), b",", b"\n  ]" + after_items, text)
    return Shell(head, b",", tail, whole)


def shown(items: Iterable[bytes], accepted: Accepted) -> bytes:
    """Items with what stands between them, each a JSON document."""
    if accepted.media == "application/yaml":
        return b"".join(dump_yaml([parse_for_yaml(item)]) for item in items)
    if accepted.pretty:
        return b",".join(
            _DEEPER + bytes(msgspec.json.format(item, indent=2)).replace(b"\n", _DEEPER) for item in items
        )
    return b",".join(items)
