r"""Request bodies in Kubernetes' protobuf form, as kubectl's own ``create`` commands and ``auth can-i``
send them.

The server answers JSON to everybody, but some clients write protobuf without asking first. A body is an
envelope (``k8s\0`` and a ``runtime.Unknown``) around a message of the kind; `_MESSAGES` holds the field
numbers of the kinds those commands make. A kind or field that is not in the table is refused with its
name, never dropped: the same object can be sent as JSON (``kubectl apply -f``). Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ...shards.model.errors import BadRequest, UnsupportedMediaType

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

_Message = Mapping[int, tuple[str, str]]

_TABLE = """
ObjectMeta: 1 name str, 2 generateName str, 3 namespace str, 4 selfLink str, 5 uid str,
    6 resourceVersion str, 7 generation int, 8 creationTimestamp time, 9 deletionTimestamp time,
    10 deletionGracePeriodSeconds int, 11 labels {}str, 12 annotations {}str,
    13 ownerReferences []OwnerReference, 14 finalizers []str
OwnerReference: 1 kind str, 3 name str, 4 uid str, 5 apiVersion str, 6 controller bool,
    7 blockOwnerDeletion bool
LabelSelector: 1 matchLabels {}str, 2 matchExpressions []LabelSelectorRequirement
LabelSelectorRequirement: 1 key str, 2 operator str, 3 values []str
Namespace: 1 metadata ObjectMeta, 2 spec NamespaceSpec, 3 status NamespaceStatus
NamespaceSpec: 1 finalizers []str
NamespaceStatus: 1 phase str
ConfigMap: 1 metadata ObjectMeta, 2 data {}str, 3 binaryData {}bytes, 4 immutable bool
Secret: 1 metadata ObjectMeta, 2 data {}bytes, 3 type str, 4 stringData {}str, 5 immutable bool
ServiceAccount: 1 metadata ObjectMeta, 3 imagePullSecrets []Named, 4 automountServiceAccountToken bool
Named: 1 name str
Service: 1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status ignored
ServiceSpec: 1 ports []ServicePort, 2 selector {}str, 3 clusterIP str, 4 type str, 5 externalIPs []str,
    7 sessionAffinity str, 8 loadBalancerIP str, 9 loadBalancerSourceRanges []str, 10 externalName str,
    11 externalTrafficPolicy str, 12 healthCheckNodePort int, 13 publishNotReadyAddresses bool,
    17 ipFamilyPolicy str, 18 clusterIPs []str, 19 ipFamilies []str,
    20 allocateLoadBalancerNodePorts bool, 21 loadBalancerClass str, 22 internalTrafficPolicy str
ServicePort: 1 name str, 2 protocol str, 3 port int, 4 targetPort int-or-string, 5 nodePort int,
    6 appProtocol str
Deployment: 1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status ignored
DeploymentSpec: 1 replicas int, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy Strategy,
    5 minReadySeconds int, 6 revisionHistoryLimit int, 7 paused bool, 9 progressDeadlineSeconds int
Strategy: 1 type str
PodTemplateSpec: 1 metadata ObjectMeta, 2 spec PodSpec
PodSpec: 2 containers []Container, 3 restartPolicy str, 4 terminationGracePeriodSeconds int,
    5 activeDeadlineSeconds int, 6 dnsPolicy str, 7 nodeSelector {}str, 8 serviceAccountName str,
    9 serviceAccount str, 10 nodeName str, 11 hostNetwork bool, 12 hostPID bool, 13 hostIPC bool,
    14 securityContext Empty, 15 imagePullSecrets []Named, 16 hostname str, 17 subdomain str,
    19 schedulerName str, 20 initContainers []Container, 24 priorityClassName str, 25 priority int
Container: 1 name str, 2 image str, 3 command []str, 4 args []str, 5 workingDir str,
    6 ports []ContainerPort, 7 env []EnvVar, 8 resources Resources, 13 terminationMessagePath str,
    14 imagePullPolicy str, 16 stdin bool, 17 stdinOnce bool, 18 tty bool, 20 terminationMessagePolicy str
ContainerPort: 1 name str, 2 hostPort int, 3 containerPort int, 4 protocol str, 5 hostIP str
EnvVar: 1 name str, 2 value str
Resources: 1 limits {}quantity, 2 requests {}quantity
Job: 1 metadata ObjectMeta, 2 spec JobSpec, 3 status ignored
JobSpec: 1 parallelism int, 2 completions int, 3 activeDeadlineSeconds int, 4 selector LabelSelector,
    5 manualSelector bool, 6 template PodTemplateSpec, 7 backoffLimit int, 8 ttlSecondsAfterFinished int,
    9 completionMode str, 10 suspend bool
CronJob: 1 metadata ObjectMeta, 2 spec CronJobSpec, 3 status ignored
CronJobSpec: 1 schedule str, 2 startingDeadlineSeconds int, 3 concurrencyPolicy str, 4 suspend bool,
    5 jobTemplate JobTemplateSpec, 6 successfulJobsHistoryLimit int, 7 failedJobsHistoryLimit int,
    8 timeZone str
JobTemplateSpec: 1 metadata ObjectMeta, 2 spec JobSpec
Role: 1 metadata ObjectMeta, 2 rules []PolicyRule
ClusterRole: 1 metadata ObjectMeta, 2 rules []PolicyRule, 3 aggregationRule AggregationRule
AggregationRule: 1 clusterRoleSelectors []LabelSelector
PolicyRule: 1 verbs []str, 2 apiGroups []str, 3 resources []str, 4 resourceNames []str,
    5 nonResourceURLs []str
