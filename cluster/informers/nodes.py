"""Parts of an object as nodes: maps and lists that split themselves level by level and never change.

A node holds its members as the bytes they came in (``msgspec.Raw``) until one is read; a map or list that is read
becomes a node in its turn, and is kept. Reading never fails silently: what is absent raises and says what is there,
bytes that are no JSON raise Garbage. `objects` has the root, a whole object, and says how it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeAlias, overload

import msgspec
from msgspec import Raw

from ...shards.model.depth import at_any_depth
from ...shards.model.errors import Garbage

Step: TypeAlias = str | int
"""One step of a path: the name of a member, or the position of an element."""

SHOWN_NAMES: Final = 30
"""So many names an error lists; a ConfigMap may have thousands."""

_BROKEN_JSON: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
_Level: TypeAlias = dict[str, Raw] | list[Raw] | str | int | float | bool | None
_split: Final = msgspec.json.Decoder(_Level).decode
split_twice: Final = msgspec.json.Decoder(dict[str, _Level]).decode
"""An object with its members: ``metadata``, ``spec`` and ``status`` are nearly always entered next, and splitting
them in the same pass saves scanning their bytes again (3.2 us instead of 5.5 us for a pod of 5 KB)."""
parse: Final = msgspec.json.Decoder().decode


def decoded(decode: Callable[[Any], Any], raw: Raw | bytes, where: str) -> Any:
    """What `decode` makes of the bytes.

    Raises:
        Garbage: it makes nothing of them; `where` is what the message calls them.
    """
    try:
        return at_any_depth(decode, raw)
    except _BROKEN_JSON as error:
        raise Garbage(f"{where} is not the JSON of an API server: {error}") from error


def entered(value: Any, path: tuple[Step, ...]) -> Any:
    """What stands for a member when it is read: a node for maps and lists, otherwise the value itself."""
    if type(value) is Raw:
        try:
            value = _split(value)
        except _BROKEN_JSON:
            value = decoded(_split, value, path_text(path))
    if type(value) is dict:
        return FieldMap(value, path)
    if type(value) is list:
        return FieldList(value, path)
    return value


def _plain(value: Any, path: tuple[Step, ...]) -> Any:
    """A full parse of what was split so far, or was not."""
    match value:
        case Raw():
            return decoded(parse, value, path_text(path))
        case dict():
            return {name: _plain(member, (*path, name)) for name, member in value.items()}
        case list():
            return [_plain(element, (*path, at)) for at, element in enumerate(value)]
        case FieldMap():
            return value.to_dict()
        case FieldList():
            return value.to_list()
        case _:
            return value


class FieldMap:
    """A JSON object inside an object, or the whole of it. Reads as attributes and as a mapping; never changes.

    `members` holds what was not read yet as `Raw` or as plain containers of it, and is owned by the node.
    """

    __slots__ = ("_members", "_path")

    _members: dict[str, Any]
    _path: tuple[Step, ...]

    def __init__(self, members: dict[str, Any], path: tuple[Step, ...] = ()) -> None:
        set_members(self, members)
        set_path(self, path)

    def _open(self) -> dict[str, Any]:
        return self._members

    def _where(self) -> str:
        """How messages call this node."""
        return path_text(self._path) or "the object"

    # -- as attributes and items

    def __getattr__(self, name: str) -> Any:
        # Only reached for what is no attribute of the class. Names with an underscore in front are Python's
        # (copy, pickle and shells probe for them) and never fields of the API.
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0], name=name, obj=self) from None

    def __getitem__(self, name: str) -> Any:
        members = self._open()
        try:
            value = members[name]
        except KeyError:
            raise KeyError(f"{self._where()} has no {name!r}; it has: {_names_text(members)}") from None
        if type(value) in UNREAD:
            value = members[name] = entered(value, (*self._path, name))
        return value

    def get(self, *path: Step, default: Any = None) -> Any:
        """The value at a path of names and positions; `default` where a step is absent or leads through null.

        As of a dictionary, null itself is given as None.

        Raises:
            TypeError: a step leads into a text, a number or a truth value, or a name into a list. A default that
                was not given by name mostly looks like this.
        """
        node: Any = self
        for position, step in enumerate(path):
            if isinstance(node, FieldMap) and isinstance(step, str):
                members = node._open()  # noqa: SLF001 - its own class
                if step not in members:
                    return default
                node = node[step]
            elif isinstance(node, FieldList) and isinstance(step, int):
                if not -len(node) <= step < len(node):
                    return default
                node = node[step]
            elif node is None:
                return default
            else:
                at = path_text((*self._path, *path[:position])) or self._where()
                found = "a list" if isinstance(node, FieldList) else "an object"
                raise TypeError(
                    f"{at} is {found if isinstance(node, FieldMap | FieldList) else type(node).__name__}, "
                    f"which {step!r} does not lead into; a default is given by name: get(..., default=...)"
                )
        return node

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"objects are read-only: {name!r} cannot be set; change what to_dict() gives")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"objects are read-only: {name!r} cannot be deleted; change what to_dict() gives"
        )

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self._open() if name.isidentifier())]

    # -- as a mapping

    def __contains__(self, name: object) -> bool:
        return name in self._open()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._open())

    def keys(self) -> Sequence[str]:
        """The names of the members, in the server's order."""
        return tuple(self._open())

    def values(self) -> Iterator[Any]:
        """The members, in the server's order."""
        return (self[name] for name in self.keys())

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names and members, in the server's order."""
        return ((name, self[name]) for name in self.keys())

    def to_dict(self) -> dict[str, Any]:
        """A full parse: plain dictionaries, lists and values, made anew, so the caller may change them."""
        return {name: _plain(member, (*self._path, name)) for name, member in self._open().items()}

    # -- as a value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FieldMap):
            return self.to_dict() == other.to_dict()
        return self.to_dict() == other if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        # Names alone: values may be secret, and representations end up in logs.
        return f"<{self._where()}: {_names_text(self._open())}>"

    def __copy__(self) -> FieldMap:
        return self

    def __deepcopy__(self, memo: object) -> FieldMap:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (msgspec.json.encode(self.to_dict()), self._path)


