"""The columns of pods. The Status column is what kubectl users read first, and is computed, not stored.

The phase is only its last resort: waiting and terminated containers, init containers that have not finished,
scheduling gates and a deletion under way all come before it, in the order kube-apiserver's ``printPod`` has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from .cells import AGE, NAME, NONE, Cell, Column, Meta, Printer, View, age, created

_NODE_LOST = "NodeLost"
_TERMINAL = ("Succeeded", "Failed")


class _Waiting(msgspec.Struct, frozen=True):
    reason: str = ""


class _Running(msgspec.Struct, frozen=True):
    pass


class _Terminated(msgspec.Struct, frozen=True, rename="camel"):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    finished_at: str | None = None


class _State(msgspec.Struct, frozen=True):
    waiting: _Waiting | None = None
    running: _Running | None = None
    terminated: _Terminated | None = None


class _ContainerStatus(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    state: _State = _State()
    last_state: _State = _State()


class _Condition(msgspec.Struct, frozen=True):
    type: str
    status: str = ""
    reason: str = ""


class _Container(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    restart_policy: str = ""


class _Gate(msgspec.Struct, frozen=True, rename="camel"):
    condition_type: str


class _Address(msgspec.Struct, frozen=True):
    ip: str = ""


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    readiness_gates: list[_Gate] | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    phase: str = ""
    reason: str = ""
    nominated_node_name: str = ""
    pod_ips: list[_Address] | None = msgspec.field(name="podIPs", default=None)
    conditions: list[_Condition] | None = None
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None


class PodView(View, frozen=True):
    """The fields of a pod that its cells rest on."""

    spec: _Spec = _Spec()
    status: _Status = _Status()


class _Tally(NamedTuple):
    """What a pass over container statuses adds up to."""

    reason: str
    ready: int
    restarts: int
    last_restart: str
    """Newest end of a previous run, RFC 3339 in UTC (which compares as text); empty if there was none."""


def _cells(pod: PodView, meta: Meta, now: datetime) -> list[Cell]:
    spec, status = pod.spec, pod.status
    sidecars = {c.name for c in spec.init_containers or () if c.restart_policy == "Always"}
    total = len(spec.containers or ()) + len(sidecars)
    tally = _tally(pod, sidecars)
    restarts = str(tally.restarts)
    if tally.restarts and tally.last_restart:
        restarts = f"{restarts} ({age(tally.last_restart, now)} ago)"
    return [
        meta.name,
        f"{tally.ready}/{total}",
        _deletion(pod, meta, tally.reason),
        restarts,
        created(meta, now),
        (status.pod_ips[0].ip if status.pod_ips else "") or NONE,
        spec.node_name or NONE,
        status.nominated_node_name or NONE,
        _readiness_gates(pod),
    ]


def _tally(pod: PodView, sidecars: set[str]) -> _Tally:
    status = pod.status
    reason = status.reason or status.phase
    conditions = status.conditions or ()
    if any(c.type == "PodScheduled" and c.reason == "SchedulingGated" for c in conditions):
        reason = "SchedulingGated"
    initial, blocked, sidecar_restarts, sidecar_last = _init_tally(pod, sidecars, reason)
    if blocked and not _is_true(conditions, "Initialized"):
        return initial
    # Initialised: what init containers did before no longer counts, except for sidecars, which keep running.
    reason, ready = initial.reason, initial.ready
    restarts, last, running, failure = sidecar_restarts, sidecar_last, False, ""
    for container in reversed(status.container_statuses or ()):
        restarts += container.restart_count
        last = max(last, _ended(container))
        state = container.state
        if state.waiting is not None and state.waiting.reason:
            reason = state.waiting.reason
        elif state.terminated is not None:
            reason = _termination(state.terminated)
            failure = reason if state.terminated.exit_code else failure
        elif container.ready and state.running is not None:
            running = True
            ready += 1
    if reason == "Completed":
        # The first container has, which says nothing of the others.
        if running and _is_true(conditions, "Ready"):
            reason = "Running"
        else:
            reason = failure or ("NotReady" if running else reason)
    return _Tally(reason, ready, restarts, last)


def _init_tally(pod: PodView, sidecars: set[str], reason: str) -> tuple[_Tally, bool, int, str]:
    """Walks the init containers up to the first that has neither finished nor, as a sidecar, started.

    Returns the tally, whether one such was found, and the restarts and last restart of sidecars alone.
    """
    ready = restarts = sidecar_restarts = 0
    last = sidecar_last = ""
    for position, container in enumerate(pod.status.init_container_statuses or ()):
        restarts += container.restart_count
        last = max(last, _ended(container))
        sidecar = container.name in sidecars
        if sidecar:
            sidecar_restarts += container.restart_count
            sidecar_last = max(sidecar_last, _ended(container))
        state = container.state
        if state.terminated is not None and state.terminated.exit_code == 0:
            continue
        if sidecar and container.started:
            ready += container.ready
            continue
        if state.terminated is not None:
            reason = f"Init:{_termination(state.terminated)}"
        elif state.waiting is not None and state.waiting.reason not in ("", "PodInitializing"):
            reason = f"Init:{state.waiting.reason}"
        else:
            reason = f"Init:{position}/{len(pod.spec.init_containers or ())}"
        return _Tally(reason, ready, restarts, last), True, sidecar_restarts, sidecar_last
    return _Tally(reason, ready, restarts, last), False, sidecar_restarts, sidecar_last


def _deletion(pod: PodView, meta: Meta, reason: str) -> str:
    if meta.deletion_timestamp is None:
        return reason
    if pod.status.reason == _NODE_LOST:
        return "Unknown"
    return reason if pod.status.phase in _TERMINAL else "Terminating"


def _termination(terminated: _Terminated) -> str:
    if terminated.reason:
        return terminated.reason
    return f"Signal:{terminated.signal}" if terminated.signal else f"ExitCode:{terminated.exit_code}"


def _ended(container: _ContainerStatus) -> str:
    terminated = container.last_state.terminated
    return (terminated.finished_at or "") if terminated is not None else ""


def _is_true(conditions: Sequence[_Condition], name: str) -> bool:
    return any(condition.type == name and condition.status == "True" for condition in conditions)


def _readiness_gates(pod: PodView) -> str:
    gates = pod.spec.readiness_gates
    if not gates:
        return NONE
    conditions = pod.status.conditions or ()
    met = sum(_is_true(conditions, gate.condition_type) for gate in gates)
    return f"{met}/{len(gates)}"


_ENDS: Mapping[str, str] = {
    "Succeeded": "The pod has completed successfully.",
    "Failed": "The pod failed.",
}


def _conditions(pod: PodView) -> Sequence[Mapping[str, Any]]:
    message = _ENDS.get(pod.status.phase)
    if message is None:
        return ()
    return ({"type": "Completed", "status": "True", "reason": pod.status.phase, "message": message},)


PODS = Printer(
    (
        NAME,
        Column("Ready", description="The aggregate readiness state of this pod for accepting traffic."),
        Column("Status", description="The aggregate status of the containers in this pod."),
        Column(
            "Restarts",
            description="The number of times the containers in this pod have been restarted and when "
            "the last "
            "container in this pod has restarted.",
        ),
        AGE,
        Column(
            "IP",
            description="podIP address allocated to the pod. Routable at least within the cluster. "
            "Empty if not "
            "yet allocated.",
            priority=1,
        ),
        Column(
            "Node",
            description="NodeName indicates in which node this pod is scheduled. If empty, this pod is a "
            "candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the "
            "kubelet for this node becomes responsible for the lifecycle of this pod. This field "
            "should not be "
            "used to express a desire for the pod to be scheduled on a specific node. "
            "https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
            priority=1,
        ),
        Column(
            "Nominated Node",
            description="nominatedNodeName is set only when this pod preempts other pods on the node, but it "
            "cannot be scheduled right away as preemption victims receive their graceful termination "
            "periods. "
            "This field does not guarantee that the pod will be scheduled on this node. Scheduler "
            "may decide to "
            "place the pod elsewhere if other nodes become available sooner. Scheduler may also "
            "decide to give "
            "the resources on this node to a higher priority pod that is created after preemption. "
            "As a result, "
            "this field may be different than PodSpec.nodeName when the pod is scheduled.",
            priority=1,
        ),
        Column(
            "Readiness Gates",
            description="If specified, all readiness gates will be evaluated for pod readiness. A "
            "pod is ready "
            "when all its containers are ready AND all conditions specified in the readiness gates "
            "have status "
            'equal to "True" More info: '
            "https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
            priority=1,
        ),
    ),
    PodView,
    _cells,
    _conditions,
)
