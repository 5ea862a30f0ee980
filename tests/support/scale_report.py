"""`docs/scale.md`, written from figures: what was tried, what came of it, what bounds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = {
    "1k": "1 000 nodes",
    "10k": "10 000",
    "10k-unselected": "10 000, not by hash",
    "100k": "100 000",
    "100k-unselected": "100 000, not by hash",
    "readers": "100 000, readers",
    "tight": "100 000, 2 GiB",
}
TITLES = {
    "cold": ("Cold start", "Empty shards, an API server that has everything, lists under permits."),
    "node": (
        "A node is lost",
        "The node with the most shards, once everything is at rest; its actors come back elsewhere after 30 s.",
    ),
    "namespace": (
        "Ten times the events in one namespace",
        "For 20 minutes, in the largest one, of all resources.",
    ),
    "resource": ("Ten times the events of one resource", "For 20 minutes, of `events`."),
    "all": ("Ten times the events everywhere", "For 20 minutes."),
    "day": (
        "A day",
        "Events go up and down by half with the hour, with noise; twice an hour one resource has three to ten times as "
        "many in some namespace.",
    ),
}
HEAD = """# How Shoal scales

Written by `make scale`. Nothing here was measured on a cluster of such a size. What decides is the real code: planner,
decider, hand-offs, permits, liveness, route tables. What it decides about is modelled, in virtual time, in steps of a
second (five, over a day):

| | a node | at 100 000 nodes |
| --- | ---: | ---: |
| objects: 30 pods, 7 events, ten more kinds; 80 small custom resources beside | 50 | 5 000 000 |
| events a second: 0.2 of pods, 0.12 of events, 0.1 of leases, 0.04 of endpoint slices | 0.5 | 50 000 |
| namespaces, sized by Zipf's law; the leases of nodes are all in one | 0.1 | 10 000 |

A shard has one core: 45 us an event (`make bench` allows that, and measures 28), 16 us one that is dropped, 36 us an
object that is listed, 15 us a state that is sent and taken (`tests/bench/bench_transfer.py`); 1 250 bytes and the body
an object, 730 bytes an event of the past, up to 16 MiB a partition. Its tasks share the core evenly if they want more.
Above its memory it is killed. Assumed are: one list brings 10 000 objects a second, all together 100 000; a shard takes
12 s to start. A copy further behind than the API server's watch cache reaches (102 400 events of a resource) lists
again; at 100 000 nodes that would be five seconds of pods, so there the server is assumed to remember everything.
Settings are the defaults, with at least as many shards as there are at first and 400 at most, and with memory of
512 MiB at 1 000 nodes, 1 GiB at 10 000 and 8 GiB at 100 000, where nothing else is said.

*Late*: more than 2 s behind. *Over the limit*: what a shard follows and answers takes more than a core. *At rest*: no
move, cut, or change of the number of shards for 5 minutes. *Not by hash*: the API server has no `shardSelector`.
*Readers*: four queries a second for each node, at 250 us.
"""
COSTS = (
    ("shards", "shards", "{:,}"),
    ("partitions", "partitions", "{:,}"),
    ("taking_ms", "statistics taken in (ms)", "{:.1f}"),
    ("pass_ms", "a pass, planning included (ms)", "{:.1f}"),
    ("planning_ms", "planning (ms)", "{:.1f}"),
    ("first_ms", "the first pass of a coordinator that comes back (ms)", "{:.0f}"),
    ("memory_mb", "memory of the coordinator's modules (MB)", "{:.1f}"),
    ("table_bytes", "route table (bytes)", "{:,}"),
    ("encode_ms", "encoded in (ms)", "{:.1f}"),
    ("decode_ms", "decoded in (ms)", "{:.1f}"),
    ("index_ms", "indexed in (ms)", "{:.1f}"),
    ("route_us", "looking up a partition (us)", "{:.1f}"),
    ("of_us", "looking up who can hold a namespace of the resource in most parts (us)", "{:.0f}"),
)
COSTS_SAY = """CPU of the machine this was written on: medians of 12 passes in which nothing has to be done; tables as
Python pickles them for Ray. Of 100 resources ten are in parts: a third of these are namespaces carved out (32 at most),
the rest ranges of uid.
"""
COSTS_BOUND = """Bound by: the number of partitions, all of which are compared in every pass, and for a query the number
of parts of its resource, which are looked at one by one; a table goes to every gateway with every change.

`make scale ARGS="--sizes"`
"""


def report(found: Mapping[str, Any], folder: Path) -> str:
    """The whole page. Charts that are in `folder` are linked."""
    parts = [HEAD]
    outcomes = found["outcomes"]
    for key in TITLES:
        sizes = [name for name in NAMES if key in outcomes.get(name, {})]
        if sizes:
            parts += _experiment(key, {name: outcomes[name][key] for name in sizes}, folder)
    if found["costs"]:
        parts += ["## What deciding costs\n", COSTS_SAY, _costs(found["costs"]), COSTS_BOUND]
    return "\n".join(parts).rstrip() + "\n"


def _experiment(key: str, outcomes: Mapping[str, Any], folder: Path) -> list[str]:
    title, what = TITLES[key]
    columns = [outcome["figures"] for outcome in outcomes.values()]
    parts = [f"## {title}\n", f"{what}\n", _table(columns, list(outcomes))]
    bounds: dict[str, list[str]] = {}
    for name, outcome in outcomes.items():
        bounds.setdefault(outcome["bound"], []).append(NAMES[name])
    for bound, names in bounds.items():
        parts.append(f"Bound by{f' ({names[0]})' if len(bounds) > 1 else ''}: {bound}.\n")
    drawn = [name for name in outcomes if (folder / f"{name}-{key}.svg").exists()]
    if drawn:
        shown = "100k" if "100k" in drawn else drawn[-1]
        parts.append(f"![{title}: {NAMES[shown]}](scale/{shown}-{key}.svg)\n")
        others = [f"[{NAMES[name]}](scale/{name}-{key}.svg)" for name in drawn if name != shown]
        parts += [f"Others: {', '.join(others)}.\n"] if others else []
    parts.append(f'`make scale ARGS="--only {key} --no-costs"`\n')
    return parts


def _table(columns: Sequence[Mapping[str, float | str]], sizes: Sequence[str]) -> str:
    rows = list(dict.fromkeys(what for column in columns for what in column))
    lines = [f"| | {' | '.join(NAMES[name] for name in sizes)} |", f"| --- |{' ---: |' * len(sizes)}"]
    lines += [
        f"| {what} | {' | '.join(_text(column.get(what, '')) for column in columns)} |" for what in rows
    ]
    return "\n".join(lines) + "\n"


def _costs(costs: Sequence[Mapping[str, float]]) -> str:
    (key, name, form), *others = COSTS
    lines = [
        f"| {name} | {' | '.join(form.format(one[key]) for one in costs)} |",
        f"| --- |{' ---: |' * len(costs)}",
    ]
    lines += [
        f"| {name} | {' | '.join(form.format(one[key]) for one in costs)} |" for key, name, form in others
    ]
    return "\n".join(lines) + "\n"


def _text(figure: float | str) -> str:
    return figure if isinstance(figure, str) else f"{figure:,.10g}"