RoleBinding: 1 metadata ObjectMeta, 2 subjects []Subject, 3 roleRef RoleRef
ClusterRoleBinding: 1 metadata ObjectMeta, 2 subjects []Subject, 3 roleRef RoleRef
Subject: 1 kind str, 2 apiGroup str, 3 name str, 4 namespace str
RoleRef: 1 apiGroup str, 2 kind str, 3 name str
ResourceQuota: 1 metadata ObjectMeta, 2 spec ResourceQuotaSpec, 3 status ignored
ResourceQuotaSpec: 1 hard {}quantity, 2 scopes []str
PodDisruptionBudget: 1 metadata ObjectMeta, 2 spec BudgetSpec, 3 status BudgetStatus
BudgetSpec: 1 minAvailable int-or-string, 2 selector LabelSelector, 3 maxUnavailable int-or-string
BudgetStatus: 1 observedGeneration int, 3 disruptionsAllowed int, 4 currentHealthy int,
    5 desiredHealthy int, 6 expectedPods int
PriorityClass: 1 metadata ObjectMeta, 2 value int, 3 globalDefault bool, 4 description str,
    5 preemptionPolicy str
SelfSubjectAccessReview: 1 metadata ObjectMeta, 2 spec AccessReviewSpec, 3 status AccessStatus
AccessReviewSpec: 1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes PathAttributes
ResourceAttributes: 1 namespace str, 2 verb str, 3 group str, 4 version str, 5 resource str,
    6 subresource str, 7 name str
PathAttributes: 1 path str, 2 verb str
AccessStatus: 1 allowed bool, 2 reason str, 3 evaluationError str, 4 denied bool
SelfSubjectReview: 1 metadata ObjectMeta, 2 status ignored
Eviction: 1 metadata ObjectMeta, 2 deleteOptions DeleteOptions
DeleteOptions: 1 gracePeriodSeconds int, 2 preconditions Preconditions, 3 orphanDependents bool,
    4 propagationPolicy str, 5 dryRun []str
Preconditions: 1 uid str, 2 resourceVersion str
Empty:
"""
"""Messages and their fields: number, JSON name, type. A type is str, bytes, int, bool, time, quantity,
int-or-string, a message, or ignored for
a status, which the server sets itself on creation; with [] it is repeated, with {} a map from text."""


def _messages() -> dict[str, _Message]:
    messages: dict[str, _Message] = {}
    for line in _TABLE.replace("\n    ", " ").strip().splitlines():
        name, _, fields = line.partition(":")
        parts = [field.split() for field in fields.split(",") if field.strip()]
        messages[name] = {int(number): (field, kind) for number, field, kind in parts}
    return messages


_MESSAGES = _messages()
_FALSE_COUNTS = frozenset(
    {"replicas", "value", "parallelism", "completions", "backoffLimit", "gracePeriodSeconds"}
)
"""Fields that are pointers in Go, or required: zero was said and is kept."""


def decode_protobuf(body: bytes) -> dict[str, Any]:
    """The object in a protobuf body, as its JSON would be read.

    Raises:
        BadRequest: not an envelope, or damaged.
        UnsupportedMediaType: a kind or field that is not in the table.
    """
    if not body.startswith(_MAGIC):
        raise BadRequest("the body is not Kubernetes protobuf: it does not start with its magic bytes")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        types = {number: bytes(value).decode() for number, value in _fields(envelope.get(1, b""))}
        kind = types.get(2, "")
        if kind not in _MESSAGES:
            raise UnsupportedMediaType(
                f"a {kind or 'body'} in protobuf form is not understood by this server; "
                "send it as application/json"
            )
        found = _message(envelope.get(2, b""), kind)
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise BadRequest(f"the protobuf body is damaged: {error}") from error
    return {"apiVersion": types.get(1, ""), "kind": kind, **found}


def _fields(data: bytes | int) -> Iterator[tuple[int, Any]]:
    """Number and raw value (an int or bytes) of every field of a message.

    Raises:
        ValueError: it ends early, or has a wire type Kubernetes does not use.
        TypeError: there is a number in its place.
    """
    if isinstance(data, int):
        raise TypeError(f"a number stands where a message was expected: {data}")
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("it ends within a field")
            yield number, data[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _message(data: bytes, name: str) -> dict[str, Any]:
    known = _MESSAGES[name]
    found: dict[str, Any] = {}
    for number, raw in _fields(data):
        if number not in known:
            raise UnsupportedMediaType(
                f"field {number} of {name} in protobuf form is not understood by this server; "
                "send the object as application/json"
            )
        field, kind = known[number]
        if kind.startswith("[]"):
            found.setdefault(field, []).append(_value(raw, kind[2:]))
        elif kind.startswith("{}"):
            entry = dict(_fields(raw))
            found.setdefault(field, {})[bytes(entry.get(1, b"")).decode()] = _value(
                entry.get(2, b""), kind[2:]
            )
        else:
            found[field] = _value(raw, kind)
    # Go writes what its structs hold, empty parts included; JSON leaves those out.
    return {
        field: value
        for field, value in found.items()
        if value not in (None, "", {}, []) and (value or field in _FALSE_COUNTS)
    }


def _value(raw: Any, kind: str) -> Any:
    match kind:
        case "ignored":
            return None
        case "str":
            return bytes(raw).decode()
        case "bytes":
            return base64.b64encode(bytes(raw)).decode()
        case "int":
            return raw - (1 << 64) if raw >> 63 else raw
        case "bool":
            return bool(raw)
        case "time":
            seconds = dict(_fields(raw)).get(1)
            return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None
        case "quantity":
            return bytes(dict(_fields(raw)).get(1, b"0")).decode()
        case "int-or-string":
            parts = dict(_fields(raw))
            return bytes(parts.get(3, b"")).decode() if parts.get(1) else parts.get(2, 0)
        case _:
            return _message(raw, kind)
