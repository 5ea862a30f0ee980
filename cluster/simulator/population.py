"""Makes a cluster of any size: pods, the controllers' objects around them, nodes and events.

Deterministic: the same arguments give the same bytes. Objects come in an order they can be created in
(namespaces and nodes, then one workload after the other), complete with uid, resource version, times and
managed fields, about 9 KB a pod (4.9 KB without managed fields). They agree with each other: owners and
endpoints name the uids of what they point to, a Deployment counts the pods that are ready. About one pod in
thirty is crashing or cannot be scheduled, as in any real cluster.

Memory stays small whatever the number: nothing is kept but the nodes' names and one workload's pods.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ...shards.model.resources import Resource, ResourceType
from . import surrounding_documents as around
from . import workload_documents as documents
from .builtin import builtin_types
from .templates import Template
from .workload_documents import Document, PodState, Workload, managed

CREATED = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
"""Default for the present moment of a population: fixed, so that populations are reproducible."""

NAMESPACES = Resource("", "v1", "namespaces")
NODES = Resource("", "v1", "nodes")
PODS = Resource("", "v1", "pods")
CONFIG_MAPS = Resource("", "v1", "configmaps")
SECRETS = Resource("", "v1", "secrets")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts")
SERVICES = Resource("", "v1", "services")
EVENTS = Resource("", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
REPLICA_SETS = Resource("apps", "v1", "replicasets")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")

_TYPES = {known.resource: known for known in builtin_types()}
_SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_TEAMS = (
    "accounts", "billing", "catalog", "checkout", "ci", "data", "delivery", "fraud", "identity",
    "ingress", "inventory", "media", "messaging", "observability", "orders", "payments", "pricing",
    "profile", "search", "web",
)  # fmt: skip
_ROLES = (
    "api", "auth", "cache", "consumer", "cron", "exporter", "gateway", "indexer", "loader", "mailer",
    "mirror", "proxy", "queue", "reports", "router", "scorer", "store", "sync", "ui", "worker",
)  # fmt: skip
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes makes random names of: no vowels, so that no words come out."""
_ZONES = ("zone-a", "zone-b", "zone-c")
_EVENT_KINDS = (
    ("Scheduled", "Normal"), ("Pulled", "Normal"), ("Created", "Normal"), ("Started", "Normal"),
    ("Unhealthy", "Warning"),
)  # fmt: skip
_PODS_PER_NODE = 40
_WORKLOAD_SIZES = (1, 2, 2, 3, 3, 4, 5, 6, 8, 10, 12, 16, 24, 40, 64)
"""Replicas of a workload, drawn evenly: most are small, most pods are in large ones (mean 13)."""
_WORKLOADS_PER_NAMESPACE = 5
_ENDPOINTS_PER_SLICE = 100
_PODS_PER_EVENT = 3


class Made(NamedTuple):
    """An object and the resource it belongs to."""

    resource: Resource
    body: bytes


def population(
    pods: int, *, seed: int = 0, now: datetime = CREATED, first_version: int = 1000
) -> Iterator[Made]:
    """Yields the objects of a cluster with that many pods.

    Args:
        pods: how many pods; everything else is in proportion.
        seed: chooses among clusters of that size.
        now: the present moment of the cluster; objects are up to 30 days older.
        first_version: resource version of the first object; the others follow by one each.

    Raises:
        ValueError: a negative number of pods.
    """
    if pods < 0:
        raise ValueError(f"a cluster cannot have {pods} pods")
    return iter(_Population(pods, seed=seed, now=now, first_version=first_version))


def pod_bodies(count: int, *, seed: int = 0, now: datetime = CREATED) -> Iterator[bytes]:
    """The bodies of the pods of `population` alone, in its order."""
    return (made.body for made in population(count, seed=seed, now=now) if made.resource == PODS)


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    zone: str
    address: str
    uid: str


class _PodFacts(NamedTuple):
    """What other objects say about a pod."""

    name: str
    uid: str
    ip: str
    node: _Node
    state: PodState


