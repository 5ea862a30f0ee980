"""Keeps a cluster changing at a set rate, the way controllers, kubelets and people change a real one.

Most changes are status updates of pods; the rest are events, renewed leases, heartbeats of nodes, and
rollouts that replace a pod by another. Which comes next is drawn from a seeded generator, so a run can be
repeated. What is deleted is made again or was made here, so the cluster keeps its size however long it is
churned; of the events made here the newest are kept.

Changes go through `Writes`, a few synchronous calls that the embedded server implements; somebody else may
write at the same time, and a change that is refused because of that is counted and forgotten. The pace
follows the running loop's clock: after a stall of more than a second, what was missed is not made up for.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

from ...shards.model.errors import ShoalError
from ...shards.model.refs import Key, key_of, ref_of
from ...shards.model.resources import Resource
from .population import EVENTS, LEASES, NODES, PODS

Document: TypeAlias = dict[str, Any]

_TICK_S = 0.01
"""Changes are made in batches this far apart; at 5 000 a second that is 50 a batch, about 10 ms of work."""
_BATCH = 200
"""Most changes between two turns of the event loop, whatever the rate: the server must stay responsive."""
_ARREARS_S = 1.0
_EVENTS_KEPT = 2_000
_CONTAINER_STOPS = 0.02
"""Share of the pod updates that are a container's crash and restart."""
_READINESS_FAILS = 0.05
"""Share of the updates of ready pods that make them unready; the next update makes them ready again, so about
one pod in twenty is not. The other updates report a probe."""
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_REASONS = ("Pulled", "Created", "Started", "Unhealthy", "BackOff", "Killing")

WEIGHTS: Mapping[str, int] = {"pod_status": 70, "event": 12, "lease": 10, "rollout": 5, "node": 3}
"""Of a hundred changes, how many are of each kind; a rollout is a deletion and a creation."""


