"""What moving a partition costs: CPU microseconds an object, bytes on the wire, memory at the destination.

    python tests/bench/bench_transfer.py [--pods 20000] [--events 20000] [--max-bytes 1048576] [--json FILE]

Everything runs in this process and without network: a store is filled with realistic pods and some of their past, as
`bench_store` does, and moved to another one through frames. CPU is process time. "longest" is the longest stretch in
one go, for as long as it takes nobody else is served.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from bench_store import PODS, Lines, first_list, replay, resident

from shoal.shards.api.decode import Decoder
from shoal.shards.model.partitions import EVERYTHING, HASH_END, HashRange, Partition
from shoal.shards.settings import StoreSettings
from shoal.shards.store.objects import PartitionStore
from shoal.shards.store.transfer import Arrival, Extract, extract, join

T = TypeVar("T")


class Stretches:
    """CPU seconds of some work, all of it and its longest stretch."""

    def __init__(self) -> None:
        self.sum = self.longest = 0.0

    def of(self, work: Callable[[], T]) -> T:
        began = time.process_time()
        done = work()
        took = time.process_time() - began
        self.sum += took
        self.longest = max(self.longest, took)
        return done

    def each(self, steps: Iterator[T]) -> Iterator[T]:
        """The steps, each a stretch."""
        while (step := self.of(lambda: next(steps, None))) is not None:
            yield step


def new() -> PartitionStore:
    return PartitionStore(Partition(PODS.resource), PODS, settings=StoreSettings(), clock=time.monotonic)


def filled(bodies: list[bytes], events: int) -> PartitionStore:
    lines, decoder, store = Lines(bodies, 65_536), Decoder(PODS), new()
    first_list(decoder, store, lines, len(bodies))
    replay(decoder, store, lines, events)
    return store


def carried(extract: Extract, max_bytes: int, sent: Stretches, taken: Stretches) -> tuple[Extract, list[int]]:
    """What comes of it, and how long its frames were."""
    arrival, lengths = Arrival(), []
    for frame in sent.each(extract.frames(max_bytes)):
        lengths.append(len(frame))
        taken.of(lambda frame=frame: arrival.take(frame))
    return taken.of(arrival.finish), lengths


def measure(bodies: list[bytes], *, events: int, max_bytes: int) -> dict[str, float]:
    source = filled(bodies, events)
    past, count = source.history_statistics(), len(source)
    captured, halved, sent, taken, made = (Stretches() for _ in range(5))
    whole = captured.of(lambda: extract(source, EVERYTHING))
    halved.of(lambda: extract(source, HashRange("uid", 0, HASH_END // 2)))
    gc.collect()
    before = resident()
    came, lengths = carried(whole, max_bytes, sent, taken)
    target = new()
    for _ in made.each(true_steps(target, came)):
        pass
    del came
    gc.collect()
    after = resident()
    assert target.audit == source.audit
    assert len(target) == count
    return {
        "objects": count,
        "history_events": past.events,
        "capture_us": captured.sum / count * 1e6,
        "capture_half_by_uid_us": halved.sum / count * 1e6,
        "send_us": sent.sum / count * 1e6,
        "take_us": taken.sum / count * 1e6,
        "send_take_us_a_state": (sent.sum + taken.sum) / (count + past.events) * 1e6,
        "restore_us": made.sum / count * 1e6,
        "send_longest_ms": sent.longest * 1e3,
        "take_longest_ms": taken.longest * 1e3,
        "restore_longest_ms": made.longest * 1e3,
        "wire_bytes": sum(lengths) / count,
        "packed_bytes": source.body_bytes / count,
        "wire_to_held": sum(lengths) / (source.body_bytes + past.bytes),
        "frame_bytes_max": max(lengths),
        "memory_bytes": (after - before) / count,
    }


def true_steps(target: PartitionStore, came: Extract) -> Iterator[bool]:
    for _ in target.restoring(join([came], EVERYTHING)):
        yield True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--max-bytes", type=int, default=1 << 20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from shoal.cluster.simulator.population import pod_bodies

    found = measure(list(pod_bodies(options.pods)), events=options.events, max_bytes=options.max_bytes)
    table = Table("measure", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:,.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
