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
Fraction = Annotated[float, Meta(gt=0, le=1)]
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
    query_weight: NotNegative = 1000.0
    """What one query a second weighs, as a page of a list takes some 250 us."""
    core_weight: NotNegative = 4_000_000.0
    """What a core's worth of measured CPU weighs, the same as 20 000 events a second. Of a partition this counts, or
    its events and queries, whichever is more."""
    smoothing_s: Positive = 60.0
    """Time constant of the exponential average of events a second."""
    tolerance: NotNegative = 0.3
    """The heaviest and the lightest shard may differ by this fraction of the average before anything
    moves."""
    worth_weight: NotNegative = 5000.0
    """Nothing moves for a difference smaller than this: a move copies the partition to another process."""
    settle_s: NotNegative = 20.0
    """An imbalance must last this long before anything moves."""
    moves_at_once: Count = 4
    """Partitions on their way at the same time."""
    rest_s: NotNegative = 60.0
    """A partition that has moved is not moved again for the balance for this long, twice as long after the next such
    move within an hour, and so on."""
    release_grace_s: NotNegative = 2.0
    """The old shard keeps a partition this long after the table without it was published: routers learn of it
    by long poll, within milliseconds as a rule."""
    transfer_timeout_s: Positive = 180.0
    """A hand-off whose new shards are not complete by then is given up. They wait for their turn to receive, too
    (``transfer.receptions_max``), and one attempt of theirs takes ``transfer.receive_timeout_s`` at most."""
    switch_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 8.0
    """The old shards stand still and the new ones catch up within this, or the old ones go on. More than
    ``transfer.catch_up_timeout_s``; half as much again has to be less than ``transfer.thaw_s``, after which the old
    shards go on by themselves."""
    switch_attempts: Count = 3
    """A switch that failed is tried again; after so many the hand-off is given up."""
    handoff_pause_s: Positive = 5.0
    """Before a switch is tried again, and before a hand-off that was given up is begun again; the latter is doubled
    with each one of the same resource that is given up in a row..."""
    handoff_pause_max_s: Positive = 300.0
    """... up to this."""


class ScalingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many shards there should be. What a shard can take is one core, `events_per_shard` and `memory_bytes`; the
    fractions are of that, and whichever is used most decides.
    """

    min_shards: Count | None = None
    """Never fewer; None: the number in ``shards``."""
    max_shards: Count | None = None
    """Never more; None: the number in ``shards``, so that nothing grows or shrinks unless this or `min_shards` says
    so."""
    target: Fraction = 0.6
    """How much of what shards can take is to be used, on average. The rest is for bursts, lists and lost shards."""
    grow_above: Fraction = 0.75
    """More shards are wanted when more than this is used..."""
    shrink_below: Fraction = 0.4
    """... and fewer when less than this is, and fewer would keep to `target`."""
    events_per_shard: Positive = 15_000.0
    """Events a second one shard can follow; a core does some 20 000."""
    memory_bytes: Count | None = None
    """Memory a shard may take, its process included; a partition that would exceed it goes elsewhere or nowhere. None:
    ``ray.shard_memory_bytes``, and if that is None as well, memory is not looked at."""
    process_bytes: Count = 200 << 20
    """Of it, what the process takes that holds nothing."""
    cpu: Literal["measured", "events"] = "measured"
    """``measured``: the CPU that shards' processes take counts. ``events``: only their events do, as many as
    `events_per_shard` to a core. Shards that share a process are never told apart by their CPU."""
    rise_s: Positive = 15.0
    """Time constant of the averages that growing and splitting go by; shrinking and merging go by these and by those of
    ``placement.smoothing_s``, whichever are higher."""
    grow_after_s: NotNegative = 10.0
    """More must be wanted for this long before any are started..."""
    shrink_after_s: NotNegative = 120.0
    """... and fewer for this long before any is emptied."""
    grow_pause_s: NotNegative = 30.0
    """Between two times that shards are started: they have to take partitions before their effect is seen."""
    shrink_pause_s: NotNegative = 300.0
    """After shards were started or emptied, before any is emptied."""
    grow_at_once: Count = 4
    """So many are started at once..."""
    grow_share: NotNegative = 1.0
    """... or this fraction of those there are, whichever is more: 1.0 doubles them."""
    shrink_at_once: Count = 1
    """So many are emptied at once..."""
    shrink_share: NotNegative = 0.1
    """... or this fraction of those there are, whichever is more."""
    start_patience_s: Positive = 120.0
    """A shard that has not started by then is warned of: the Ray cluster may have no room for it."""

    def __post_init__(self) -> None:
        """Raises ValueError where settings contradict each other."""
        if not self.shrink_below < self.target < self.grow_above:
            raise ValueError(
                f"scaling: expected shrink_below < target < grow_above, or shards would come and go for ever; they are "
                f"{self.shrink_below:g}, {self.target:g} and {self.grow_above:g}"
            )
        if self.min_shards is not None and self.max_shards is not None and self.min_shards > self.max_shards:
            raise ValueError(
                f"scaling.min_shards is {self.min_shards}: expected at most scaling.max_shards, {self.max_shards}"
            )
        if self.memory_bytes is not None and self.memory_bytes < 2 * self.process_bytes:
            raise ValueError(
                f"scaling.memory_bytes is {self.memory_bytes}: expected at least twice scaling.process_bytes, "
                f"{self.process_bytes}, which a shard takes that holds nothing"
            )


class CutSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When partitions are split and merged by their load. Fractions are of what one shard is to be used for: of
    ``scaling.target`` of a core, of its events and of its memory, whichever a partition takes most of.
    """

    automatic: bool = True
    """False: cuts are those of ``follow.carve``, and those made by hand."""
    split_above: Fraction = 0.8
    """A partition that takes more is split..."""
    part_below: Fraction = 0.5
    """... into parts that take at most this, where namespaces and hashes allow it..."""
    merge_below: Fraction = 0.3
    """... and parts that take less than this together are one again."""
    carve_above: Fraction = 0.1
    """A namespace that takes less is not carved out."""
    carved_max: Count = 32
    """Namespaces carved out of one resource: each lengthens the selector of what is left."""
    ranges_max: Count = 32
    """Ranges of one rest, or of one namespace."""
    dropped_cost: NotNegative = 0.35
    """What an event costs that is received and dropped, compared with one that is kept: where the API server does not
    select by hash, each range receives the events of all."""
    waste_max: NotNegative = 1.0
    """Dropping what other ranges receive may take this many times the work that all ranges are for; fewer ranges are
    made, or none, where it would take more. Memory counts as work: a namespace too large for one shard is worth it."""
    hot_s: NotNegative = 20.0
    """A partition must be hot for this long before it is split..."""
    cold_s: NotNegative = 300.0
    """... and parts cold for this long before they are merged."""
    pause_s: NotNegative = 120.0
    """A resource that was cut is not cut again for this long: its parts have to be measured first..."""
    life_s: NotNegative = 600.0
    """... and not merged for this long."""
    profile_s: Positive = 30.0
    """How old a profile may be that a split is chosen by."""
    patience_s: Positive = 600.0
    """A cut that has not come about by then is given up, and may be tried again after `pause_s`."""

    def __post_init__(self) -> None:
        """Raises ValueError where settings contradict each other."""
        if not self.merge_below < self.part_below < self.split_above:
            raise ValueError(
                "cutting: expected merge_below < part_below < split_above, or partitions would be split and merged for "
                f"ever; they are {self.merge_below:g}, {self.part_below:g} and {self.split_above:g}"
            )
        if self.carve_above > self.part_below:
            raise ValueError(
                f"cutting.carve_above is {self.carve_above:g}: expected at most cutting.part_below, {self.part_below:g}"
            )


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
    lease_s: Positive | None = None
    """A shard that has not heard of its coordinator for so long lets nothing be shown by its leave, and watches over
    several partitions wait for each of them. Shorter than `dead_after_s` and `start_timeout_s`, by which a shard is
    given up; None: four fifths of these."""
    healthy_after: Count = 2
    """Answers in a row that make a suspect or dead shard healthy again."""
    start_timeout_s: Positive = 60.0
    """How long the first placement waits for all shards, and how long starting one may take."""

    def __post_init__(self) -> None:
        """Raises ValueError where two settings contradict each other."""
        given_up_s = min(self.dead_after_s, self.start_timeout_s)
        if self.lease_s is not None and self.lease_s >= given_up_s:
            raise ValueError(
                f"liveness.lease_s is {self.lease_s:g}: expected less than {given_up_s:g}, the smaller of "
                "liveness.dead_after_s and liveness.start_timeout_s, or two shards would let versions be shown of one "
                "partition"
            )

    @property
    def lease(self) -> float:
        """What `lease_s` comes to, in seconds."""
        if self.lease_s is not None:
            return self.lease_s
        return 0.8 * min(self.dead_after_s, self.start_timeout_s)


class CoordinatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the coordinator needs to know."""

    follow: FollowSettings = FollowSettings()
    placement: PlacementSettings = PlacementSettings()
    scaling: ScalingSettings = ScalingSettings()
    cutting: CutSettings = CutSettings()
    permits: PermitSettings = PermitSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    liveness: LivenessSettings = LivenessSettings()
