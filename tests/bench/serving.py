"""How fast the gateway serves: two shards, a gateway and an API server in processes of their own.

Reading is measured as one client sees it, over a connection that stays open; delivering as the gateway's CPU, read from
/proc, divided by the events and by the watchers they went to. The embedded API server answers the same questions in the
same run, and so does the cluster that ``SHOAL_TEST_KUBECONFIG`` names, in which the same pods are made.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec
import psutil
from asking import Client, PlainClient, timed
from readers import Readers
from real_cluster import Cluster
from source import HOT, Source, pods

from shoal.cluster.settings import ShoalSettings, parse_settings
from shoal.cluster.simulator.write_kubeconfig import write_kubeconfig
from shoal.shards.api.kubeconfig import load_kubeconfig

KUBECONFIG = "SHOAL_TEST_KUBECONFIG"
LABEL_HITS, PAGE = 100, 500
READY_S = 300.0
STARTS = 50
WATCHERS = {
    "event_us_1": (1, 400.0),
    "event_us_100": (100, 150.0),
    "event_us_1000_slow": (1000, 25.0),
    "event_us_1000": (1000, 90.0),
}
"""Watchers, and events a second: not more than the readers take on the same machine. Rare events cost more each,
because every one of them is a write to every watcher."""
SETTLED_S = 20.0
"""By then shards need not repeat to new watchers what came soon after they began (`StoreSettings.settling_s`)."""
DELIVERY_S = 6.0
LATENCY_WATCHERS, LATENCY_RATE, LATENCY_S = 10, 500.0, 10.0
SETTLE_S = 1.0
SAME_PART = 0.98
"""Watchers are sent the same lines in frames of different sizes, and bookmarks at moments of their own."""

SERVERS = ("embedded", "cluster", "shoal")
GOALS = {
    "list_everything_ms": 475.0,
    "list_labels_ms": 8.0,
    "list_node_ms": 3.9,
    "list_page_ms": 49.0,
    "get_ms": 1.4,
    "event_us_1000": 8.0,
    "latency_p99_ms": 25.0,
}
"""To reach: against kube-apiserver v1.36.2 on the same machine (1 900, 32, 3.9, 49 and 1.4 ms) four times as fast on
full lists and label hits, as fast on the others."""
CONTINUE = re.compile(rb'"continue":"([^"]*)"')
NAMES = {
    "list_everything_ms": "LIST of everything, ms",
    "list_labels_ms": f"LIST of {LABEL_HITS} label hits, ms",
    "list_node_ms": "LIST of one node's pods, ms",
    "list_page_ms": f"LIST, a page of {PAGE}, ms",
    "get_ms": "GET, ms",
    "watch_start_ms": "watch, request to head, ms",
    "event_us_1": "CPU an event, 1 watcher, 400 events/s, us",
    "event_us_100": "CPU an event and watcher, 100 watchers, 150 events/s, us",
    "event_us_1000_slow": "CPU an event and watcher, 1 000 watchers, 25 events/s, us",
    "event_us_1000": "CPU an event and watcher, 1 000 watchers, 90 events/s, us",
    "latency_p50_ms": f"commit to socket, {LATENCY_RATE:.0f} events/s, median, ms",
    "latency_p99_ms": f"commit to socket, {LATENCY_RATE:.0f} events/s, p99, ms",
}


class _Metadata(msgspec.Struct):
    name: str
    namespace: str
    labels: dict[str, str] = {}


class _Spec(msgspec.Struct):
    nodeName: str = ""  # noqa: N815 - the API's own name


class _Pod(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec


class Questions:
    """What is asked of every server."""

    def __init__(self, count: int) -> None:
        known = [msgspec.json.decode(body, type=_Pod) for body in pods(count)]
        self.count = count
        self.labels = _selection(Counter(pod.metadata.labels.get("app", "") for pod in known))
        nodes = Counter(pod.spec.nodeName for pod in known if pod.spec.nodeName)
        self.node = nodes.most_common()[len(nodes) // 2][0]
        some = known[count // 2].metadata
        self.one = f"{some.namespace}/pods/{some.name}"

    def ask(self, client: Client, *, prefix: str = "") -> dict[str, float]:
        """The medians of one server's answers, in milliseconds. `prefix` is before the namespaces' names."""
        everything = timed(client, "/api/v1/pods?resourceVersion=0", times=5)
        assert everything.body.count(b'"nodeName":') >= self.count // 2
        labels = timed(client, f"/api/v1/pods?resourceVersion=0&labelSelector={quote(self.labels)}", times=50)
        node = timed(
            client, f"/api/v1/pods?resourceVersion=0&fieldSelector=spec.nodeName%3D{self.node}", times=100
        )
        one = timed(client, f"/api/v1/namespaces/{prefix}{self.one}", times=300)
        return {
            "list_everything_ms": everything.seconds * 1e3,
            "list_everything_mb": everything.size / 1e6,
            "list_labels_ms": labels.seconds * 1e3,
            "list_node_ms": node.seconds * 1e3,
            "list_page_ms": _page_seconds(client) * 1e3,
            "get_ms": one.seconds * 1e3,
        }


def _selection(counts: Counter[str]) -> str:
    """A label selector that matches `LABEL_HITS` pods, or as nearly as the population allows."""
    chosen, left = [], LABEL_HITS
    for app, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if app and count <= left:
            chosen.append(app)
            left -= count
    return f"app in ({','.join(chosen)})"


def _page_seconds(client: Client) -> float:
    """The median page of a whole list in pages."""
    seconds, token = [], ""
    while True:
        began = time.perf_counter()
        body = client.get(f"/api/v1/pods?limit={PAGE}" + (f"&continue={quote(token)}" if token else ""))
        seconds.append(time.perf_counter() - began)
        found = CONTINUE.search(body, 0, 4096)
        if not found or not found[1]:
            return sorted(seconds)[len(seconds) // 2]
        token = found[1].decode()


class Deliveries:
    """Events of the source on their way to a server's watchers."""

    def __init__(self, source: Source, url: str, serving: psutil.Process) -> None:
        self._source = source
        self._client = PlainClient(url)
        self._serving = serving

    def cpu_an_event(self, watchers: int, rate: float) -> float:
        """CPU seconds of the serving process for one event to one watcher."""
        with self._watched(watchers) as readers:
            before = self._cpu()
            events = self._changed(rate, DELIVERY_S)
            cpu = self._cpu() - before
            delivered = readers.delivered() if readers else None
        if delivered is not None:
            least, most = min(delivered.bytes_each), max(delivered.bytes_each)
            assert least > most * SAME_PART, f"one watcher was sent {least} bytes, another {most}"
            assert events.keys() <= delivered.moments.keys(), "events were not delivered"
        return cpu / len(events) / max(1, watchers)

    def latencies(self) -> list[float]:
        """Seconds from each event's commit until a watcher had read it, sorted."""
        with self._watched(LATENCY_WATCHERS) as readers:
            commits = self._changed(LATENCY_RATE, LATENCY_S)
            assert readers is not None
            read = readers.delivered().moments
        return sorted(read[version] - moment for version, moment in commits.items())

    def start(self) -> float:
        """Mean seconds from a watch's request to its answer's head."""
        with Readers() as readers:
            target = f"/api/v1/pods?watch=1&resourceVersion={self._version()}"
            return readers.open(self._client.host, self._client.port, target, STARTS)

    @contextmanager
    def _watched(self, count: int) -> Iterator[Readers | None]:
        if not count:
            yield None
            return
        with Readers() as readers:
            target = f"/api/v1/pods?watch=1&resourceVersion={self._version()}&allowWatchBookmarks=true"
            readers.open(self._client.host, self._client.port, target, count)
            time.sleep(SETTLE_S)
            readers.delivered()
            yield readers

    def _changed(self, rate: float, seconds: float) -> dict[int, float]:
        """Lets the source change pods; when each version was committed. All have been delivered, or never will be."""
        self._source.commits()
        self._source.churn(rate)
        time.sleep(seconds)
        self._source.churn(0)
        time.sleep(SETTLE_S)
        return self._source.commits()

    def _version(self) -> str:
        body = self._client.get("/api/v1/pods?limit=1")
        return msgspec.json.decode(body, type=_List).metadata.resourceVersion

    def _cpu(self) -> float:
        times = self._serving.cpu_times()
        return times.user + times.system


