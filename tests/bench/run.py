"""Measures following and serving, each with a whole installation on Ray, and prints one table and JSON.

    python tests/bench/run.py [--pods 20000] [--events 60000] [--only following|serving|informers|queues] [--json FILE]

*Following*: one shard against an API server that replays. *Serving* (`serving`): two shards and a gateway, beside the
embedded API server and, where ``SHOAL_TEST_KUBECONFIG`` names one, a real one. *Informers* (`informers`): Shoal's, the
official Python client's, and Shoal's through a gateway. *Queues* (`queueing`): work queues. The exit code is 1 where a
figure is missed.

CPU and memory are those of the shard's process, read from /proc, so other load on the machine hardly counts. Wall-clock
figures (events a second, LIST seconds) are for this machine and moment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import informers
import msgspec
import psutil
import queueing
import serving
from rich.console import Console
from rich.table import Table

from shoal.cluster import ray_environment
from shoal.cluster.cli.server import Server
from shoal.cluster.settings import ShoalSettings
from shoal.cluster.simulator.population import pod_bodies
from shoal.cluster.simulator.write_kubeconfig import write_kubeconfig
from shoal.shards.api.client import HttpConnection, PlainCredentials, fetch
from shoal.shards.api.kubeconfig import load_kubeconfig
from shoal.shards.api.requests import ApiRequest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.installation import process_of

CPU_US_MAX, OBJECT_BYTES_MAX, PEAK_MAX = 45.0, 2500.0, 1.5
GOALS = {
    "event_cpu_us": CPU_US_MAX,
    "bytes_an_object": OBJECT_BYTES_MAX,
    "peak_over_steady": PEAK_MAX,
    "sync_peak_over_steady": PEAK_MAX,
}
LABEL_HITS = 100
COLUMNS = 3
"""Of figures; not every part fills them."""
POLL_S = 0.5


class Labels(msgspec.Struct):
    labels: dict[str, str]


class Pod(msgspec.Struct):
    metadata: Labels


class PodList(msgspec.Struct):
    items: list[msgspec.Raw]


@contextlib.contextmanager
def replay(pods: int, events: int):
    command = [
        sys.executable,
        Path(__file__).with_name("replay.py"),
        "--pods",
        str(pods),
        "--events",
        str(events),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process now, and the most since `reset_peak`."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(lines["VmRSS"].split()[0]) * 1024, int(lines["VmHWM"].split()[0]) * 1024


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def post(url: str, path: str) -> None:
    connection = HttpConnection(PlainCredentials(url))
    try:
        await fetch(connection, ApiRequest("POST", path))
    finally:
        await connection.aclose()


async def statistics(server: Server):
    """The shard and its one partition, once there is one."""
    while True:
        status = await server.status()
        for report in status.report.shards:
            if report.statistics is not None and report.statistics.partitions:
                return report.statistics, report.statistics.partitions[0]
        await asyncio.sleep(POLL_S)


def selection(pods: int) -> str:
    """A label selector that matches `LABEL_HITS` pods, or as nearly as the population allows."""
    counts = Counter(
        msgspec.json.decode(body, type=Pod).metadata.labels.get("app", "") for body in pod_bodies(pods)
    )
    chosen, left = [], LABEL_HITS
    for app, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if app and count <= left:
            chosen.append(app)
            left -= count
    return f"app in ({','.join(chosen)})"


async def measure(server: Server, source: str, pods: int, events: int) -> dict[str, float]:
    found: dict[str, float] = {"pods": pods, "events": events}
    shard, partition = await statistics(server)
    process = psutil.Process(shard.pid)
    await asyncio.sleep(2 * POLL_S)
    found["empty_bytes"], _ = memory(shard.pid)
    reset_peak(shard.pid)
    began_cpu, began = cpu(process), time.monotonic()
    await post(source, "/sync")
    while partition.state != "synced":
        await asyncio.sleep(POLL_S)
        _, partition = await statistics(server)
    assert partition.objects == pods, f"{partition.objects} of {pods} objects"
    found["sync_cpu_s"], found["sync_s"] = cpu(process) - began_cpu, time.monotonic() - began
    await asyncio.sleep(2 * POLL_S)
    found["steady_bytes"], found["sync_peak_bytes"] = memory(shard.pid)
    found["body_bytes_an_object"] = partition.body_bytes / pods

    goal = partition.frontier + events
    began_cpu, began = cpu(process), time.monotonic()
    await post(source, "/go")
    while partition.frontier < goal:
        await asyncio.sleep(POLL_S)
        _, partition = await statistics(server)
    taken = time.monotonic() - began
    assert partition.events["modified"] == events, partition.events
    found["event_cpu_us"] = (cpu(process) - began_cpu) / events * 1e6
    found["events_a_s"] = events / taken
    await asyncio.sleep(2 * POLL_S)
    found["after_events_bytes"], found["peak_bytes"] = memory(shard.pid)
    found["history_bytes"], found["history_events"] = partition.history_bytes, partition.history_events
    found["bytes_an_object"] = (found["steady_bytes"] - found["empty_bytes"]) / pods
    found["bytes_an_object_after_events"] = (found["after_events_bytes"] - found["empty_bytes"]) / pods
    found["peak_over_steady"] = found["peak_bytes"] / found["after_events_bytes"]
    found["sync_peak_over_steady"] = found["sync_peak_bytes"] / found["steady_bytes"]

    gateway = process_of("GatewayActor")
    for name, query, times in (("all", (), 3), ("label", (("labelSelector", selection(pods)),), 50)):
        before, began = cpu(process) + cpu(gateway), time.monotonic()
        for _ in range(times):
            body = await server.fetch("/api/v1/pods", query)
        found[f"list_{name}_s"] = (time.monotonic() - began) / times
        found[f"list_{name}_cpu_s"] = (cpu(process) + cpu(gateway) - before) / times
        found[f"list_{name}_bytes"] = len(body)
        found[f"list_{name}_objects"] = len(msgspec.json.decode(body, type=PodList).items)
    return found


def following_rows(found: dict[str, float]) -> tuple[tuple[str, str, str], ...]:
    """What was measured of following: what, figure, goal."""
    kib = 1024
    return (
        (f"Following {found['pods']:,} pods, {found['events']:,} MODIFIED events, one shard", "", ""),
        ("CPU an event, shard process", f"{found['event_cpu_us']:.1f} us", f"{CPU_US_MAX:.0f} us"),
        ("events a second", f"{found['events_a_s']:,.0f}", ""),
        ("initial sync, CPU", f"{found['sync_cpu_s']:.2f} s", ""),
        ("initial sync, wall clock", f"{found['sync_s']:.1f} s", ""),
        (
            "bytes an object (growth of the resident set)",
            f"{found['bytes_an_object']:,.0f}",
            f"{OBJECT_BYTES_MAX:,.0f}",
        ),
        ("  of which compressed body", f"{found['body_bytes_an_object']:,.0f}", ""),
        (
            f"bytes an object with {found['history_events']:,.0f} events of history",
            f"{found['bytes_an_object_after_events']:,.0f}",
            "",
        ),
        ("peak over steady, initial sync", f"{found['sync_peak_over_steady']:.2f}", f"{PEAK_MAX}"),
        ("peak over steady, sync and events", f"{found['peak_over_steady']:.2f}", f"{PEAK_MAX}"),
        ("resident set of the shard, empty", f"{found['empty_bytes'] / kib**2:,.0f} MiB", ""),
        ("resident set of the shard, synced", f"{found['steady_bytes'] / kib**2:,.0f} MiB", ""),
        (
            f"LIST of everything ({found['list_all_bytes'] / 1e6:.0f} MB, {found['list_all_objects']:,.0f} objects)",
            f"{found['list_all_s'] * 1e3:,.0f} ms",
            "",
        ),
        ("  CPU of shard and gateway", f"{found['list_all_cpu_s'] * 1e3:,.0f} ms", ""),
        (
            f"LIST of {found['list_label_objects']:,.0f} label hits",
            f"{found['list_label_s'] * 1e3:,.1f} ms",
            "",
        ),
        ("  CPU of shard and gateway", f"{found['list_label_cpu_s'] * 1e3:,.1f} ms", ""),
    )


def report(options: argparse.Namespace, found: dict[str, dict]) -> Table:
    """One table: a row a figure, with the columns of the part it belongs to, and what is to be reached."""
    table = Table(show_header=False)
    for at in range(COLUMNS + 2):
        table.add_column(justify="right" if at else "left")

    def add(what: str, *figures: str, goal: str = "") -> None:
        table.add_row(what, *[""] * (COLUMNS - len(figures)), *figures, goal)

    def part(title: str, *names: str) -> None:
        table.add_section()
        add(f"[bold]{title}", *names, goal="to reach")

    if following := found.get("following"):
        part("", "shoal")
        for what, measured, goal in following_rows(following):
            add(what, measured, goal=goal)
    if served := found.get("serving"):
        servers = [name for name in serving.SERVERS if name in served]
        part("", *servers)
        for what, *figures, goal in serving.rows(options.pods, served, servers):
            add(what, *figures, goal=goal)
    if informed := found.get("informers"):
        part("", *(informers.TITLES[kind] for kind in informers.FOLLOWERS))
        for what, *figures, goal in informers.rows(options.pods, options.events, informed):
            add(what, *figures, goal=goal)
    if queued := found.get("queues"):
        part("", "shoal")
        for what, measured, goal in queueing.rows(queued):
            add(what, measured, goal=goal)
    return table


def one_shard() -> ShoalSettings:
    """One shard and a gateway on a port of its own."""
    settings = ShoalSettings(shards=1)
    return msgspec.structs.replace(
        settings, gateway=msgspec.structs.replace(settings.gateway, listen="127.0.0.1:0")
    )


def measure_following(pods: int, events: int) -> dict[str, float]:
    """One shard against a replaying API server."""
    from shoal.cluster.bootstrap import bring_up, ray_cluster, take_down

    settings = one_shard()

    async def run(source: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            write_kubeconfig(Path(folder) / "kubeconfig", source)
            installation = await bring_up(settings, load_kubeconfig(f"{folder}/kubeconfig"))
            try:
                async with Server(installation.url) as server:
                    return await measure(server, source, pods, events)
            finally:
                await take_down()

    with replay(pods, events) as source, ray_cluster(settings):
        return asyncio.run(run(source))


def measure_informers(pods: int, events: int) -> dict[str, dict[str, float]]:
    """Every informer against a replaying API server of its own, the last one through one shard and a gateway."""
    from shoal.cluster.bootstrap import bring_up, ray_cluster, take_down

    found = {}
    for kind in ("local", "official"):
        with replay(pods, events) as source:
            found[kind] = informers.measure_direct(
                kind, source, pods, events, lambda path, to=source: asyncio.run(post(to, path))
            )
    settings = one_shard()

    async def run(source: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            write_kubeconfig(Path(folder) / "kubeconfig", source)
            installation = await bring_up(settings, load_kubeconfig(f"{folder}/kubeconfig"))
            try:
                await post(source, "/sync")
                async with Server(installation.url) as server:
                    while (await statistics(server))[1].state != "synced":
                        await asyncio.sleep(POLL_S)
                return await asyncio.to_thread(
                    informers.follow,
                    "remote",
                    installation.url,
                    pods,
                    events,
                    sync=lambda: None,
                    go=lambda: asyncio.run(post(source, "/go")),
                )
            finally:
                await take_down()

    with replay(pods, events) as source, ray_cluster(settings):
        found["remote"] = asyncio.run(run(source))
    return found


def measure_serving(pods: int) -> dict[str, dict[str, float]]:
    """Two shards and a gateway, and others beside them."""
    from shoal.cluster.bootstrap import ray_cluster

    with ray_cluster(serving.settings()):
        return serving.measure(pods)


PARTS = {
    "following": lambda options: measure_following(options.pods, options.events),
    "serving": lambda options: measure_serving(options.pods),
    "informers": lambda options: measure_informers(options.pods, options.events),
    "queues": lambda options: queueing.measure(),
}


def missed(part: str, found: dict) -> list[str]:
    """Names of the figures of one part that were not reached."""
    match part:
        case "following":
            return [name for name, most in GOALS.items() if found[name] > most]
        case "serving":
            return serving.missed(found)
        case "informers":
            return informers.missed(found)
        case _:
            return queueing.missed(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    ray_environment.prepare(starts_cluster=True)
    parts = [options.only] if options.only else list(PARTS)
    found = {part: PARTS[part](options) for part in parts}
    Console(width=120).print(report(options, found))
    figures = json.dumps(found)
    print(figures)
    if options.json:
        options.json.write_text(figures + "\n")
    if lacking := [name for part in parts for name in missed(part, found[part])]:
        sys.exit(f"missed: {', '.join(lacking)}")


if __name__ == "__main__":
    main()
