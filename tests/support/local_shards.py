"""Shards in memory that obey `ShardHandle` to the letter, and a small installation around them.

A partition here is a list of states by version; nothing follows an API server. What a test wants to go wrong
is set on the shard: it can be slow, silent, raise once, or let a partition go.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from shoal.cluster.gateway.app import Gateway
from shoal.cluster.query.router import QueryRouter
from shoal.cluster.query.routing import Routing
from shoal.coordinator.routes import Route, RouteTable
from shoal.coordinator.status import CoordinatorStatus, PermitStatus
from shoal.shards.handle import Assignment
from shoal.shards.model.errors import Expired, NotReady, NotServed, ShoalError, TooLargeVersion
from shoal.shards.model.partitions import EVERYTHING, Cover, Epoch, Partition, PartitionId, ShardId
from shoal.shards.model.queries import (
    CountQuery,
    GetAnswer,
    GetQuery,
    PageAnswer,
    PageQuery,
    PartitionCount,
    PartitionStatistics,
    ShardStatistics,
)
from shoal.shards.model.refs import Key, key_of, ref_of
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.selectors import FieldSelector, LabelSelector
from shoal.shards.model.shard_selectors import parse_shard_selector
from shoal.shards.model.versions import Version

FIRST_EPOCH = Epoch(1)

PODS = ResourceType(
    resource=Resource("", "v1", "pods"),
    kind="Pod",
    namespaced=True,
    singular="pod",
    short_names=("po",),
    categories=("all",),
    verbs=("create", "delete", "get", "list", "watch"),
    selectable_fields=("spec.nodeName", "status.phase"),
)
CONFIG_MAPS = ResourceType(
    resource=Resource("", "v1", "configmaps"),
    kind="ConfigMap",
    namespaced=True,
    singular="configmap",
    short_names=("cm",),
    verbs=("create", "get", "list", "watch"),
)
NODES = ResourceType(
    resource=Resource("", "v1", "nodes"),
    kind="Node",
    namespaced=False,
    singular="node",
    short_names=("no",),
    verbs=("get", "list", "watch"),
    selectable_fields=("spec.unschedulable",),
)
DEPLOYMENTS = ResourceType(
    resource=Resource("apps", "v1", "deployments"),
    kind="Deployment",
    namespaced=True,
    singular="deployment",
    verbs=("get", "list", "watch"),
)
WIDGETS = ResourceType(
    resource=Resource("example.com", "v1", "widgets"),
    kind="Widget",
    namespaced=True,
    singular="widget",
    verbs=("get", "list", "watch"),
    custom=True,
)


def made(
    resource_type: ResourceType,
    name: str,
    *,
    namespace: str = "",
    version: int = 1,
    labels: Mapping[str, str] | None = None,
    **more: Any,
) -> bytes:
    """A body as the store keeps it."""
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata |= {
        "uid": f"uid-{namespace}-{name}-{version}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-11-20T09:01:04Z",
    }
    if labels:
        metadata["labels"] = dict(labels)
    kind = {"kind": resource_type.kind, "apiVersion": resource_type.resource.api_version}
    document = {**kind, "metadata": metadata, **more}
    if resource_type.custom:
        document = dict(sorted(document.items()))
    return json.dumps(document, separators=(",", ":")).encode()


def named(body: bytes) -> Key:
    """The key of a body."""
    metadata = json.loads(body)["metadata"]
    return key_of(metadata.get("namespace", ""), metadata["name"])


class FakePartition:
    """States by version, the newest last."""

    def __init__(self, bodies: Iterable[bytes] = (), version: int = 1) -> None:
        self.states: list[tuple[int, dict[Key, bytes]]] = [(version, {named(body): body for body in bodies})]
        self.oldest = version
        self.state = "synced"
        self.message = ""
        self.moved = asyncio.Event()

    @property
    def frontier(self) -> Version:
        return Version(self.states[-1][0])

    def put(self, *bodies: bytes, version: int, without: Sequence[Key] = ()) -> None:
        state = dict(self.states[-1][1])
        state.update({named(body): body for body in bodies})
        for key in without:
            state.pop(key)
        self.states.append((version, state))
        moved, self.moved = self.moved, asyncio.Event()
        moved.set()

    def forget(self, before: int) -> None:
        """Versions before this one are compacted away."""
        self.oldest = before

    def at(self, version: Version | None) -> tuple[Version, dict[Key, bytes]]:
        if version is None:
            return self.frontier, self.states[-1][1]
        if version < self.oldest:
            raise Expired("too old")
        return version, next(state for at, state in reversed(self.states) if at <= version)


@dataclass
class FakeShard:
    """A `ShardHandle`."""

    shard_id: ShardId
    partitions: dict[PartitionId, FakePartition] = field(default_factory=dict)
    epoch: Epoch = field(default=FIRST_EPOCH)
    delay_s: float = 0.0
    silent: bool = False
    raises: list[ShoalError] = field(default_factory=list)
    """Raised by the next calls, one each."""
    calls: list[GetQuery | PageQuery | CountQuery] = field(default_factory=list)
    open_streams: int = 0
    streams_closed: asyncio.Event = field(default_factory=asyncio.Event)
    age_s: float | None = 0.25
    on_page: Any = None
    """Called with the number of pages sent before each page of a stream but the first."""

    async def adopt(self, assignments: Sequence[Assignment], epoch: Epoch) -> None:
        self.epoch = epoch
        for assignment in assignments:
            self.partitions.setdefault(assignment.partition.id, FakePartition())

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        self.epoch = epoch
        for partition in partitions:
            self.partitions.pop(partition, None)

    async def get(self, query: GetQuery) -> GetAnswer:
        partition = await self._ready(query)
        return GetAnswer(
            body=partition.at(None)[1].get(query.key), frontier=partition.frontier, age_s=self.age_s
        )

    async def page(self, query: PageQuery) -> PageAnswer:
        partition = await self._ready(query)
        version, state = partition.at(query.at)
        return self._cut(query, version, _matching(query, state))

    async def count(self, query: CountQuery) -> PartitionCount:
        partition = await self._ready(query)
        found = _matching(query, partition.at(None)[1])
        groups: Counter[str] = Counter()
        if query.group_by:
            groups.update(_group(json.loads(body), query.group_by) for _, body in found)
        return PartitionCount(
            version=partition.frontier, count=len(found), groups=dict(groups), age_s=self.age_s
        )

    async def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        partition = await self._ready(query)
        version, state = partition.at(query.at)
        pairs = _matching(query, state)
        self.open_streams += 1
        sent = 0
        try:
            while True:
                page = self._cut(query, version, pairs)
                yield page
                sent += 1
                if not page.more:
                    return
                pairs = pairs[len(page.keys) :]
                if self.on_page is not None:
                    self.on_page(sent)
                self._fail()
                await self._pause()
        finally:
            self.open_streams -= 1
            if not self.open_streams:
                self.streams_closed.set()

    async def statistics(self, acknowledged: int | None = None) -> ShardStatistics:
        await self._pause()
        self._fail()
        return ShardStatistics(
            shard=self.shard_id,
            incarnation="one",
            pid=1,
            cpu_seconds=1.5,
            resident_bytes=1000,
            queries={"list": len(self.calls)},
            snapshots={"written": 7},
            query_seconds={"list": 0.5},
            partitions=[
                PartitionStatistics(
                    partition=name,
                    state=partition.state,
                    message=partition.message,
                    objects=len(partition.states[-1][1]),
                    body_bytes=sum(map(len, partition.states[-1][1].values())),
                    frontier=partition.frontier,
                    frontier_age_s=self.age_s or 0.0,
                    events={"added": 3},
                    lists={"stream": 1},
                    watch_restarts={"timeout": 2},
                    proofs={"proved": 4},
                    feeds=2,
                    feeds_cut_off=1,
                    late_events=5,
                    audits={"equal": 6},
                    audited_objects=60,
                    audited_age_s=12.0,
                    divergence={"missing": 1},
                    errors={"garbage": 1},
                )
                for name, partition in self.partitions.items()
            ],
        )

    async def stop(self) -> None:
        self.partitions.clear()

    def _fail(self) -> None:
        if self.raises:
            raise self.raises.pop(0)

    async def _pause(self) -> None:
        if self.silent:
            await asyncio.Event().wait()
        await asyncio.sleep(self.delay_s)

    async def _ready(self, query: GetQuery | PageQuery | CountQuery) -> FakePartition:
        self.calls.append(query)
        await self._pause()
        self._fail()
        partition = self.partitions.get(query.partition)
        if partition is None:
            raise NotServed(query.partition, self.epoch)
        if partition.state != "synced":
            raise NotReady(f"{query.partition} is not synced yet: {partition.state}")
        try:
            async with asyncio.timeout(query.wait_s):
                while partition.frontier < query.not_older_than:
                    await partition.moved.wait()
        except TimeoutError:
            raise TooLargeVersion(query.not_older_than, partition.frontier) from None
        return partition

    def _cut(self, query: PageQuery, version: Version, pairs: list[tuple[Key, bytes]]) -> PageAnswer:
        taken: list[tuple[Key, bytes]] = []
        size = 0
        for key, body in pairs[: query.limit]:
            if taken and size + len(body) > query.max_bytes:
                break
            taken.append((key, body))
            size += len(body)
        remaining = len(pairs) - len(taken)
        return PageAnswer(
            version=version,
            keys=[key for key, _ in taken],
            bodies=[body for _, body in taken],
            more=remaining > 0,
            remaining=remaining,
            age_s=self.age_s,
        )


def _matching(query: PageQuery | CountQuery, state: Mapping[Key, bytes]) -> list[tuple[Key, bytes]]:
    labels, fields = LabelSelector.parse(query.labels), FieldSelector.parse(query.fields)
    shards = parse_shard_selector(query.shards)
    after = query.after if isinstance(query, PageQuery) else ""
    found = []
    for key, body in sorted(state.items()):
        document = json.loads(body)
        if key <= after or (query.namespace is not None and ref_of(key).namespace != query.namespace):
            continue
        if shards is not None and not shards.matches(ref_of(key).namespace, document["metadata"]["uid"]):
            continue
        if not labels.matches(document["metadata"].get("labels", {})):
            continue
        if fields.matches(lambda path, document=document: _field(document, path)):
            found.append((key, body))
    return found


def _group(document: Any, path: str) -> str:
    if path.startswith("metadata.labels["):
        label = path.removeprefix("metadata.labels[").removesuffix("]")
        return str(document["metadata"].get("labels", {}).get(label, ""))
    return _field(document, path)


def _field(document: Any, path: str) -> str:
    for part in path.split("."):
        document = document.get(part, {})
    return document if isinstance(document, str) else ""


class FakeCoordinator:
    """Publishes route tables; counts how often it is asked."""

    def __init__(self) -> None:
        self.table = RouteTable()
        self.asked = 0
        self.problem: ShoalError | None = None
        self._published = asyncio.Event()

    def publish(self, table: RouteTable) -> None:
        self.table = table
        published, self._published = self._published, asyncio.Event()
        published.set()

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        self.asked += 1
        if self.problem is not None:
            raise self.problem
        try:
            async with asyncio.timeout(timeout_s):
                while self.table.epoch <= after:
                    await self._published.wait()
        except TimeoutError:
            pass
        return self.table

    async def status(self) -> CoordinatorStatus:
        if self.problem is not None:
            raise self.problem
        return CoordinatorStatus(
            epoch=self.table.epoch, permits=PermitStatus(limit=16, held=1, waiting=2, granted_total=7)
        )


@dataclass(frozen=True)
class Reply:
    """What an ASGI application answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    chunks: int
    complete: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class LocalInstallation:
    """Some shards, a coordinator, routing, a router and a gateway, all in this loop."""

    def __init__(self, shards: int = 2, *, shard_timeout_s: float = 10.0, **gateway: Any) -> None:
        names = [ShardId(f"shard-{number}") for number in range(shards)]
        self.shards = {name: FakeShard(name) for name in names}
        self.away: set[ShardId] = set()
        self.coordinator = FakeCoordinator()
        self.routing = Routing(self.coordinator)
        self.router = QueryRouter(self.routing, self.find, shard_timeout_s=shard_timeout_s)
        self.gateway = Gateway(self.router, self.find, self.coordinator, **gateway)
        self.routes: list[Route] = []
        self.catalogue: list[ResourceType] = []
        self.server_version = b'{\n  "major": "1"\n}'
        self.excluded: tuple[tuple[str, str], ...] = ()

    def find(self, shard: ShardId) -> FakeShard:
        if shard in self.away:
            raise NotReady(f"shard {shard} is not running")
        return self.shards[shard]

    def hold(
        self,
        resource_type: ResourceType,
        bodies: Iterable[bytes] = (),
        *,
        cover: Cover = EVERYTHING,
        shard: int = 0,
        version: int = 100,
    ) -> FakePartition:
        """Gives a shard a partition with these objects and adds its route."""
        partition = Partition(resource_type.resource, cover)
        name = ShardId(f"shard-{shard}")
        held = FakePartition(bodies, version)
        self.shards[name].partitions[partition.id] = held
        self.routes.append(Route(partition, name))
        if resource_type not in self.catalogue:
            self.catalogue.append(resource_type)
        return held

    def publish(self, epoch: int | None = None) -> None:
        """Publishes the routes and lets routing take them."""
        table = self.table(epoch)
        self.coordinator.publish(table)
        self.routing.take(table)

    def table(self, epoch: int | None = None) -> RouteTable:
        return RouteTable(
            epoch=Epoch(self.coordinator.table.epoch + 1 if epoch is None else epoch),
            catalogue=tuple(self.catalogue),
            routes=tuple(self.routes),
            shards=tuple(self.shards),
            server_version=self.server_version,
            excluded=self.excluded,
        )

    def move(self, at: int, to: int) -> None:
        """Moves the partition of a route, with all it holds, to another shard."""
        route = self.routes[at]
        name = ShardId(f"shard-{to}")
        held = self.shards[route.shard].partitions.pop(route.partition.id)
        self.shards[name].partitions[route.partition.id] = held
        self.routes[at] = Route(route.partition, name)

    async def ask(
        self, path: str, *, method: str = "GET", gone_after: int | None = None, **headers: str
    ) -> Reply:
        return await ask(self.gateway, path, method=method, gone_after=gone_after, **headers)