class _ListMetadata(msgspec.Struct):
    resourceVersion: str  # noqa: N815 - the API's own name


class _List(msgspec.Struct):
    metadata: _ListMetadata


def settings() -> ShoalSettings:
    """Two shards, one with the hot namespace's pods and one with the others."""
    return parse_settings(
        {
            "shards": 2,
            "follow": {"include": ["pods"], "carve": {"pods": [HOT]}},
            "gateway": {"listen": "127.0.0.1:0"},
        },
        where="bench",
    )


def measure(count: int) -> dict[str, dict[str, float]]:
    """All figures, by server. Ray has to be running."""
    from support.installation import process_of

    from shoal.cluster.bootstrap import bring_up, take_down

    questions = Questions(count)
    with ExitStack() as stack:
        source = stack.enter_context(Source(count))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        write_kubeconfig(Path(folder) / "kubeconfig", source.url)
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        stack.callback(lambda: loop.run_until_complete(take_down()))
        installation = loop.run_until_complete(bring_up(settings(), load_kubeconfig(f"{folder}/kubeconfig")))
        _wait_until_listed(installation.url, count)
        found = {}
        with closing(PlainClient(source.url)) as client:
            found["embedded"] = questions.ask(client)
        if path := os.environ.get(KUBECONFIG):
            with Cluster(path, loop, pods(count)) as cluster:
                found["cluster"] = questions.ask(cluster.client, prefix=cluster.prefix)
        with closing(PlainClient(installation.url)) as client:
            found["shoal"] = questions.ask(client)
        time.sleep(SETTLED_S)
        found["embedded"] |= _delivering(
            Deliveries(source, source.url, psutil.Process(source.pid)), writes_too=True
        )
        found["shoal"] |= _delivering(
            Deliveries(source, installation.url, process_of("GatewayActor")), writes_too=False
        )
    return found


