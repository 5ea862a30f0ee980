"""What is tried on a large installation (`scale_world`), and what comes of it as numbers: one function an experiment.

Each says of its figures what bounds them: a part of the model, a setting, or the code. All of it is in virtual time and
the same in every run.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from support.scale_load import DAY_S, Burst, Cluster, Costs
from support.scale_world import Moment, World

from shoal.coordinator.settings import CoordinatorSettings, CutSettings, PlacementSettings, ScalingSettings

GIB = 1 << 30
QUIET_S = 300.0
"""Nothing was begun for so long: it has come to rest."""
BOTH = ("namespace", "uid")


@dataclass(frozen=True, kw_only=True)
class Size:
    """An installation."""

    nodes: int
    shards_first: int
    memory_bytes: int
    max_shards: int = 400
    selects: tuple[str, ...] = BOTH
    queries_per_s: float = 0.0
    """Of each node."""
    remembers: bool = True
    """Whether the API server's watch cache has its usual bound; else it remembers everything."""
    step_s: float = 1.0

    @property
    def name(self) -> str:
        readers = f", {self.queries_per_s * self.nodes:,.0f} queries/s" if self.queries_per_s else ""
        return f"{self.nodes:,} nodes{readers}"

    def world(self, *, seed: int = 0, wave: float = 0.0, bursts: float = 0.0) -> World:
        cluster = Cluster(
            self.nodes,
            seed=seed,
            selects=self.selects,
            wave=wave,
            random_bursts_per_hour=bursts,
            queries_per_s=self.queries_per_s,
        )
        scaling = ScalingSettings(
            min_shards=self.shards_first, max_shards=self.max_shards, memory_bytes=self.memory_bytes
        )
        settings = CoordinatorSettings(scaling=scaling, placement=PlacementSettings(), cutting=CutSettings())
        costs = Costs() if self.remembers else Costs(remembered_events=float("inf"))
        return World(cluster, settings, shards_first=self.shards_first, costs=costs, step_s=self.step_s)


@dataclass
class Outcome:
    """What came of one experiment."""

    what: str
    size: str
    figures: dict[str, float | str] = field(default_factory=dict)
    bound: str = ""
    moments: Sequence[Moment] = ()


# -- measures ------------------------------------------------------------------------------------------------


def settled_at(moments: Sequence[Moment]) -> float:
    """When moves, cuts and the number of shards changed last."""
    last = moments[0].at
    for before, after in zip(moments, moments[1:], strict=False):
        if (before.moves, before.cuts, before.wanted) != (after.moves, after.cuts, after.wanted):
            last = after.at
    return last


def first_at(moments: Sequence[Moment], holds: Callable[[Moment], bool]) -> float:
    """When something came about and stayed so to the end; infinite if it did not."""
    since = float("inf")
    for moment in moments:
        since = min(since, moment.at) if holds(moment) else float("inf")
    return since


def in_time(moment: Moment) -> bool:
    """Whether everything is served, and no shard is over its limit."""
    return moment.served > 0.99999 and moment.late < 1e-4 and moment.over == 0


def rest(world: World, within_s: float, quiet_s: float = QUIET_S) -> bool:
    """Runs until nothing was begun for a while and all is in time; whether it came to that."""
    began = world.now

    def rests(now: World) -> bool:
        recent = now.moments[-max(int(quiet_s / now.step_s), 2) :]
        quiet = now.now - began >= quiet_s and settled_at(recent) <= recent[0].at
        return quiet and in_time(now.moments[-1])

    return world.run(within_s, rests)


def most_wanted(moments: Sequence[Moment]) -> int:
    return max(one.wanted for one in moments)


def balance(moment: Moment) -> dict[str, float]:
    return {
        "CPU of the busiest shard": round(moment.cpu_max, 2),
        "busiest to mean CPU": round(moment.cpu_max / moment.cpu_mean, 2) if moment.cpu_mean else 0.0,
        "largest to mean memory": round(moment.memory_max / moment.memory_mean, 2)
        if moment.memory_mean
        else 0.0,
        "memory of the largest (MiB)": round(moment.memory_max / (1 << 20)),
    }


def largest_parts(world: World) -> dict[str, int]:
    """How many partitions each resource is in, those in more than one."""
    counted = Counter(route.partition.resource.name for route in world.table.routes)
    return {name: count for name, count in counted.most_common(6) if count > 1}


# -- experiments ---------------------------------------------------------------------------------------------