set_members: Final[Any] = vars(FieldMap)["_members"].__set__
"""Past `FieldMap.__setattr__`, which refuses everybody else."""
set_path: Final[Any] = vars(FieldMap)["_path"].__set__


class FieldList(Sequence[Any]):
    """A JSON list inside an object; its elements are entered one by one. Never changes."""

    __slots__ = ("_elements", "_path")

    def __init__(self, elements: list[Any], path: tuple[Step, ...] = ()) -> None:
        self._elements = elements
        self._path = path

    @overload
    def __getitem__(self, position: int) -> Any: ...
    @overload
    def __getitem__(self, position: slice) -> list[Any]: ...
    def __getitem__(self, position: int | slice) -> Any:
        elements = self._elements
        if isinstance(position, slice):
            return [self[at] for at in range(*position.indices(len(elements)))]
        try:
            value = elements[position]
        except IndexError:
            raise IndexError(
                f"{path_text(self._path)} has {len(elements)} elements, no [{position}]"
            ) from None
        if type(value) in UNREAD:
            at = position if position >= 0 else len(elements) + position
            value = elements[at] = entered(value, (*self._path, at))
        return value

    def __len__(self) -> int:
        return len(self._elements)

    def to_list(self) -> list[Any]:
        """A full parse, made anew."""
        return [_plain(element, (*self._path, at)) for at, element in enumerate(self._elements)]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FieldList):
            return self.to_list() == other.to_list()
        return self.to_list() == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{path_text(self._path)}: {len(self)} elements>"

    def __copy__(self) -> FieldList:
        return self

    def __deepcopy__(self, memo: object) -> FieldList:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (msgspec.json.encode(self.to_list()), self._path)


UNREAD: Final = frozenset((Raw, dict, list))


def _restored(body: bytes, path: tuple[Step, ...]) -> Any:
    return entered(Raw(body), path)


def _names_text(members: Mapping[str, Any]) -> str:
    names = list(members)
    more = f", … ({len(names)} in all)" if len(names) > SHOWN_NAMES else ""
    return (", ".join(names[:SHOWN_NAMES]) or "nothing") + more


def path_text(path: Sequence[Step]) -> str:
    """A path as it is written: ``spec.containers[0].image``, ``metadata.labels['app.kubernetes.io/name']``."""
    text = ""
    for step in path:
        match step:
            case int():
                text += f"[{step}]"
            case str() if step.isidentifier():
                text += f".{step}" if text else step
            case _:
                text += f"[{step!r}]"
    return text
