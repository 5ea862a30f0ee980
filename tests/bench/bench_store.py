"""What decoding and holding cost: CPU microseconds an event, bytes an object, the time of typical reads.

    python tests/bench/bench_store.py [--pods 20000] [--events 60000] [--chunk 65536] [--json FILE]

Everything runs in this process and without network: watch lines of about 9 KB go through `Decoder.lines` and
`PartitionStore.apply` in chunks as an HTTP client would give them. Lines are made between the measured
stretches. CPU is process time; memory is the growth of the resident set from just before the first list.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from shoal.shards.api.decode import Decoder
from shoal.shards.model.fields import SELECTABLE_FIELDS
from shoal.shards.model.partitions import Epoch, Partition, PartitionId
from shoal.shards.model.queries import PageQuery
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.objects import PartitionStore

PODS = ResourceType(
    resource=Resource("", "v1", "pods"),
    kind="Pod",
    namespaced=True,
    selectable_fields=SELECTABLE_FIELDS["pods"],
)
VERSION = re.compile(rb'"resourceVersion":"\d+"')


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Lines:
    """Watch lines of the pods, each time with a newer version and another transition time."""

    def __init__(self, bodies: list[bytes], chunk: int) -> None:
        self._bodies = bodies
        self._chunk = chunk
        self.version = 1000

    def line(self, at: int, kind: bytes) -> bytes:
        self.version += 1
        body = VERSION.sub(
            b'"resourceVersion":"%d"' % self.version, self._bodies[at % len(self._bodies)], count=1
        )
        seconds = b"T%02d:%02d:%02dZ" % (self.version % 24, self.version % 60, self.version * 7 % 60)
        return b'{"type":"%b","object":%b}\n' % (kind, body.replace(b"T08:00:00Z", seconds, 1))

    def chunks(self, first: int, count: int, kind: bytes) -> Iterator[bytes]:
        """The lines in chunks as they come from a socket, made one at a time as they do there."""
        held = b""
        for at in range(first, first + count):
            held += self.line(at, kind)
            if len(held) >= self._chunk:
                yield held[: self._chunk]
                held = held[self._chunk :]
        yield held


def replay(decoder: Decoder, store: PartitionStore, lines: Lines, events: int) -> float:
    """CPU seconds of decoding and applying events."""
    seconds = 0.0
    apply = store.apply
    for chunk in lines.chunks(0, events, b"MODIFIED"):
        began = time.process_time()
        for item in decoder.lines(chunk):
            apply(item)  # type: ignore[arg-type] # observations only, as the lines are
        seconds += time.process_time() - began
    return seconds


def decoding(lines: Lines, events: int) -> float:
    """CPU seconds of decoding events."""
    seconds, decoder = 0.0, Decoder(PODS)
    for chunk in lines.chunks(0, events, b"MODIFIED"):
        began = time.process_time()
        decoder.lines(chunk)
        seconds += time.process_time() - began
    return seconds


def first_list(decoder: Decoder, store: PartitionStore, lines: Lines, pods: int) -> float:
    """CPU seconds of the streaming list."""
    store.begin()
    seconds, put = 0.0, store.put
    for chunk in lines.chunks(0, pods, b"ADDED"):
        began = time.process_time()
        for item in decoder.lines(chunk):
            put(item)  # type: ignore[arg-type] # observations only, as the lines are
        seconds += time.process_time() - began
    return seconds + cpu(lambda: store.finish(Version(lines.version)))


def reads(store: PartitionStore, lines: Lines) -> dict[str, float]:
    """CPU milliseconds of typical reads."""

    def query(**wanted: Any) -> PageQuery:
        return PageQuery(partition=PartitionId("v1/pods"), epoch=Epoch(0), **wanted)

    keys = store.page(query(limit=1)).keys
    past = Version(lines.version - 10_000)
    cases: dict[str, Callable[[], object]] = {
        "list_all_ms": lambda: [len(page.bodies) for page in store.capture(query())],
        "page_500_ms": lambda: store.page(query()),
        "label_page_ms": lambda: store.page(query(labels="tier=backend", limit=100)),
        "label_notin_count_ms": lambda: store.count(query(labels="tier notin (backend)")),
        "node_ms": lambda: store.page(query(fields="spec.nodeName=node-011")),
        "past_page_first_ms": lambda: store.page(query(at=past)),
        "past_page_next_ms": lambda: store.page(query(at=past, after=keys[0])),
        "get_ms": lambda: store.get(keys[0]),
    }
    return {name: cpu(work) * 1e3 for name, work in cases.items()}


def measure(bodies: list[bytes], *, events: int, chunk: int) -> dict[str, float]:
    lines = Lines(bodies, chunk)
    decoder = Decoder(PODS)
    found = {"decode_us": decoding(lines, 2000) / 2000 * 1e6}
    store = PartitionStore(Partition(PODS.resource), PODS, settings=StoreSettings(), clock=time.monotonic)
    gc.collect()
    before = resident()
    listed_s = first_list(decoder, store, lines, len(bodies))
    gc.collect()
    listed_bytes = resident() - before
    found |= {
        "pods": float(len(store)),
        "line_bytes": float(len(lines.line(0, b"ADDED"))),
        "list_us": listed_s / len(bodies) * 1e6,
        "object_bytes": listed_bytes / len(bodies),
        "packed_bytes": store.body_bytes / len(bodies),
    }
    found["event_us"] = replay(decoder, store, lines, events) / events * 1e6
    gc.collect()
    history = store.history_statistics()
    found |= {
        "history_events": float(history.events),
        "history_bytes_an_event": history.bytes / max(1, history.events),
        "object_bytes_with_history": (resident() - before) / len(bodies),
    }
    return found | reads(store, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--chunk", type=int, default=65_536)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from shoal.cluster.simulator.population import pod_bodies

    found = measure(list(pod_bodies(options.pods)), events=options.events, chunk=options.chunk)
    table = Table("measure", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:,.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