class Writes(Protocol):
    """What churn needs of a cluster. Documents it gets are copies: it changes them and writes them back.

    `create`, `update` and `delete` may raise any `ShoalError` for a change that cannot be made.
    """

    def create(self, resource: Resource, document: Document) -> Document:
        """Stores a new object and returns it as stored."""

    def update(self, resource: Resource, document: Document) -> Document:
        """Replaces an object, status included, and returns it as stored: at a new version, if it changed."""

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Removes an object."""

    def get(self, resource: Resource, namespace: str, name: str) -> Document | None:
        """One object, or None."""

    def names(self, resource: Resource) -> Sequence[Key]:
        """The keys of all objects of a resource."""


class Churn:
    """A cluster's unrest.

    Args:
        writes: where the changes go.
        rate: changes a second; may be set while running, 0 pauses.
        seed: chooses the sequence of changes.
        now: the time that goes into the objects.
    """

    def __init__(
        self,
        writes: Writes,
        *,
        rate: float,
        seed: int = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.rate = rate
        self.done: Counter[str] = Counter()
        """Changes made, by verb: ``create``, ``update``, ``delete``. Besides, those ``refused``, and
        ``unchanged`` updates: the server writes nothing when the same moment is reported twice."""
        self._writes = writes
        self._rng = random.Random(seed)
        self._now = now
        self._keys: dict[Resource, _Keys] = {
            resource: _Keys(writes, resource) for resource in (PODS, NODES, LEASES)
        }
        self._events: deque[Key] = deque()
        self._changes: Mapping[str, Callable[[], None]] = {
            "pod_status": self._change_pod_status,
            "event": self._change_event,
            "lease": self._renew_lease,
            "rollout": self._roll_out,
            "node": self._heartbeat,
        }

    @property
    def total(self) -> int:
        """Changes made so far: each is one event of a watch."""
        return self.done["create"] + self.done["update"] + self.done["delete"]

    async def run(self) -> None:
        """Changes the cluster until cancelled."""
        clock = asyncio.get_running_loop().time
        owed, last = 0.0, clock()
        while True:
            present = clock()
            owed = min(owed + (present - last) * self.rate, max(self.rate * _ARREARS_S, 1.0))
            last = present
            batch = min(int(owed), _BATCH)
            for _ in range(batch):
                before = self.total
                self.step()
                owed -= max(self.total - before, 1)
            # After a full batch more may be owed already: the others on the loop get a turn, no more.
            await asyncio.sleep(0 if batch == _BATCH else _TICK_S)

    def step(self) -> None:
        """Makes one change, or a rollout's two; none if the cluster has nothing of the kind drawn."""
        kind = self._rng.choices(_KINDS, cum_weights=_CUMULATIVE)[0]
        try:
            self._changes[kind]()
        except ShoalError:
            self.done["refused"] += 1

    # -- pods -------------------------------------------------------------------------------------

    def _change_pod_status(self) -> None:
        pod = self._draw(PODS)
        if pod is None:
            return
        status = pod["status"] = pod.get("status") or {}
        containers = status.get("containerStatuses") or []
        moment = self._moment()
        if not (pod.get("spec") or {}).get("nodeName"):
            status["conditions"] = [_unschedulable(moment)]  # the scheduler has tried again, in vain
        elif not containers:
            _start(pod, moment)
        elif self._rng.random() < _CONTAINER_STOPS:
            _restart(self._rng.choice(containers), moment)
        elif not containers[0].get("ready") or self._rng.random() < _READINESS_FAILS:
            _turn_readiness(status, moment)
        else:
            _probe(status, moment)
        self._update(PODS, pod)

    def _roll_out(self) -> None:
        """Deletes a pod and creates its replacement, as a controller does: a new name, not yet started."""
        old = self._draw(PODS)
        if old is None:
            return
        metadata = old["metadata"]
        self._delete(PODS, metadata.get("namespace", ""), metadata["name"])
        new = copy.deepcopy({key: value for key, value in old.items() if key != "status"})
        prefix = metadata.get("generateName") or f"{metadata['name'].rpartition('-')[0]}-"
        kept = ("namespace", "generateName", "labels", "annotations", "ownerReferences")
        new["metadata"] = {"name": f"{prefix}{self._suffix()}"} | {
            key: metadata[key] for key in kept if key in metadata
        }
        new["status"] = {
            "phase": "Pending",
            "qosClass": (old.get("status") or {}).get("qosClass", "Burstable"),
        }
        self._create(PODS, new)

    # -- events -----------------------------------------------------------------------------------

    def _change_event(self) -> None:
        """Creates an event, counts one up that was made here, or drops the oldest of too many."""
        if len(self._events) > _EVENTS_KEPT:
            namespace, name = ref_of(self._events.popleft())
            self._delete(EVENTS, namespace, name)
        elif self._events and self._rng.random() < 0.5:
            namespace, name = ref_of(self._rng.choice(self._events))
            event = self._writes.get(EVENTS, namespace, name)
            if event is not None:
                event["count"] = event.get("count", 0) + 1
                event["lastTimestamp"] = self._moment()
                self._update(EVENTS, event)
        else:
            self._new_event()

    def _new_event(self) -> None:
        pod = self._draw(PODS)
        if pod is None:
            return
        metadata, moment = pod["metadata"], self._moment()
        namespace = metadata.get("namespace", "")
        reason = self._rng.choice(_REASONS)
        name = f"{metadata['name']}.{self._rng.getrandbits(64):016x}"
        node = (pod.get("spec") or {}).get("nodeName", "")
        self._create(
            EVENTS,
            {
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {
                    "kind": "Pod",
                    "namespace": namespace,
                    "name": metadata["name"],
                    "uid": metadata.get("uid", ""),
                    "apiVersion": "v1",
                },
                "reason": reason,
                "message": f"{reason} container of {metadata['name']}",
                "source": {"component": "kubelet", "host": node},
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": 1,
                "type": "Warning" if reason in ("Unhealthy", "BackOff") else "Normal",
                "eventTime": None,
                "reportingComponent": "kubelet",
                "reportingInstance": node,
            },
        )
        self._events.append(key_of(namespace, name))

    # -- nodes ------------------------------------------------------------------------------------

    def _renew_lease(self) -> None:
        lease = self._draw(LEASES)
        if lease is not None:
            lease.setdefault("spec", {})["renewTime"] = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            self._update(LEASES, lease)

    def _heartbeat(self) -> None:
        node = self._draw(NODES)
        if node is not None:
            moment = self._moment()
            for condition in (node.get("status") or {}).get("conditions") or ():
                condition["lastHeartbeatTime"] = moment
            self._update(NODES, node)

    # -- writing ----------------------------------------------------------------------------------

    def _draw(self, resource: Resource) -> Document | None:
        """Any object of the resource, or None if there is none; keys of objects that went are forgotten."""
        keys = self._keys[resource]
        while (key := keys.draw(self._rng)) is not None:
            document = self._writes.get(resource, *ref_of(key))
            if document is not None:
                return document
            keys.discard(key)
        return None

    def _create(self, resource: Resource, document: Document) -> None:
        created = self._writes.create(resource, document)
        self.done["create"] += 1
        if resource in self._keys:
            metadata = created["metadata"]
            self._keys[resource].add(key_of(metadata.get("namespace", ""), metadata["name"]))

    def _update(self, resource: Resource, document: Document) -> None:
        before = document["metadata"].get("resourceVersion")
        updated = self._writes.update(resource, document)
        same = updated["metadata"].get("resourceVersion") == before
        self.done["unchanged" if same else "update"] += 1

    def _delete(self, resource: Resource, namespace: str, name: str) -> None:
        if resource in self._keys:
            self._keys[resource].discard(key_of(namespace, name))
        self._writes.delete(resource, namespace, name)
        self.done["delete"] += 1

    def _moment(self) -> str:
        return self._now().isoformat()[:19] + "Z"

    def _suffix(self) -> str:
        return "".join(self._rng.choices(_SUFFIX_LETTERS, k=5))