async def ask(
    app: Any, target: str, *, method: str = "GET", gone_after: int | None = None, **headers: str
) -> Reply:
    """One request to an ASGI application; `gone_after`: chunks the client reads before it leaves."""
    parts = urlsplit(target)
    scope = {
        "type": "http",
        "method": method,
        "path": unquote(parts.path),
        "query_string": parts.query.encode("latin-1"),
        "headers": [
            (name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()
        ],
        "server": ("127.0.0.1", 7480),
    }
    sent: list[Any] = []
    gone = asyncio.Event()
    bodies = 0

    async def receive() -> dict[str, Any]:
        if not sent and not gone.is_set() and not scope.get("read"):
            scope["read"] = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal bodies
        sent.append(message)
        bodies += message["type"] == "http.response.body"
        if gone_after is not None and bodies >= gone_after:
            gone.set()
            await asyncio.Event().wait()  # the socket of a client that has gone takes nothing any more

    await app(scope, receive, send)
    head = next(message for message in sent if message["type"] == "http.response.start")
    parts_sent = [message for message in sent if message["type"] == "http.response.body"]
    return Reply(
        status=head["status"],
        headers={name.decode(): value.decode() for name, value in head["headers"]},
        body=b"".join(part.get("body", b"") for part in parts_sent),
        chunks=len(parts_sent),
        complete=bool(parts_sent) and not parts_sent[-1].get("more_body", False),
    )