def _delivering(deliveries: Deliveries, *, writes_too: bool) -> dict[str, float]:
    """`writes_too`: the serving process makes the changes as well, which is taken off."""
    found = {"watch_start_ms": deliveries.start() * 1e3}
    for name, (watchers, rate) in WATCHERS.items():
        seconds = deliveries.cpu_an_event(watchers, rate)
        if writes_too:
            seconds -= deliveries.cpu_an_event(0, rate) / watchers
        found[name] = seconds * 1e6
    latencies = deliveries.latencies()
    found["latency_p50_ms"] = latencies[len(latencies) // 2] * 1e3
    found["latency_p99_ms"] = latencies[int(len(latencies) * 0.99)] * 1e3
    return found


def _wait_until_listed(url: str, count: int) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        try:
            with closing(PlainClient(url)) as client:
                listed = client.get("/api/v1/pods?limit=1")
                remaining = re.search(rb'"remainingItemCount":(\d+)', listed)
                if remaining and int(remaining[1]) == count - 1:
                    return
        except (AssertionError, OSError):
            pass
        time.sleep(0.5)
    raise TimeoutError(f"{count} pods were not listed within {READY_S:.0f} s")


def missed(found: dict[str, dict[str, float]]) -> list[str]:
    """Names of the figures that were not reached."""
    return [name for name, most in GOALS.items() if not found["shoal"][name] <= most]


def rows(count: int, found: dict[str, dict[str, float]], servers: list[str]) -> Iterator[tuple[str, ...]]:
    """Rows of the report: what, a figure of each server, and what is to be reached."""
    yield (f"Serving {count:,} pods, two shards, over real connections", *[""] * len(servers), "")
    for name, text in NAMES.items():
        goal = f"{GOALS[name]:g}" if name in GOALS else ""
        yield (text, *(f"{found[one][name]:,.2f}" if name in found[one] else "" for one in servers), goal)
