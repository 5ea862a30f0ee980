"""The documents around a workload's pods: services, configuration, events; and nodes and namespaces.

The smaller siblings of `workload_documents`, in the same manner: dicts with slots that `population` fills.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from .templates import slot
from .workload_documents import Document, Workload, metadata, owned_by


def config_map(workload: Workload, values: Sequence[str]) -> Document:
    """Configuration of a workload."""
    text = "".join(f"key{at}: {value}\n" for at, value in enumerate(values))
    return {
        "metadata": metadata(workload.name, workload.namespace, labels=workload.labels),
        "data": {"app.yaml": text},
    }


def secret(workload: Workload) -> Document:
    """A Secret that holds none: the values say so when decoded."""
    return {
        "metadata": metadata(workload.name, workload.namespace, labels=workload.labels),
        "data": {"password": "bm90LWEtcmVhbC1zZWNyZXQ=", "token": "ZXhhbXBsZQ=="},
        "type": "Opaque",
    }


def service_account(workload: Workload) -> Document:
    """The account the pods run as."""
    return {"metadata": metadata(workload.name, workload.namespace, labels=workload.labels)}


def service(workload: Workload) -> Document:
    """A ClusterIP service; slot: ip."""
    return {
        "metadata": metadata(workload.name, workload.namespace, labels=workload.labels),
        "spec": {
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}],
            "selector": {"app": workload.name},
            "clusterIP": slot("ip"),
            "clusterIPs": [slot("ip")],
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
        },
        "status": {"loadBalancer": {}},
    }


def endpoint_slice(workload: Workload, suffix: str, endpoints: Sequence[Document]) -> Document:
    """One slice of a service's endpoints; slot `owner` is the Service's uid."""
    return {
        "metadata": metadata(
            f"{workload.name}-{suffix}",
            workload.namespace,
            generation=1,
            generate_name=f"{workload.name}-",
            labels={
                "app": workload.name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": workload.name,
            },
            owner=owned_by("v1", "Service", workload.name),
        ),
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    }


def endpoint(namespace: str, pod: str, uid: str, ip: str, *, node: str, zone: str, ready: bool) -> Document:
    """One endpoint of a slice."""
    return {
        "addresses": [ip],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod, "uid": uid},
        "nodeName": node,
        "zone": zone,
    }


def event(namespace: str) -> Document:
    """An event about a pod; slots: name, pod, owner (its uid), reason, kind, message, node, first, last."""
    return {
        "metadata": metadata(slot("name"), namespace),
        "involvedObject": {
            "kind": "Pod",
            "namespace": namespace,
            "name": slot("pod"),
            "uid": slot("owner"),
            "apiVersion": "v1",
        },
        "reason": slot("reason"),
        "message": slot("message"),
        "source": {"component": "kubelet", "host": slot("node")},
        "firstTimestamp": slot("first"),
        "lastTimestamp": slot("last"),
        "count": 1,
        "type": slot("kind"),
        "eventTime": None,
        "reportingComponent": "kubelet",
        "reportingInstance": slot("node"),
    }


def namespace(name: str, team: str) -> Document:
    """A namespace in use."""
    labels = {"kubernetes.io/metadata.name": name} | ({"env": "prod", "team": team} if team else {})
    return {
        "metadata": metadata(name, labels=dict(sorted(labels.items()))),
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def node(images: Sequence[tuple[str, int]]) -> Document:
    """A node that is ready; slots: name, zone, subnet, address, machine, now."""
    conditions = [
        {
            "type": kind,
            "status": status,
            "lastHeartbeatTime": slot("now"),
            "lastTransitionTime": slot("created"),
            "reason": reason,
            "message": f"kubelet has posted {reason}",
        }
        for kind, status, reason in (
            ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID"),
            ("Ready", "True", "KubeletReady"),
        )
    ]
    return {
        "metadata": metadata(
            slot("name"),
            labels={
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": slot("name"),
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "g5.2xlarge",
                "pool": "compute",
                "topology.kubernetes.io/zone": slot("zone"),
            },
        ),
        "spec": {
            "podCIDR": slot("subnet"),
            "podCIDRs": [slot("subnet")],
            "providerID": f"cloud:///zone/{slot('machine')}",
        },
        "status": {
            "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "allocatable": {"cpu": "15800m", "memory": "62000Mi", "pods": "110"},
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": slot("address")},
                {"type": "Hostname", "address": slot("name")},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "machineID": slot("machine"),
                "systemUUID": slot("machine"),
                "bootID": slot("machine"),
                "kernelVersion": "6.1.0",
                "osImage": "Linux",
                "containerRuntimeVersion": "containerd://2.0.1",
                "kubeletVersion": "v1.36.2",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
            "images": [{"names": [name], "sizeBytes": size} for name, size in images],
        },
    }


def lease() -> Document:
    """A kubelet's lease; slots: name, owner (the node's uid), now."""
    return {
        "metadata": metadata(slot("name"), "kube-node-lease", owner=owned_by("v1", "Node", slot("name"))),
        "spec": {
            "holderIdentity": slot("name"),
            "leaseDurationSeconds": 40,
            "renewTime": slot("renewed"),
        },
    }
