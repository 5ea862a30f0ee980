"""Shoal at sizes nobody has on a desk, in virtual time: a table as text, `docs/scale.md`, and charts in `docs/scale/`.

    python tests/bench/scale.py [--sizes 1k 10k 100k readers tight] [--only cold node namespace resource all day]
                                [--no-costs] [--folder docs]

The deciding code is the real one (planner, decider, hand-offs, permits, route tables); clusters and shards are
modelled: `tests/support/scale_*.py` say how, `docs/scale.md` says it again beside the figures. What is run is kept in
``docs/scale/figures.json``, and what is not run is taken from there, so that a part can be run alone. All of it takes
about an hour on one core; the figures are the same in every run, but for the CPU of passes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.scale_charts import Line, Panel, chart
from support.scale_experiments import (
    GIB,
    Outcome,
    Size,
    burst,
    cold_start,
    day,
    flow,
    node_lost,
)
from support.scale_report import report
from support.scale_tables import measure
from support.scale_world import Moment, World

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "1k": Size(nodes=1_000, shards_first=2, memory_bytes=GIB // 2),
    "10k": Size(nodes=10_000, shards_first=2, memory_bytes=GIB),
    "10k-unselected": Size(nodes=10_000, shards_first=2, memory_bytes=GIB, selects=()),
    "100k": Size(nodes=100_000, shards_first=4, memory_bytes=8 * GIB, remembers=False),
    "100k-unselected": Size(nodes=100_000, shards_first=4, memory_bytes=8 * GIB, remembers=False, selects=()),
    "readers": Size(nodes=100_000, shards_first=4, memory_bytes=8 * GIB, remembers=False, queries_per_s=4.0),
    "tight": Size(nodes=100_000, shards_first=4, memory_bytes=2 * GIB, remembers=False),
}
EXPERIMENTS: dict[str, Callable[[Size, World], Outcome]] = {
    "node": node_lost,
    "namespace": lambda size, world: burst(size, world, "one namespace"),
    "resource": lambda size, world: burst(size, world, "one resource"),
    "all": lambda size, world: burst(size, world, "everywhere"),
    "day": day,
}
ONLY_COLD = ("10k-unselected", "100k-unselected", "tight")
"""Sizes with which nothing is tried but a cold start."""
ONLY_LOST = ("readers",)
"""... and the loss of a node."""
PASSES = ((4, 100), (20, 200), (100, 400), (300, 600), (300, 1000), (1000, 1000))
"""Shards and partitions."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--only", nargs="*", choices=["cold", *EXPERIMENTS], default=["cold", *EXPERIMENTS])
    parser.add_argument("--no-costs", action="store_true")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    folder: Path = options.folder / "scale"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "figures.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"outcomes": {}, "costs": []}
    for name in options.sizes:
        for key, outcome in run(name, SIZES[name], options.only):
            found["outcomes"].setdefault(name, {})[key] = {
                "what": outcome.what,
                "size": outcome.size,
                "figures": {what: _plain(figure) for what, figure in outcome.figures.items()},
                "bound": outcome.bound,
            }
            if outcome.moments:
                (folder / f"{name}-{key}.svg").write_text(picture(outcome), encoding="utf-8")
            kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not options.no_costs:
        found["costs"] = [asdict(measure(shards, partitions)) for shards, partitions in PASSES]
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (options.folder / "scale.md").write_text(report(found, folder), encoding="utf-8")


def run(name: str, size: Size, only: list[str]) -> Iterator[tuple[str, Outcome]]:
    """The experiments of one size, each printed as it comes."""
    possible = [] if name in ONLY_COLD else ["node"] if name in ONLY_LOST else list(EXPERIMENTS)
    began = time.monotonic()
    outcome, world = cold_start(size, within_s=1800.0 if name == "tight" else 5400.0)
    if "cold" in only:
        outcome.figures |= flow(world)
        show(outcome, time.monotonic() - began)
        yield "cold", outcome
    for key in possible:
        if key in only:
            began = time.monotonic()
            outcome = EXPERIMENTS[key](size, world)
            show(outcome, time.monotonic() - began)
            yield key, outcome


def show(outcome: Outcome, took_s: float) -> None:
    """The table as text."""
    table = Table("", outcome.size, title=f"{outcome.what} ({took_s:.0f} s to compute)", title_justify="left")
    for what, figure in outcome.figures.items():
        table.add_row(what, _text(figure))
    Console(width=120).print(table, f"bound by: {outcome.bound}", "")


def picture(outcome: Outcome) -> str:
    """Of what happened over time."""
    moments = outcome.moments
    begin = moments[0].at
    unit, name = (3600.0, "hours") if moments[-1].at - begin > 5 * 3600 else (60.0, "minutes")

    def line(what: str, of: Callable[[Moment], float]) -> Line:
        return Line(what, [((moment.at - begin) / unit, of(moment)) for moment in moments])

    panels = [
        Panel("shards", [line("there", lambda one: one.shards), line("wanted", lambda one: one.wanted)]),
        Panel(
            "cores that following and answering take",
            [line("busiest shard", lambda one: one.cpu_max), line("mean", lambda one: one.cpu_mean)],
        ),
        Panel(
            "percent of all objects",
            [
                line("served", lambda one: 100 * one.served),
                line("more than 2 s late", lambda one: 100 * one.late),
            ],
        ),
    ]
    return chart(f"{outcome.what}: {outcome.size}", name, panels)


def _plain(figure: float | str) -> float | str:
    return "never" if isinstance(figure, float) and not math.isfinite(figure) else figure


def _text(figure: float | str) -> str:
    figure = _plain(figure)
    return figure if isinstance(figure, str) else f"{figure:,.10g}"


if __name__ == "__main__":
    main()
