"""Which objects of a resource an informer wants: selectors, checked when they are given, asked of the server, and
compared again on arrival.

`NarrowedConnection` adds them to the requests that a reflector makes for its collection, so that reflector and requests
know nothing of selectors. A server (or a proxy) may ignore them, so what arrives is tested too, as far as it can be:
fields beyond those known of the resource are left to the server.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import msgspec

from ...shards.api.client import ApiConnection, ApiResponse
from ...shards.api.requests import GATEWAY_HEADER, ApiRequest, Pairs, refusal
from ...shards.model.errors import BadRequest
from ...shards.model.observations import Observation
from ...shards.model.resources import ResourceType
from ...shards.model.selectors import FieldSelector, LabelRequirement, LabelSelector
from ...shards.model.shard_selectors import parse_shard_selector
from ...shards.store.entries import LabelSet

Tester: TypeAlias = Callable[[Observation], bool]

LABELS_REMEMBERED: Final = 4096
BAD_REQUEST: Final = 400
REFUSAL_BYTES_MAX: Final = 1 << 20

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def check_namespace(namespace: Any) -> None:
    """None, or what can be the name of a namespace.

    Raises:
        TypeError, ValueError: it is anything else.
    """
    if namespace is None:
        return
    if not isinstance(namespace, str):
        raise TypeError(f"{namespace!r} is no namespace: expected a name, or None for all of them")
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(
            f"{namespace!r} is no namespace: expected at most 63 lower-case letters, digits and '-', with neither end "
            "a '-'; leave it out for all of them"
        )


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Selectors in canonical spelling; empty ones select everything."""

    labels: str = ""
    fields: str = ""
    shards: str = ""

    @classmethod
    def parse(cls, labels: str = "", fields: str = "", shards: str = "") -> Narrowing:
        """Reads selectors as the API server does.

        Raises:
            TypeError: one that is no text.
            BadRequest: one that cannot be parsed.
            BadShardSelector: the same of a shard selector.
        """
        for name, text in (("label", labels), ("field", fields), ("shard", shards)):
            if not isinstance(text, str):
                raise TypeError(
                    f"{name}_selector is {text!r}: expected a text; an empty one selects everything"
                )
        parsed = parse_shard_selector(shards)
        terms = sorted({str(_canonical(one)) for one in LabelSelector.parse(labels).requirements})
        return cls(
            ",".join(terms),
            ",".join(sorted(str(one) for one in FieldSelector.parse(fields).requirements)),
            "" if parsed is None else str(parsed),
        )

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields or self.shards)

    def __str__(self) -> str:
        named = (("labels", self.labels), ("fields", self.fields), ("shards", self.shards))
        return " ".join(f"{name}({text})" for name, text in named if text)

    def narrowed(self, query: Pairs) -> Pairs:
        """The query of a list or watch with these selectors beside those it has."""
        added = {"labelSelector": self.labels, "fieldSelector": self.fields, "shardSelector": self.shards}
        pairs = []
        for name, value in query:
            mine = added.pop(name, "") if name != "shardSelector" else ""
            # Requirements of labels and of fields are and-ed by a comma; of two shard selectors the test
            # on arrival decides.
            pairs.append((name, f"{value},{mine}" if mine else value))
        return (*pairs, *((name, value) for name, value in added.items() if value))

    def tester(self, resource_type: ResourceType) -> Tester | None:
        """Says whether an object that arrives is selected; None if everything is."""
        tests: list[Tester] = []
        if self.labels:
            tests.append(_label_tester(LabelSelector.parse(self.labels)))
        for test in FieldSelector.parse(self.fields).tests:
            value = _field_value(test.field, resource_type)
            if value is not None:
                tests.append(lambda observation, value=value, meets=test.meets: meets(value(observation)))  # type: ignore[misc]
        parsed = parse_shard_selector(self.shards)
        if parsed is not None:
            matches = parsed.matches
            tests.append(lambda observation: matches(observation.namespace, observation.uid))
        if not tests:
            return None
        return tests[0] if len(tests) == 1 else lambda observation: all(test(observation) for test in tests)


def _canonical(requirement: LabelRequirement) -> LabelRequirement:
    """The same requirement in the one spelling it has here."""
    match requirement.operator:
        case "in" | "notin" if requirement.values & {"in", "notin"}:
            # Values that can be said in parentheses only.
            return requirement
        case "==" | "in" if len(requirement.values) == 1:
            return replace(requirement, operator="=")
        case "notin" if len(requirement.values) == 1:
            return replace(requirement, operator="!=")
        case _:
            return requirement


def _label_tester(selector: LabelSelector) -> Tester:
    seen: dict[bytes, bool] = {}

    def selected(observation: Observation) -> bool:
        raw = observation.labels
        known = seen.get(raw)
        if known is None:
            if len(seen) >= LABELS_REMEMBERED:
                seen.clear()
            known = seen[raw] = selector.matches(LabelSet(raw).labels())
        return known

    return selected


def _field_value(field: str, resource_type: ResourceType) -> Callable[[Observation], str] | None:
    if field == "metadata.name":
        return lambda observation: observation.key.rpartition("/")[2]
    if field == "metadata.namespace":
        return lambda observation: observation.namespace
    if field not in resource_type.selectable_fields:
        return None
    position = resource_type.selectable_fields.index(field)
    return lambda observation: observation.fields[position]


class NarrowedConnection:
    """`ApiConnection` whose requests for one collection are narrowed. Does not own the connection it uses."""

    def __init__(
        self,
        connection: ApiConnection,
        path: str,
        narrowing: Narrowing,
        *,
        on_gateway: Callable[[], None],
        listed: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._path = path
        self._narrowing = narrowing
        self._on_gateway = on_gateway
        self._listed = listed

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[ApiResponse]:
        """As `ApiConnection.open`.

        Raises:
            BadRequest: the selectors are not to be had of this server: it refuses the first list with them.
        """
        narrowed = request.path == self._path and bool(self._narrowing)
        if narrowed:
            request = msgspec.structs.replace(request, query=self._narrowing.narrowed(request.query))
        async with self._connection.open(request) as response:
            if GATEWAY_HEADER in response.headers:
                self._on_gateway()
            # A watch may be refused for other parameters, and a list that was taken once is not wrong in itself.
            asked_first = narrowed and not any(name in ("watch", "continue") for name, _ in request.query)
            if response.status == BAD_REQUEST and asked_first and not self._listed():
                body = await response.read(REFUSAL_BYTES_MAX)
                raise BadRequest(refusal(response.status, response.headers, body).message)
            yield response

    def pinned(self) -> AbstractAsyncContextManager[ApiConnection]:
        """As `ApiConnection.pinned`; of the connection beneath, which is not narrowed."""
        return self._connection.pinned()

    async def aclose(self) -> None:
        """Nothing: the connection beneath belongs to somebody else."""