def cold_start(size: Size, within_s: float = 3600.0) -> tuple[Outcome, World]:
    """Nothing is there but as many empty shards as the settings begin with."""
    world = size.world()
    rested = rest(world, within_s)
    moments, last = world.moments, world.moments[-1]
    largest = max(sum(kind.objects.values()) for kind in world.cluster.kinds.values())
    list_s = largest / world.costs.listed_per_s
    figures: dict[str, float | str] = {
        "objects": round(world.cluster.objects),
        "events a second": round(world.cluster.events_per_s),
        "all complete after (s)": first_at(moments, lambda one: one.served > 0.99999),
        "all in time after (s)": first_at(moments, in_time),
        "at rest after (s)": settled_at(moments) if rested else float("inf"),
        "shards at first / most / at rest": f"{size.shards_first} / {most_wanted(moments)} / {last.wanted}",
        "partitions": last.partitions,
        "resources in parts": ", ".join(f"{name} {count}" for name, count in largest_parts(world).items())
        or "none",
        "moves / cuts": f"{last.moves} / {last.cuts}",
        "lists": last.lists,
        "processes killed for memory": world.counts["killed for memory"],
        **balance(last),
    }
    bound = (
        f"the largest resource is one list of {largest:,.0f} objects at first ({list_s:,.0f} s), made by one shard; "
        f"parts are cut once it is measured, {world.settings.cutting.pause_s:g} s apart (cutting.pause_s)"
    )
    return Outcome("cold start", size.name, figures, bound, moments), world


def day(size: Size, world: World, step_s: float = 5.0) -> Outcome:
    """A day with a wave of half the mean, noise, and two bursts an hour somewhere."""
    world = copy.deepcopy(world)
    world.step_s = step_s
    world.cluster.wave, world.cluster.random_bursts_per_hour = 0.5, 2.0
    world.now = round(world.now)
    began, start = len(world.moments), world.moments[-1]
    flips = _note_flips(world)
    world.run(DAY_S)
    moments = world.moments[began:]
    wanted = [one.wanted for one in moments]
    changes = sum(a != b for a, b in zip(wanted, wanted[1:], strict=False))
    turns = _turns(wanted)
    figures: dict[str, float | str] = {
        "shards fewest / most": f"{min(wanted)} / {max(wanted)}",
        "changes of their number / turns": f"{changes} / {turns}",
        "moves an hour": round((moments[-1].moves - start.moves) / 24, 1),
        "of these back within an hour": flips(),
        "cuts": moments[-1].cuts - start.cuts,
        "time with a shard over its limit": f"{sum(one.over > 0 for one in moments) / len(moments):.2%}",
        "objects late, mean over the day": f"{sum(one.late for one in moments) / len(moments):.3%}",
        "lists": moments[-1].lists - start.lists,
    }
    bound = (
        "the wave: shards follow it up at once and down in steps of a tenth every five minutes "
        "(scaling.shrink_share, shrink_pause_s); bursts of one namespace cause the moves"
    )
    return Outcome("a day", size.name, figures, bound, moments)


def _turns(wanted: Sequence[int]) -> int:
    """How often the number went up after it had gone down, or down after up."""
    steps = [b - a for a, b in zip(wanted, wanted[1:], strict=False) if a != b]
    return sum((a > 0) != (b > 0) for a, b in zip(steps, steps[1:], strict=False))


def _note_flips(world: World) -> Callable[[], int]:
    """Counts moves that take a partition back to where it was within an hour before."""
    left: dict[str, tuple[str, float]] = {}
    counted = [0]
    publish = world._publish

    def noting(table: object) -> None:
        before = {route.partition.id: route.shard for route in world.table.routes}
        publish(table)  # type: ignore[arg-type]
        for route in world.table.routes:
            was = before.get(route.partition.id)
            if was is None or was == route.shard:
                continue
            back, at = left.get(route.partition.id, ("", 0.0))
            counted[0] += back == route.shard and world.now - at < 3600
            left[route.partition.id] = (was, world.now)

    world._publish = noting  # type: ignore[method-assign]
    return lambda: counted[0]


