"""What an informer costs its process: Shoal's in one process, the official client's, and Shoal's through a gateway.

Each follows the same pods and then the same events, in a process of its own that does nothing else, with one handler
that reads three fields of every event. CPU and memory are that process's. Nothing of it is on Ray but the installation
that the third one reads from.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

FOLLOWERS = ("local", "official", "remote")
TITLES = {"local": "shoal.local", "official": "kubernetes.informer", "remote": "shoal.connect"}
GOALS = {"event_cpu_us": 60.0, "bytes_an_object": 3000.0}
"""To reach by `shoal.local`. The official client took 622 us and 115 KB before."""
PATIENCE_S = 600.0
SETTLE_S = 1.0


class Counted:
    """A handler that reads three fields, and says when it has seen enough."""

    def __init__(self, pods: int, events: int) -> None:
        self.read = 0
        self._wanted = (pods, events)
        self._seen = [0, 0]
        self.listed, self.updated, self.reported = threading.Event(), threading.Event(), threading.Event()

    def take(self, name: str, node: str | None, phase: str, *, update: bool) -> None:
        """One event's fields."""
        self.read += len(name) + len(node or "") + len(phase)
        self._seen[update] += 1
        if self._seen[update] == self._wanted[update]:
            (self.updated if update else self.listed).set()


@dataclass(frozen=True)
class Cost:
    """Of a process so far."""

    cpu_s: float
    at: float
    bytes: int


def _cost() -> Cost:
    gc.collect()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE"))


# -- the followers, in processes of their own ------------------------------------------------------------------


def _follow_with_shoal(counted: Counted, target: str, ready: Callable[[], None], *, remote: bool) -> None:
    import uvloop

    import shoal

    def told(pod: Any, *, update: bool) -> None:
        counted.take(pod.metadata.name, pod.get("spec", "nodeName"), pod.status.phase, update=update)

    async def main() -> None:
        async with shoal.connect(target) if remote else shoal.local(kubeconfig=target) as client:
            informer = client.informer("v1/pods")
            informer.add_handler(
                on_add=lambda pod, _: told(pod, update=False), on_update=lambda _, pod: told(pod, update=True)
            )
            ready()
            await informer.synced()
            await asyncio.to_thread(counted.reported.wait)

    uvloop.run(main())


def _follow_with_the_official_one(counted: Counted, target: str, ready: Callable[[], None]) -> None:
    from kubernetes import client, config
    from kubernetes.informer import ADDED, MODIFIED, SharedInformer

    logging.disable(logging.CRITICAL)  # it tells at length that a server went away
    config.load_kube_config(target)
    informer = SharedInformer(client.CoreV1Api().list_pod_for_all_namespaces)

    def told(pod: Any, *, update: bool) -> None:
        counted.take(pod.metadata.name, pod.spec.node_name, pod.status.phase, update=update)

    informer.add_event_handler(ADDED, lambda pod: told(pod, update=False))
    informer.add_event_handler(MODIFIED, lambda pod: told(pod, update=True))
    ready()
    informer.start()
    counted.reported.wait()
    informer.stop()


def _main(kind: str, target: str, pods: int, events: int, pipe: Connection) -> None:
    counted = Counted(pods, events)

    def measure() -> None:
        pipe.send(_cost())
        assert pipe.recv() == "sync"
        began = _cost()
        threading.Thread(target=_tell, args=(counted, began, pipe), daemon=True).start()

    match kind:
        case "official":
            _follow_with_the_official_one(counted, target, measure)
        case _:
            _follow_with_shoal(counted, target, measure, remote=kind == "remote")


def _tell(counted: Counted, began: Cost, pipe: Connection) -> None:
    assert counted.listed.wait(PATIENCE_S)
    synced = _cost()
    time.sleep(SETTLE_S)
    steady = _cost()
    pipe.send((began, synced, steady))
    assert pipe.recv() == "go"
    before = _cost()
    assert counted.updated.wait(PATIENCE_S)
    pipe.send((before, _cost()))
    counted.reported.set()


# -- the measuring process -------------------------------------------------------------------------------------


@contextmanager
def _follower(kind: str, target: str, pods: int, events: int) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_main, args=(kind, target, pods, events, theirs)
    )
    process.start()
    theirs.close()
    try:
        yield ours
        process.join(10)
    finally:
        if process.is_alive():
            process.kill()


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(PATIENCE_S):
        raise TimeoutError(f"the informer said nothing for {PATIENCE_S:.0f} s")
    return pipe.recv()


def follow(
    kind: str, target: str, pods: int, events: int, *, sync: Callable[[], None], go: Callable[[], None]
) -> dict[str, float]:
    """One informer's figures. `sync` and `go` let the API server list, and change pods."""
    with _follower(kind, target, pods, events) as pipe:
        empty = _receive(pipe)
        pipe.send("sync")
        sync()
        began, synced, steady = _receive(pipe)
        pipe.send("go")
        go()
        before, after = _receive(pipe)
    return {
        "empty_bytes": empty.bytes,
        "sync_s": synced.at - began.at,
        "sync_cpu_s": synced.cpu_s - began.cpu_s,
        "bytes_an_object": (steady.bytes - empty.bytes) / pods,
        "event_cpu_us": (after.cpu_s - before.cpu_s) / events * 1e6,
        "events_a_s": events / (after.at - before.at),
    }


def measure_direct(
    kind: str, source: str, pods: int, events: int, post: Callable[[str], None]
) -> dict[str, float]:
    """An informer that follows the API server at `source` itself."""
    from shoal.cluster.simulator.write_kubeconfig import write_kubeconfig

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/kubeconfig"
        write_kubeconfig(Path(path), source)
        return follow(kind, path, pods, events, sync=lambda: post("/sync"), go=lambda: post("/go"))


def missed(found: dict[str, dict[str, float]]) -> list[str]:
    """Names of the figures that were not reached."""
    return [f"informer_{name}" for name, most in GOALS.items() if not found["local"][name] <= most]


def rows(pods: int, events: int, found: dict[str, dict[str, float]]) -> Iterator[tuple[str, ...]]:
    """Rows of the report: what, a figure of each informer, and what `shoal.local` has to reach."""
    names = {
        "event_cpu_us": ("CPU an event, us", "{:,.1f}"),
        "events_a_s": ("events a second", "{:,.0f}"),
        "bytes_an_object": ("bytes an object (growth of the resident set)", "{:,.0f}"),
        "sync_s": ("initial sync, wall clock, s", "{:,.1f}"),
        "sync_cpu_s": ("initial sync, CPU, s", "{:,.2f}"),
    }
    yield (f"Informers: {pods:,} pods, {events:,} MODIFIED events, one handler", *[""] * len(FOLLOWERS), "")
    for name, (text, form) in names.items():
        goal = f"{GOALS[name]:,.0f}" if name in GOALS else ""
        yield (text, *(form.format(found[kind][name]) if kind in found else "" for kind in FOLLOWERS), goal)
