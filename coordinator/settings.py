"""Settings of the coordinator: what is followed, how it is divided, how shards are judged. Plain frozen
values.

`cluster.settings` composes them with the other rooms' and reads the YAML file; a value that cannot be used is
a ValueError here and gets the path it stands at from there. Every field is read somewhere:
``tests/unit/test_house_rules.py`` checks that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ..shards.model.resources import Resource
from ..shards.settings import Count, Positive
from .patterns import parse_pattern, parse_resource_name

NotNegative = Annotated[float, Meta(ge=0)]
SecretsRule: TypeAlias = Literal["exclude", "include", "redact"]

_FIELD_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _check(where: str, parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_carving(text: str, namespaces: tuple[str, ...]) -> None:
    _check("follow.carve", parse_resource_name, text)
    if not namespaces:
        raise ValueError(f"follow.carve[{text!r}] names no namespace")
    for namespace in namespaces:
        if not _NAMESPACE.fullmatch(namespace):
            raise ValueError(f"follow.carve[{text!r}]: {namespace!r} is not the name of a namespace")


def _check_same_objects(name: str, groups: tuple[str, ...]) -> None:
    where = f"follow.same_objects[{name!r}]"
    if "." in name or "/" in name:
        raise ValueError(f"{where}: expected the plural name alone, such as 'events'")
    if len(set(groups)) < 2:
        raise ValueError(f"{where}: expected two groups or more, the one to follow first")


def _check_indexed_fields(text: str, paths: tuple[str, ...]) -> None:
    where = f"follow.indexed_fields[{text!r}]"
    _check(where, parse_pattern, text)
    if not parse_pattern(text).exact:
        raise ValueError(f"{where}: expected one resource, such as 'v1/pods', and no *")
    if not paths:
        raise ValueError(f"{where} names no field")
    for path in paths:
        if not _FIELD_PATH.fullmatch(path):
            raise ValueError(
                f"{where}: {path!r} is not the path of a field: expected names joined by dots, such as "
                "'spec.priorityClassName', and no lists"
            )
        if path in ("metadata.name", "metadata.namespace"):
            raise ValueError(f"{where}: {path} can be selected of every resource")
        if path.split(".")[:2] in (["metadata", "labels"], ["metadata", "managedFields"]):
            raise ValueError(f"{where}: {path} is no field; labels are indexed always, see labelSelector")
        for other in paths:
            if other.startswith(f"{path}."):
                raise ValueError(f"{where}: {path} cannot have a value where {other} has one")
    if len(set(paths)) < len(paths):
        raise ValueError(f"{where} names a field twice")


def _check_not_redacted(text: str, paths: tuple[str, ...]) -> None:
    if not parse_pattern(text).matches(Resource("", "v1", "secrets")):
        return
    for path in paths:
        if path.partition(".")[0] in ("data", "stringData") or path.split(".")[:2] == [
            "metadata",
            "annotations",
        ]:
            raise ValueError(
                f"follow.indexed_fields[{text!r}]: {path} has no value to be selected by with follow.secrets: redact"
            )


class FollowSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which resources are followed. Patterns are those of `coordinator.patterns`."""

    include: tuple[str, ...] = ("*",)
    """Only what matches one of these is followed; the default is everything that can be."""
    exclude: tuple[str, ...] = ()
    """What matches one of these is not followed, even if `include` names it."""
    secrets: SecretsRule = "exclude"
    """``exclude`` leaves Secrets out even if `include` names them; ``redact`` keeps keys and drops values, and
    of annotations keeps only those that name other objects (`shards.api.redaction.ANNOTATIONS`). Writes that are
    forwarded are the API server's to answer, with what their writer may see there."""
    carve: dict[str, tuple[str, ...]] = {}
    """Namespaces that become partitions of their own, by resource (``pods``, ``deployments.apps``)."""
    indexed_fields: dict[str, tuple[str, ...]] = {}
    """Further fields that field selectors, counts and groups may name, by resource (``v1/pods``, ``deployments.apps``):
    paths of texts, numbers or truth values, such as ``spec.priorityClassName``. Each is held in an index."""
    same_objects: dict[str, tuple[str, ...]] = {}
    """Groups that serve the same objects under one resource name, the one to follow first (``""``: core).

    Added to, and for the same name instead of, `coordinator.catalogue.SAME_OBJECTS`, which follows
    events of the core group rather than of events.k8s.io.
    """

    def __post_init__(self) -> None:
        """Checks what types alone cannot.

        Raises:
            ValueError: a pattern, a resource name or a namespace that is none.
        """
        if not self.include:
            raise ValueError(
                "follow.include is empty, so nothing would be followed; leave it out for everything"
            )
        for field, patterns in (("include", self.include), ("exclude", self.exclude)):
            for at, text in enumerate(patterns):
                _check(f"follow.{field}[{at}]", parse_pattern, text)
        for text, namespaces in self.carve.items():
            _check_carving(text, namespaces)
        for text, paths in self.indexed_fields.items():
            _check_indexed_fields(text, paths)
            if self.secrets == "redact":
                _check_not_redacted(text, paths)
        for name, groups in self.same_objects.items():
            _check_same_objects(name, groups)


class PlacementSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How partitions are divided over shards. Weights count in objects: an object at rest weighs 1."""

    partition_weight: Count = 20
    """What a partition weighs that holds nothing: a watch, its connection, its bookkeeping."""
    bytes_per_weight: Count = 2048
    """So many compressed bytes of bodies weigh as much as one object."""
    event_weight: NotNegative = 200.0
    """What one event a second weighs: at 45 us of CPU an event, a core follows some 20 000 a second."""
    smoothing_s: Positive = 60.0
    """Time constant of the exponential average of events a second."""
    tolerance: NotNegative = 0.3
    """The heaviest and the lightest shard may differ by this fraction of the average before anything
    moves."""
    worth_weight: NotNegative = 5000.0
    """Nothing moves for a difference smaller than this, because each move lists the API server once."""
    settle_s: NotNegative = 20.0
    """An imbalance must last this long before anything moves."""
    moves_at_once: Count = 4
    """Partitions on their way at the same time."""
    release_grace_s: NotNegative = 2.0
    """The old shard keeps a partition this long after the table without it was published: routers learn of it
    by long poll, within milliseconds as a rule."""


class PermitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many lists may run at once, over all shards. A list holds a permit from its first page to its
    last.
    """

    lists_at_once: Count = 16
    """The API server's own limit for lists is a share of 400 read requests in flight
    (``--max-requests-inflight``); a large list counts for up to ten (API priority and fairness)."""
    lease_s: Positive = 120.0
    """A permit not given back after this is free again: its holder hangs, or its list is very long."""
    place_kept_s: Positive = 10.0
    """Who waits and must ask again (a call has a deadline) keeps its place in the queue for this long."""


class DiscoverySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the API server is asked what it serves."""

    poll_s: Positive = 2.0
    """Pause between two looks; an unchanged answer is a 304 of a few bytes."""
    timeout_s: Positive = 10.0
    """One request; an answer that takes longer is a failure."""
    definitions_poll_s: Positive = 30.0
    """Between two looks at CustomResourceDefinitions that changed without a new resource (columns, fields)
    and at ``/version``."""
    vanish_s: NotNegative = 1.5
    """A resource missing from discovery for this long, that is in two looks, is dropped: a server that has
    just started may not list everything it serves yet."""
    vanish_defined_s: NotNegative = 60.0
    """The same while a CustomResourceDefinition still declares it."""
    backoff_max_s: Positive = 10.0
    """Longest pause while the API server cannot be reached; pauses double from `poll_s` up to this."""


class LivenessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a shard is asked, and when it is given up."""

    interval_s: Positive = 1.0
    """Pause between two passes of the coordinator, unless something wakes it."""
    patience_s: Positive = 0.3
    """A pass waits this long for shards to answer; who is slower is heard in a later pass."""
    answer_timeout_s: Positive = 3.0
    """A shard that has not answered by then has failed to."""
    call_timeout_s: Positive = 10.0
    """Deadline of adopt and release."""
    suspect_after: Count = 2
    """Failures in a row after which a shard is suspect: it keeps what it has and gets nothing new."""
    dead_after_s: Positive = 10.0
    """A suspect shard silent for this long is dead: its partitions go to others. A shard whose process died
    is restarted within seconds and keeps its partitions; this is for nodes that are gone or hang."""
    healthy_after: Count = 2
    """Answers in a row that make a suspect or dead shard healthy again."""
    start_timeout_s: Positive = 60.0
    """How long the first placement waits for all shards, and how long starting one may take."""


class CoordinatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the coordinator needs to know."""

    follow: FollowSettings = FollowSettings()
    placement: PlacementSettings = PlacementSettings()
    permits: PermitSettings = PermitSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    liveness: LivenessSettings = LivenessSettings()