_KINDS = tuple(WEIGHTS)
_CUMULATIVE = tuple(sum(list(WEIGHTS.values())[: at + 1]) for at in range(len(WEIGHTS)))


class _Keys:
    """Keys of one resource: any of them is drawn, added or removed in constant time.

    Read from the cluster when first needed and again when none are left, so that what others create is found
    by a churn that started before there was anything.
    """

    def __init__(self, writes: Writes, resource: Resource) -> None:
        self._writes = writes
        self._resource = resource
        self._list: list[Key] = []
        self._place: dict[Key, int] = {}

    def draw(self, rng: random.Random) -> Key | None:
        if not self._list:
            for key in self._writes.names(self._resource):
                self.add(key)
        return self._list[rng.randrange(len(self._list))] if self._list else None

    def add(self, key: Key) -> None:
        if key not in self._place:
            self._place[key] = len(self._list)
            self._list.append(key)

    def discard(self, key: Key) -> None:
        place = self._place.pop(key, None)
        if place is None:
            return
        last = self._list.pop()
        if last != key:
            self._list[place] = last
            self._place[last] = place


# -- what happens to a pod ------------------------------------------------------------------------


def _unschedulable(moment: str) -> Document:
    return {
        "type": "PodScheduled",
        "status": "False",
        "lastProbeTime": moment,
        "lastTransitionTime": moment,
        "reason": "Unschedulable",
        "message": "0 nodes are available: insufficient memory.",
    }


def _turn_readiness(status: Document, moment: str) -> None:
    """The first container's readiness probe changes its mind; the pod's conditions follow."""
    container = status["containerStatuses"][0]
    container["ready"] = not container.get("ready", False)
    if container["ready"]:
        container["state"] = {"running": {"startedAt": moment}}
        container["started"] = True
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Ready", "ContainersReady"):
            condition["status"] = "True" if container["ready"] else "False"
            condition["lastTransitionTime"] = moment


def _probe(status: Document, moment: str) -> None:
    """The kubelet has probed the pod and found it as it was."""
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Ready", "ContainersReady"):
            condition["lastProbeTime"] = moment


def _restart(container: Document, moment: str) -> None:
    running = (container.get("state") or {}).get("running") or {}
    container["lastState"] = {
        "terminated": {
            "exitCode": 137,
            "reason": "OOMKilled",
            "startedAt": running.get("startedAt", moment),
            "finishedAt": moment,
            "containerID": container.get("containerID", ""),
        }
    }
    container["state"] = {"running": {"startedAt": moment}}
    container["restartCount"] = container.get("restartCount", 0) + 1


def _start(pod: Document, moment: str) -> None:
    """A pod that had no containers running gets them: its kubelet has pulled the images."""
    conditions = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    pod["status"] |= {
        "phase": "Running",
        "conditions": [
            {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": moment}
            for kind in conditions
        ],
        "startTime": moment,
        "containerStatuses": [
            {
                "name": container.get("name", ""),
                "state": {"running": {"startedAt": moment}},
                "lastState": {},
                "ready": True,
                "restartCount": 0,
                "image": container.get("image", ""),
                "imageID": "",
                "started": True,
            }
            for container in (pod.get("spec") or {}).get("containers") or ()
        ],
    }
