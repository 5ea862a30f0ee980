"""Transforms: what of an object an informer holds. They run once for each state that arrives, before it is stored.

A transform takes a parsed object and returns what is to be held of it, as client-go's ``TransformFunc``. A full parse
costs 40 us and more for a pod; `dropping` cuts members out of the bytes instead and costs a tenth of it. Whatever a
transform returns has to be the same object: kind, name, namespace, uid and version are its identity. A transform that
raises, or changes them, is counted and logged, and the object is held as it came: nothing is lost. Selectors look at
the object as it came.

Two informers share one feed if their transforms are equal: the same function, or equal values of `dropping`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import msgspec
from msgspec import Raw

from ...shards.model.depth import at_any_depth
from ...shards.model.observations import Observation
from .raising import LogLimit, ends_program, is_asynchronous

log = logging.getLogger("shoal.cluster.informers")

Transform: TypeAlias = "Callable[[dict[str, Any]], Mapping[str, Any]] | BodyTransform"
Reshaping: TypeAlias = Callable[[Observation], bytes]

_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_document: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode
_OPEN: Final = ord("{")
_IDENTITY: Final = ("name", "namespace", "uid", "resourceVersion")


@runtime_checkable
class BodyTransform(Protocol):
    """A transform that works on the bytes."""

    def reshape(self, body: bytes) -> bytes:
        """The object as it is to be held."""


@dataclass(frozen=True, slots=True)
class Dropping:
    """Leaves members out; see `dropping`."""

    paths: tuple[tuple[str, ...], ...]

    def reshape(self, body: bytes) -> bytes:
        """As `BodyTransform.reshape`."""
        return at_any_depth(lambda whole: _without(whole, self.paths), body)


def dropping(*paths: str) -> Dropping:
    """A transform that leaves members out, named by paths through objects: ``metadata.annotations``, ``status``.

    A path that an object does not have, or that leads through a list, changes nothing.

    Raises:
        ValueError: no path; an empty one; or one that is, or holds, the identity of objects.
    """
    if not paths:
        raise ValueError("dropping() names nothing to be left out")
    found = tuple(sorted({tuple(path.split(".")) for path in paths}))
    for path in found:
        if not all(path):
            raise ValueError(f"{'.'.join(path)!r} is not the path of a member: expected names joined by dots")
        if path in (("metadata",), ("kind",), ("apiVersion",)) or (
            path[0] == "metadata" and path[1] in _IDENTITY
        ):
            raise ValueError(f"{'.'.join(path)!r} cannot be left out: it is part of an object's identity")
    return Dropping(found)


def _without(body: bytes | Raw, paths: tuple[tuple[str, ...], ...]) -> bytes:
    members = _members(body)
    deeper: dict[str, list[tuple[str, ...]]] = {}
    for name, *rest in paths:
        if rest:
            deeper.setdefault(name, []).append(tuple(rest))
        else:
            members.pop(name, None)
    for name, below in deeper.items():
        value = members.get(name)
        if value is not None and memoryview(value)[0] == _OPEN:
            members[name] = Raw(_without(value, tuple(below)))
    return b"{%b}" % b",".join(b"%b:%b" % (_encode(name), bytes(value)) for name, value in members.items())


class Reshaper:
    """Applies a transform to what arrives, and survives it."""

    def __init__(self, transform: Transform, informer: str) -> None:
        if not isinstance(transform, BodyTransform) and not callable(transform):
            raise TypeError(
                f"transform is {transform!r}: expected a function of a parsed object, or dropping()"
            )
        if is_asynchronous(getattr(transform, "reshape", transform)):
            raise TypeError(
                f"transform is {transform!r}: a coroutine function, and nobody would await it; expected a plain one"
            )
        self.failures = 0
        self._limit = LogLimit()
        self._transform = transform
        self._informer = informer

    def __call__(self, observation: Observation) -> bytes:
        """The body as it is to be held."""
        transform = self._transform
        try:
            if isinstance(transform, BodyTransform):
                return transform.reshape(observation.body)
            return _transformed(transform, observation.body)
        except BaseException as error:
            if ends_program(error):
                raise
            self.failures += 1
            if (unlogged := self._limit.admit()) is not None:
                told = {"informer": self._informer, "key": observation.key, "unlogged": unlogged}
                log.exception("transform failed", extra=told)
            return observation.body


def _transformed(transform: Callable[[dict[str, Any]], Mapping[str, Any]], body: bytes) -> bytes:
    given = at_any_depth(_document, body)
    before = _identity(given)
    result = transform(given)
    if not isinstance(result, Mapping):
        raise TypeError(f"the transform returned {type(result).__name__}: expected the object as a mapping")
    if _identity(result) != before:
        raise ValueError("the transform changed kind, name, namespace, uid or resourceVersion of the object")
    return _encode(result)


def _identity(document: Mapping[str, Any]) -> tuple[Any, ...]:
    metadata = document.get("metadata") or {}
    return (document.get("apiVersion"), document.get("kind"), *(metadata.get(name) for name in _IDENTITY))