class _Population:
    def __init__(self, pods: int, *, seed: int, now: datetime, first_version: int) -> None:
        self._rng = random.Random(f"{seed}/{pods}")
        self._pods = pods
        self._now = now
        self._version = first_version
        self._nodes: list[_Node] = []

    def __iter__(self) -> Iterator[Made]:
        sizes = self._sizes()
        spaces = _namespaces(max(1, len(sizes) // _WORKLOADS_PER_NAMESPACE)) if sizes else []
        for name in _SYSTEM_NAMESPACES:
            yield self._make(NAMESPACES, around.namespace(name, ""), writer="kube-apiserver")
        for name in spaces:
            team = name.partition("-")[0]
            yield self._make(NAMESPACES, around.namespace(name, team), writer="kubectl")
        yield from self._make_nodes(-(-self._pods // _PODS_PER_NODE))
        for at, size in enumerate(sizes):
            yield from self._workload(at, spaces[at % len(spaces)], size)

    def _sizes(self) -> list[int]:
        sizes, left = [], self._pods
        while left:
            sizes.append(min(left, self._rng.choice(_WORKLOAD_SIZES)))
            left -= sizes[-1]
        return sizes

    # -- nodes ------------------------------------------------------------------------------------

    def _make_nodes(self, count: int) -> Iterator[Made]:
        images = [
            (f"registry.example.com/image-{at}@sha256:{self._digest()}", self._rng.randrange(10**7, 10**9))
            for at in range(30)
        ]
        node = _template(NODES, around.node(images), writer="kubelet", status_writer="kubelet")
        lease = _template(LEASES, around.lease(), writer="kubelet")
        renewed = self._now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for at in range(count):
            made = _Node(
                name=f"node-{at:04d}",
                zone=_ZONES[at % len(_ZONES)],
                address=f"10.{200 + (at >> 16)}.{at >> 8 & 255}.{at & 255}",
                uid=self._uid(),
            )
            self._nodes.append(made)
            values = {
                "name": made.name,
                "zone": made.zone,
                "address": made.address,
                "subnet": f"10.{at >> 8 & 127}.{at & 255}.0/24",
                "machine": f"{self._rng.getrandbits(128):032x}",
                "now": _text(self._now),
            }
            yield Made(NODES, node.fill(self._filled(values, uid=made.uid)))
            yield Made(LEASES, lease.fill(self._filled(values | {"owner": made.uid, "renewed": renewed})))

    # -- workloads --------------------------------------------------------------------------------

    def _workload(self, at: int, namespace: str, size: int) -> Iterator[Made]:
        rng = self._rng
        states = [self._state() for _ in range(size)]
        memory = rng.choice(("128Mi", "512Mi", "1Gi", "4Gi"))
        created = self._now - timedelta(seconds=rng.randrange(3600, 30 * 86400))
        workload = Workload(
            name=f"{rng.choice(_ROLES)}-{at:04d}",
            namespace=namespace,
            template_hash=f"{rng.getrandbits(36):09x}",
            image_tag=f"{rng.randrange(60)}.{rng.randrange(60)}",
            tier=rng.choice(("frontend", "backend", "batch")),
            version=f"v{rng.randrange(1, 40)}",
            cpu=rng.choice(("50m", "100m", "250m", "1")),
            memory=memory,
            flags=",".join(f"{rng.getrandbits(24):06x}" for _ in range(6)),
            sidecar=rng.random() < _SIDECAR_SHARE,
            replicas=size,
            available=states.count("running"),
            created=_text(created),
        )
        yield from self._configuration(workload)
        yield from self._controllers(workload, states, created)

    def _configuration(self, workload: Workload) -> Iterator[Made]:
        values = [f"{self._rng.getrandbits(48):012x}" for _ in range(12)]
        for resource, document in (
            (CONFIG_MAPS, around.config_map(workload, values)),
            (SECRETS, around.secret(workload)),
            (SERVICE_ACCOUNTS, around.service_account(workload)),
        ):
            yield self._make(resource, document, writer="kubectl", created=workload.created)

    def _controllers(self, workload: Workload, states: list[PodState], created: datetime) -> Iterator[Made]:
        deployment_uid, replica_set_uid, service_uid = self._uid(), self._uid(), self._uid()
        controller = "kube-controller-manager"
        then = {"created": workload.created}
        deployment = _template(
            DEPLOYMENTS, documents.deployment(workload), writer="kubectl", status_writer=controller
        )
        yield Made(DEPLOYMENTS, deployment.fill(self._filled(then, uid=deployment_uid)))
        replica_set = _template(
            REPLICA_SETS, documents.replica_set(workload), writer=controller, status_writer=controller
        )
        owned = then | {"owner": deployment_uid}
        yield Made(REPLICA_SETS, replica_set.fill(self._filled(owned, uid=replica_set_uid)))
        service = _template(SERVICES, around.service(workload), writer="kubectl")
        address = f"10.96.{self._rng.randrange(256)}.{self._rng.randrange(1, 255)}"
        yield Made(SERVICES, service.fill(self._filled(then | {"ip": address}, uid=service_uid)))
        facts: list[_PodFacts] = []
        yield from self._make_pods(workload, states, created, replica_set_uid, facts)
        yield from self._slices(workload, service_uid, facts)
        yield from self._events(workload, created, facts)

    def _make_pods(
        self,
        workload: Workload,
        states: list[PodState],
        created: datetime,
        owner: str,
        facts: list[_PodFacts],
    ) -> Iterator[Made]:
        """The pods of a workload; `facts` receives what the others need of them."""
        rng = self._rng
        templates = {
            state: _template(
                PODS,
                documents.pod(workload, state),
                writer="kube-controller-manager",
                status_writer="kubelet",
                labeler="mesh-injector",
            )
            for state in dict.fromkeys(states)
        }
        checksum, image_digest = self._digest(), self._digest()
        names: set[str] = set()
        for state in states:
            name = self._unused(workload.replica_set, names)
            node = rng.choice(self._nodes)
            ip = f"10.{rng.randrange(128)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
            values = {
                "name": name,
                "created": _text(created + timedelta(seconds=rng.randrange(1, 60))),
                "started": _text(created + timedelta(seconds=rng.randrange(60, 120))),
                "owner": owner,
                "checksum": checksum,
                "image_digest": image_digest,
                "zone": node.zone,
                "node": node.name,
                "host": node.address,
                "ip": ip,
                "first_id": self._digest(),
                "second_id": self._digest(),
            }
            made = _PodFacts(name, self._uid(), ip, node, state)
            facts.append(made)
            yield Made(PODS, templates[state].fill(self._filled(values, uid=made.uid)))

    def _slices(self, workload: Workload, service_uid: str, facts: list[_PodFacts]) -> Iterator[Made]:
        endpoints = [
            around.endpoint(
                workload.namespace,
                pod.name,
                pod.uid,
                pod.ip,
                node=pod.node.name,
                zone=pod.node.zone,
                ready=pod.state == "running",
            )
            for pod in facts
            if pod.state != "pending"
        ]
        values = {"created": workload.created, "owner": service_uid}
        for start in range(0, len(endpoints) or 1, _ENDPOINTS_PER_SLICE):
            part = endpoints[start : start + _ENDPOINTS_PER_SLICE]
            document = around.endpoint_slice(workload, self._suffix(), part)
            yield self._make(ENDPOINT_SLICES, document, writer="kube-controller-manager", **values)

    def _events(self, workload: Workload, created: datetime, facts: list[_PodFacts]) -> Iterator[Made]:
        template: Template | None = None
        for pod in facts:
            if self._rng.randrange(_PODS_PER_EVENT):
                continue
            template = template or _template(EVENTS, around.event(workload.namespace), writer="kubelet")
            reason, kind = self._rng.choice(_EVENT_KINDS)
            if pod.state == "crashing":
                reason, kind = "BackOff", "Warning"
            first = max(created, self._now - timedelta(seconds=self._rng.randrange(60, 3600)))
            values = {
                "name": f"{pod.name}.{self._rng.getrandbits(64):016x}",
                "pod": pod.name,
                "owner": pod.uid,
                "reason": reason,
                "kind": kind,
                "message": f"{reason} {workload.image}",
                "node": pod.node.name,
                "created": _text(first),
                "first": _text(first),
                "last": _text(first),
            }
            yield Made(EVENTS, template.fill(self._filled(values)))

    # -- values -----------------------------------------------------------------------------------

    def _make(self, resource: Resource, document: Document, *, writer: str, **values: str) -> Made:
        """A document that is made only once."""
        return Made(resource, _template(resource, document, writer=writer).fill(self._filled(values)))

    def _filled(self, values: Mapping[str, str], *, uid: str = "") -> dict[bytes, bytes]:
        """The values for a template, with those every object has."""
        filled = {key.encode(): value.encode() for key, value in values.items()}
        self._version += 1
        filled[b"version"] = b"%d" % (self._version - 1)
        filled[b"uid"] = (uid or self._uid()).encode()
        filled.setdefault(b"created", _text(self._now - timedelta(days=30)).encode())
        return filled

    def _uid(self) -> str:
        text = f"{self._rng.getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def _digest(self) -> str:
        return f"{self._rng.getrandbits(256):064x}"

    def _suffix(self) -> str:
        return "".join(self._rng.choices(_SUFFIX_LETTERS, k=5))

    def _unused(self, prefix: str, names: set[str]) -> str:
        """A name that is not among `names`, and is now."""
        name = f"{prefix}-{self._suffix()}"
        while name in names:
            name = f"{prefix}-{self._suffix()}"
        names.add(name)
        return name

    def _state(self) -> PodState:
        drawn = self._rng.random()
        return "crashing" if drawn < _CRASHING_SHARE else "pending" if drawn < _UNREADY_SHARE else "running"


_SIDECAR_SHARE = 0.4
_CRASHING_SHARE = 0.02
_UNREADY_SHARE = 0.035
"""Crashing and pending together."""


def _template(
    resource: Resource, document: Document, *, writer: str, status_writer: str = "", labeler: str = ""
) -> Template:
    known: ResourceType = _TYPES[resource]
    complete = managed(document, known, writer=writer, status_writer=status_writer, labeler=labeler)
    return Template(complete, known)


def _namespaces(count: int) -> list[str]:
    rounds = (divmod(at, len(_TEAMS)) for at in range(count))
    return [f"{_TEAMS[team]}-{again}" if again else _TEAMS[team] for again, team in rounds]


def _text(moment: datetime) -> str:
    """RFC 3339 without fraction; faster than strftime, and there are a few for every pod."""
    return moment.isoformat()[:19] + "Z"
