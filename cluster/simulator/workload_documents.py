"""The documents of one workload and of one node, as a busy cluster has them, with slots for what differs.

Modelled on the recorded cluster: the same labels, probes, environment, volumes and conditions, the same
owners, and managed fields of the controllers that would have written them. A workload is a Deployment with
everything that belongs to it; `population` decides how many there are and fills the slots. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ...shards.model.resources import ResourceType
from .ownership import owned_fields
from .templates import slot

PodState: TypeAlias = Literal["running", "crashing", "pending"]
Document: TypeAlias = dict[str, Any]

_REGISTRY = "registry.example.com"


@dataclass(frozen=True, slots=True)
class Workload:
    """What is the same for all objects of one workload."""

    name: str
    namespace: str
    template_hash: str
    image_tag: str
    tier: str
    version: str
    cpu: str
    memory: str
    flags: str
    """Value of an environment variable; of no meaning but its length."""
    sidecar: bool
    """Runs a mesh proxy beside the application."""
    replicas: int
    available: int
    created: str
    """RFC 3339."""

    @property
    def replica_set(self) -> str:
        """Name of the ReplicaSet, and the start of its pods' names."""
        return f"{self.name}-{self.template_hash}"

    @property
    def image(self) -> str:
        """Image of the application container."""
        return f"{_REGISTRY}/{self.namespace}/{self.name}:{self.image_tag}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of everything that belongs to it."""
        return {
            "app": self.name,
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/part-of": self.namespace,
            "tier": self.tier,
            "version": self.version,
        }


def managed(
    document: Document,
    resource_type: ResourceType,
    *,
    writer: str,
    status_writer: str = "",
    labeler: str = "",
) -> Document:
    """Adds managed fields: the writer's, and entries for who writes the labels and the status, if any."""
    writers: list[tuple[str, str | None, Document]] = [(writer, None, document)]
    if labeler:
        writers.append((labeler, None, {"metadata": document["metadata"]}))
    if status_writer:
        writers.append((status_writer, "status", document))
    entries = []
    for name, subresource, written in writers:
        entry: Document = {
            "manager": name,
            "operation": "Update",
            "apiVersion": resource_type.resource.api_version,
            "time": slot("created"),
            "fieldsType": "FieldsV1",
            "fieldsV1": owned_fields(written, custom=False, subresource=subresource),
        }
        entries.append(entry | ({"subresource": subresource} if subresource else {}))
    metadata = document["metadata"] | {"managedFields": entries}
    return document | {"metadata": metadata}


def metadata(
    name: str,
    namespace: str = "",
    *,
    generate_name: str = "",
    generation: int = 0,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    owner: Document | None = None,
) -> Document:
    """Metadata in the API server's order, with slots for uid, version and time; what is empty is left out."""
    document: Document = {
        "name": name,
        "generateName": generate_name,
        "namespace": namespace,
        "uid": slot("uid"),
        "resourceVersion": slot("version"),
        "generation": generation,
        "creationTimestamp": slot("created"),
        "labels": dict(sorted((labels or {}).items())),
        "annotations": dict(sorted((annotations or {}).items())),
        "ownerReferences": [owner] if owner is not None else [],
    }
    return {key: value for key, value in document.items() if value}