def node_lost(size: Size, world: World) -> Outcome:
    """A node is gone with the shards on it, the fullest one."""
    world = copy.deepcopy(world)
    nodes = Counter(shard.node for shard in world.shards.values())
    node = max(nodes, key=lambda name: (nodes[name], name))
    began, start = len(world.moments), world.moments[-1]
    gone = {name for name, shard in world.shards.items() if shard.node == node}
    held = [held.objects() for name in gone for held in world.shards[name].held.values()]
    lost_at, lists, killed = world.now, world.counts["lists"], world.counts["killed for memory"]
    count = world.lose_node(node)
    rested = rest(world, 3600.0)
    moments = world.moments[began:]
    lowest = min(one.served for one in moments)
    figures: dict[str, float | str] = {
        "shards lost / there were": f"{count} / {start.shards}",
        "partitions / objects on them": f"{len(held)} / {sum(held):,.0f}",
        "objects not served, at most": f"{1 - lowest:.1%}",
        "all served again after (s)": first_at(moments, lambda one: one.served > 0.99999) - lost_at,
        "all in time after (s)": first_at(moments, in_time) - lost_at,
        "at rest after (s)": settled_at(moments) - lost_at if rested else float("inf"),
        "lists": world.counts["lists"] - lists,
        "moves": moments[-1].moves - start.moves,
        "processes killed for memory": world.counts["killed for memory"] - killed,
        **balance(moments[-1]),
    }
    dead_s = world.settings.liveness.dead_after_s
    bound = (
        f"a shard is given up after {dead_s:g} s of silence (liveness.dead_after_s); then the largest partition that "
        f"was on it is one list of {max(held, default=0):,.0f} objects, of "
        f"{world.settings.permits.lists_at_once} at once (permits.lists_at_once)"
    )
    return Outcome("a node is lost", size.name, figures, bound, moments)


def burst(size: Size, world: World, where: str, lasts_s: float = 1200.0, factor: float = 10.0) -> Outcome:
    """Ten times the events in one namespace, of one resource, or of all."""
    world = copy.deepcopy(world)
    cluster = world.cluster
    what = {
        "one namespace": Burst(factor, world.now + lasts_s, "", cluster.largest()),
        "one resource": Burst(factor, world.now + lasts_s, "events"),
        "everywhere": Burst(factor, world.now + lasts_s),
    }[where]
    began, at, start, lists = len(world.moments), world.now, world.moments[-1], world.counts["lists"]
    again = world.counts["relists"]
    before = cluster.events_per_s
    cluster.bursts.append(what)
    world.run(lasts_s)
    up = world.moments[began:]
    rested = rest(world, 6 * 3600.0)
    down = world.moments[began + len(up) :]
    figures: dict[str, float | str] = {
        "events a second before / in it": f"{before:,.0f} / {max(one.events_per_s for one in up):,.0f}",
        "nobody over the limit, all in time after (s)": first_at(up, in_time) - at,
        "objects late, at most": f"{max(one.late for one in up):.1%}",
        "shards before / most": f"{start.wanted} / {most_wanted(up)}",
        "moves / cuts in it": f"{up[-1].moves - start.moves} / {up[-1].cuts - start.cuts}",
        "lists in it": world.counts["lists"] - lists,
        "lists again, too far behind": world.counts["relists"] - again,
        "shards at rest afterwards": down[-1].wanted,
        "at rest after its end (s)": settled_at(down) - down[0].at if rested else float("inf"),
        "moves / cuts afterwards": f"{down[-1].moves - up[-1].moves} / {down[-1].cuts - up[-1].cuts}",
    }
    hot = {
        "one namespace": "a namespace is carved out, then cut by uid: two cuts of a resource, cutting.pause_s apart",
        "one resource": "cuts of one resource come one after the other, cutting.pause_s apart",
        "everywhere": "shards are doubled at most, scaling.grow_pause_s apart, and start in "
        f"{world.start_s:g} s; hand-offs are one of a resource, {world.settings.placement.moves_at_once} in all",
    }[where]
    if (up[-1].moves, up[-1].cuts, most_wanted(up)) == (start.moves, start.cuts, start.wanted):
        hot = "nothing: the shards that were there had the room"
    return Outcome(f"tenfold burst, {where}", size.name, figures, hot, world.moments[began:])


def flow(world: World) -> dict[str, float | str]:
    """What the API server sends to all shards, at present rates."""
    kept = dropped = size = 0.0
    for route in world.table.routes:
        kind = world.cluster.kinds[route.partition.resource]
        events, sent = kind.rates(route.partition.cover)
        kept, dropped, size = kept + events, dropped + sent - events, size + sent * kind.load.line_bytes
    return {
        "events kept / received and dropped a second": f"{kept:,.0f} / {dropped:,.0f}",
        "MB a second from the API server": round(size / 1e6, 1),
        "cores that all shards take": round(world.moments[-1].cpu_mean * world.moments[-1].shards, 2),
    }