def owned_by(api_version: str, kind: str, name: str) -> Document:
    """A reference to the controlling owner, whose uid is a slot."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": slot("owner"),
        "controller": True,
        "blockOwnerDeletion": True,
    }


# -- pods -----------------------------------------------------------------------------------------


def pod(workload: Workload, state: PodState) -> Document:
    """A pod; slots: name, uid, version, created, started, owner, checksum, zone, node, host, ip, digests."""
    spec = pod_spec(workload)
    node = {} if state == "pending" else {"nodeName": slot("node")}
    before = {key: spec[key] for key in ("volumes", "containers", "restartPolicy")}
    tolerations = [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
        for taint in ("not-ready", "unreachable")
    ]
    return {
        "metadata": metadata(
            slot("name"),
            workload.namespace,
            generation=1,
            generate_name=f"{workload.replica_set}-",
            labels=workload.labels
            | {"pod-template-hash": workload.template_hash, "topology.kubernetes.io/zone": slot("zone")},
            annotations={"checksum/config": slot("checksum"), "prometheus.io/scrape": "true"},
            owner=owned_by("apps/v1", "ReplicaSet", workload.replica_set),
        ),
        "spec": {
            **before,
            **{key: value for key, value in spec.items() if key not in before},
            **node,
            "tolerations": tolerations,
            "priority": 0,
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": _pod_status(workload, state),
    }


def pod_spec(workload: Workload) -> Document:
    """The spec of the pod template."""
    mounts = [
        {"name": "config", "mountPath": "/etc/app"},
        {"name": "cache", "mountPath": "/var/cache/app"},
        {
            "name": "kube-api-access",
            "readOnly": True,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        },
    ]
    application = {
        "name": workload.name,
        "image": workload.image,
        "ports": [
            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
        ],
        "env": _environment(workload),
        "resources": {
            "limits": {"memory": workload.memory},
            "requests": {"cpu": workload.cpu, "memory": workload.memory},
        },
        "volumeMounts": mounts,
        "livenessProbe": _probe("/healthz"),
        "readinessProbe": _probe("/readyz"),
        **_TERMINATION,
    }
    proxy = {
        "name": "proxy",
        "image": f"{_REGISTRY}/mesh/proxy:1.29.1",
        "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--concurrency", "2"],
        "env": _environment(workload)[:3],
        "resources": {"requests": {"cpu": "10m", "memory": "40Mi"}},
        "volumeMounts": mounts[2:],
        **_TERMINATION,
    }
    return {
        "volumes": _volumes(workload),
        "containers": [application, proxy] if workload.sidecar else [application],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": workload.name,
        "serviceAccount": workload.name,
        "securityContext": {"runAsUser": 1000, "runAsNonRoot": True, "fsGroup": 1000},
        "schedulerName": "default-scheduler",
    }


_TERMINATION: Mapping[str, str] = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}


def _environment(workload: Workload) -> list[Document]:
    values = {
        "LOG_LEVEL": "info",
        "REGION": "eu-1",
        "DB_HOST": f"db.{workload.namespace}.svc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.observability.svc:4317",
        "FEATURE_FLAGS": workload.flags,
    }
    downward = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_IP": "status.podIP"}
    return [{"name": name, "value": value} for name, value in values.items()] + [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in downward.items()
    ]


def _probe(path: str) -> Document:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


def _volumes(workload: Workload) -> list[Document]:
    token = {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    authority = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    return [
        {"name": "config", "configMap": {"name": workload.name, "defaultMode": 420}},
        {"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "kube-api-access", "projected": {"sources": [token, authority], "defaultMode": 420}},
    ]


def _pod_status(workload: Workload, state: PodState) -> Document:
    if state == "pending":
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": slot("created"),
            "reason": "Unschedulable",
            "message": "0 nodes are available: insufficient memory.",
        }
        return {"phase": "Pending", "conditions": [condition], "qosClass": "Burstable"}
    ready = "True" if state == "running" else "False"
    values = {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": ready,
        "ContainersReady": ready,
        "PodScheduled": "True",
    }
    conditions = [
        {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": slot("started")}
        for kind, status in values.items()
    ]
    statuses = [_container_status(workload.name, workload.image, "first", state)]
    if workload.sidecar:
        statuses.append(_container_status("proxy", f"{_REGISTRY}/mesh/proxy:1.29.1", "second", "running"))
    return {
        "phase": "Running",
        "conditions": conditions,
        "hostIP": slot("host"),
        "podIP": slot("ip"),
        "podIPs": [{"ip": slot("ip")}],
        "startTime": slot("created"),
        "containerStatuses": statuses,
        "qosClass": "Burstable",
    }


def _container_status(name: str, image: str, which: str, state: PodState) -> Document:
    crashed = {"exitCode": 1, "reason": "Error", "startedAt": slot("created"), "finishedAt": slot("started")}
    identity = f"containerd://{slot(f'{which}_id')}"
    crashing = state == "crashing"
    waiting = {"reason": "CrashLoopBackOff", "message": f"back-off 5m0s restarting failed container={name}"}
    return {
        "name": name,
        "state": {"waiting": waiting} if crashing else {"running": {"startedAt": slot("started")}},
        "lastState": {"terminated": crashed | {"containerID": identity}} if crashing else {},
        "ready": not crashing,
        "restartCount": 7 if crashing else 0,
        "image": image,
        "imageID": f"{image.partition(':')[0]}@sha256:{slot('image_digest')}",
        "containerID": identity,
        "started": not crashing,
    }


# -- controllers ----------------------------------------------------------------------------------


def deployment(workload: Workload) -> Document:
    """The Deployment, rolled out."""
    count, available = workload.replicas, workload.available
    condition = {
        "type": "Available",
        "status": "True",
        "lastUpdateTime": slot("created"),
        "lastTransitionTime": slot("created"),
        "reason": "MinimumReplicasAvailable",
        "message": "Deployment has minimum availability.",
    }
    missing = {"unavailableReplicas": count - available} if available < count else {}
    return {
        "metadata": metadata(
            workload.name,
            workload.namespace,
            generation=1,
            labels=workload.labels,
            annotations={"deployment.kubernetes.io/revision": "1"},
        ),
        "spec": {
            "replicas": count,
            "selector": {"matchLabels": {"app": workload.name}},
            "template": {"metadata": {"labels": workload.labels}, "spec": pod_spec(workload)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
            },
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        },
        "status": {
            "observedGeneration": 1,
            "replicas": count,
            "updatedReplicas": count,
            "readyReplicas": available,
            "availableReplicas": available,
            **missing,
            "conditions": [condition],
        },
    }


def replica_set(workload: Workload) -> Document:
    """The ReplicaSet of the Deployment's only revision; slot `owner` is the Deployment's uid."""
    hashed = {"pod-template-hash": workload.template_hash}
    return {
        "metadata": metadata(
            workload.replica_set,
            workload.namespace,
            generation=1,
            labels=workload.labels | hashed,
            annotations={
                "deployment.kubernetes.io/desired-replicas": str(workload.replicas),
                "deployment.kubernetes.io/revision": "1",
            },
            owner=owned_by("apps/v1", "Deployment", workload.name),
        ),
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": {"app": workload.name} | hashed},
            "template": {"metadata": {"labels": workload.labels | hashed}, "spec": pod_spec(workload)},
        },
        "status": {
            "replicas": workload.replicas,
            "fullyLabeledReplicas": workload.replicas,
            "readyReplicas": workload.available,
            "availableReplicas": workload.available,
            "observedGeneration": 1,
        },
    }
