"""Tables: recorded ones byte by byte, and the rules of the columns nobody recorded."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shoal.cluster.serving.columns.cells import Column, Requirement, Selector, human_duration, selector_text
from shoal.cluster.serving.columns.custom import find, parse_path
from shoal.cluster.serving.documents import ListMetadata, encode_object
from shoal.cluster.serving.tables import PRINTERS, column_definitions, rows, table, table_event
from shoal.cluster.simulator.builtin import builtin_types
from shoal.cluster.simulator.cluster_file import read_cluster
from shoal.shards.model.errors import Garbage
from shoal.shards.model.resources import PrinterColumn, Resource, ResourceType

WIRE = Path(__file__).parents[2] / "wire"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CREATED = "2026-11-20T11:58:00Z"
TYPES = {known.resource.qualified_name: known for known in builtin_types()}
WIDGET = ResourceType(
    resource=Resource("example.com", "v1", "widgets"),
    kind="Widget",
    namespaced=True,
    custom=True,
    printer_columns=(PrinterColumn(name="Size", type="string", json_path=".spec.size"),),
)


def recorded(name):
    return json.loads((WIRE / f"{name}.json").read_text())["response"]


def moment(text):
    return datetime.fromisoformat(text)


def cells(resource, document, **metadata):
    """The cells of one object, by column."""
    known = TYPES[resource]
    body = encode_object(
        {"metadata": {"name": "x", "creationTimestamp": CREATED} | metadata, **document}, known
    )
    row = json.loads(next(rows(known, [body], now=NOW)))
    return dict(zip([column.name for column in column_definitions(known)], row["cells"], strict=True))


# -- recorded ---------------------------------------------------------------------------------------


def test_a_table_of_config_maps_is_the_servers_bytes():
    expected = recorded("list-table-configmaps")["body"]
    metadata = json.loads(expected)["metadata"]
    items = json.loads(recorded("list-page-1")["body"])["items"]
    known = TYPES["configmaps"]
    answer = table(
        known,
        [encode_object(item, known) for item in items],
        ListMetadata(metadata["resourceVersion"], metadata["continue"], metadata["remainingItemCount"]),
        now=moment("2026-11-20T09:01:08.5Z"),
    )
    assert answer.decode() == expected


def test_rows_and_columns_of_pods_are_the_servers():
    expected = json.loads(recorded("list-table-pods")["body"])
    known = TYPES["pods"]
    assert column_definitions(known) == tuple(Column(**column) for column in expected["columnDefinitions"])
    items = json.loads(recorded("list-field-selector-pods")["body"])["items"]
    answer = [
        json.loads(row)
        for row in rows(
            known, [encode_object(item, known) for item in items], now=moment("2026-11-20T09:01:08.5Z")
        )
    ]
    by_name = {row["cells"][0]: row for row in expected["rows"]}
    assert len(answer) == 2
    assert answer == [by_name[row["cells"][0]] for row in answer]


def test_a_table_of_a_custom_resource_is_the_servers_bytes():
    expected = recorded("crd-list-table")["body"]
    events = [json.loads(entry["line"]) for entry in recorded("crd-deleted-while-watched")["lines"]]
    bodies = [encode_object(event["object"], WIDGET) for event in events if event["type"] == "ADDED"]
    assert table(WIDGET, bodies, ListMetadata("252"), now=NOW).decode() == expected


def test_a_watch_of_tables_is_the_servers_lines_columns_first_only():
    known = TYPES["configmaps"]
    created = {"225": "2026-11-20T09:01:35.5Z"}
    lines = recorded("watch-table")["lines"]
    plain = [json.loads(entry["line"]) for entry in recorded("watch-replay")["lines"]]
    assert len(lines) >= 5
    for at, (entry, event) in enumerate(zip(lines, plain, strict=False)):
        answer = table_event(
            known,
            event["type"],
            encode_object(event["object"], known),
            now=moment(created["225"]),
            first=at == 0,
        )
        assert answer.decode() == entry["line"] + "\n"


def test_every_recorded_object_has_a_row_that_fits_its_columns():
    """The printers' views read every object of a real cluster: none falls back to its name alone."""
    seen = set()
    for recorded_object in read_cluster():
        name = recorded_object.resource.qualified_name
        if name not in TYPES:
            continue
        known = TYPES[name]
        row = json.loads(next(rows(known, [recorded_object.body], now=NOW, include_object="None")))
        assert len(row["cells"]) == len(column_definitions(known))
        assert None not in row["cells"], (name, row)
        seen.add(name)
    assert len(seen) >= 20


def test_every_printer_belongs_to_a_built_in_resource():
    assert set(PRINTERS) <= set(TYPES)


# -- what a row carries -----------------------------------------------------------------------------


def test_include_object_decides_what_a_row_carries():
    known = TYPES["configmaps"]
    body = encode_object({"metadata": {"name": "a"}, "data": {"k": "<v>"}}, known)
    carried = {
        policy: json.loads(next(rows(known, [body], now=NOW, include_object=policy)))["object"]
        for policy in ("Metadata", "Object", "None")
    }
    assert carried["None"] is None
    assert carried["Object"] == json.loads(body)
    assert carried["Metadata"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "a"},
    }
    older = json.loads(table(known, [body], ListMetadata(1), now=NOW, version="v1beta1"))
    assert older["apiVersion"] == older["rows"][0]["object"]["apiVersion"] == "meta.k8s.io/v1beta1"


def test_an_object_that_is_not_what_its_kind_says_keeps_its_row():
    odd = encode_object({"metadata": {"name": "odd"}, "spec": "none", "status": {"phase": 3}}, TYPES["pods"])
    good = encode_object({"metadata": {"name": "good"}}, TYPES["pods"])
    names = [json.loads(row)["cells"][0] for row in rows(TYPES["pods"], [odd, good], now=NOW)]
    assert names == ["odd", "good"]
    for body in (b"{}", b"[", b'{"metadata":1}'):
        with pytest.raises(Garbage):
            list(rows(TYPES["pods"], [body], now=NOW))
        with pytest.raises(Garbage):
            list(rows(WIDGET, [body], now=NOW))


def test_resources_without_columns_of_their_own_show_name_and_age():
    assert cells("podtemplates", {}) == {"Name": "x", "Age": "2m"}
    assert cells("podtemplates", {}, creationTimestamp=None) == {"Name": "x", "Age": "<unknown>"}


# -- ages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elapsed", "text"),
    [
        (timedelta(seconds=-5), "<invalid>"),
        (timedelta(seconds=-1.5), "0s"),
        (timedelta(0), "0s"),
        (timedelta(seconds=119.9), "119s"),
        (timedelta(seconds=120), "2m"),
        (timedelta(minutes=9, seconds=59), "9m59s"),
        (timedelta(minutes=10, seconds=30), "10m"),
        (timedelta(minutes=179), "179m"),
        (timedelta(hours=3), "3h"),
        (timedelta(hours=7, minutes=59), "7h59m"),
        (timedelta(hours=8, minutes=30), "8h"),
        (timedelta(hours=47), "47h"),
        (timedelta(hours=48), "2d"),
        (timedelta(days=7, hours=23), "7d23h"),
        (timedelta(days=8, hours=5), "8d"),
        (timedelta(days=729), "729d"),
        (timedelta(days=730), "2y"),
        (timedelta(days=800), "2y70d"),
        (timedelta(days=2919), "7y364d"),
        (timedelta(days=2920), "8y"),
    ],
)
def test_ages_have_two_units_at_most(elapsed, text):
    assert human_duration(elapsed) == text


# -- pods -------------------------------------------------------------------------------------------


def container(name="a", *, state=None, ready=False, restarts=0, last=None, started=None):
    status = {"name": name, "ready": ready, "restartCount": restarts, "state": state or {}, "lastState": {}}
    if last:
        status["lastState"] = {"terminated": {"exitCode": 1, "finishedAt": last}}
    return status | ({"started": started} if started is not None else {})


RUNNING = {"running": {"startedAt": CREATED}}
SPEC = {"containers": [{"name": "a"}, {"name": "b"}]}


def pod(spec=SPEC, metadata=None, **status):
    shown = cells("pods", {"spec": spec, "status": status}, **(metadata or {}))
    return shown["Ready"], shown["Status"], shown["Restarts"]


def waiting(reason):
    return {"waiting": {"reason": reason}}


def ended(code, **more):
    return {"terminated": {"exitCode": code} | more}


def test_a_running_pod_counts_ready_containers():
    both = [container("a", state=RUNNING, ready=True), container("b", state=RUNNING)]
    assert pod(phase="Running", containerStatuses=both) == ("1/2", "Running", "0")


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([container(state=waiting("CrashLoopBackOff"))], "CrashLoopBackOff"),
        ([container(state=waiting("ImagePullBackOff")), container("b", state=RUNNING)], "ImagePullBackOff"),
        ([container(state=ended(1, reason="Error"))], "Error"),
        ([container(state=ended(137, signal=9))], "Signal:9"),
        ([container(state=ended(3))], "ExitCode:3"),
        ([container(state=ended(0, reason="Completed"))], "Completed"),
    ],
)
def test_a_containers_trouble_comes_before_the_phase(statuses, status):
    assert pod(phase="Running", containerStatuses=statuses)[1] == status


def test_a_completed_container_beside_a_running_one_is_running_or_not_ready():
    statuses = [
        container("a", state=ended(0, reason="Completed")),
        container("b", state=RUNNING, ready=True),
    ]
    ready = [{"type": "Ready", "status": "True"}]
    assert pod(phase="Running", containerStatuses=statuses, conditions=ready)[1] == "Running"
    assert pod(phase="Running", containerStatuses=statuses)[1] == "NotReady"


def test_a_completed_container_hides_no_failed_one():
    statuses = [
        container("a", state=ended(0, reason="Completed")),
        container("b", state=ended(2, reason="Error")),
    ]
    assert pod(phase="Failed", containerStatuses=statuses)[1] == "Error"
    statuses.append(container("c", state=RUNNING, ready=True))
    assert pod(phase="Running", containerStatuses=statuses)[1] == "Error"
    ready = [{"type": "Ready", "status": "True"}]
    assert pod(phase="Running", containerStatuses=statuses, conditions=ready)[1] == "Running"


def test_restarts_say_when_the_last_one_was():
    statuses = [
        container("a", state=RUNNING, ready=True, restarts=2, last="2026-11-20T11:00:00Z"),
        container("b", state=RUNNING, ready=True, restarts=1, last="2026-11-20T11:50:00Z"),
    ]
    assert pod(phase="Running", containerStatuses=statuses) == ("2/2", "Running", "3 (10m ago)")
    del statuses[0]["lastState"], statuses[1]["lastState"]
    assert pod(phase="Running", containerStatuses=statuses)[2] == "3"


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([container("i", state=RUNNING), container("j")], "Init:0/2"),
        ([container("i", state=ended(0)), container("j", state=waiting("PodInitializing"))], "Init:1/2"),
        ([container("i", state=waiting("CrashLoopBackOff"))], "Init:CrashLoopBackOff"),
        ([container("i", state=ended(1, reason="Error"))], "Init:Error"),
        ([container("i", state=ended(2))], "Init:ExitCode:2"),
        ([container("i", state=ended(2, signal=15))], "Init:Signal:15"),
    ],
)
def test_init_containers_come_first(statuses, status):
    spec = SPEC | {"initContainers": [{"name": "i"}, {"name": "j"}]}
    main = [container("a", state=waiting("PodInitializing"))]
    shown = pod(spec, phase="Pending", initContainerStatuses=statuses, containerStatuses=main)
    assert shown[:2] == ("0/2", status)


def test_restarts_of_init_containers_count_only_while_they_initialise():
    spec = SPEC | {"initContainers": [{"name": "i"}]}
    blocked = [container("i", state=waiting("CrashLoopBackOff"), restarts=4, last="2026-11-20T11:59:00Z")]
    shown = pod(spec, phase="Pending", initContainerStatuses=blocked)
    assert shown == ("0/2", "Init:CrashLoopBackOff", "4 (60s ago)")
    finished = [container("i", state=ended(0), restarts=4)]
    running = [container("a", state=RUNNING, ready=True), container("b", state=RUNNING, ready=True)]
    shown = pod(spec, phase="Running", initContainerStatuses=finished, containerStatuses=running)
    assert shown == ("2/2", "Running", "0")


def test_a_sidecar_counts_as_a_container_once_it_has_started():
    spec = SPEC | {"initContainers": [{"name": "mesh", "restartPolicy": "Always"}]}
    sidecar = [container("mesh", state=RUNNING, ready=True, started=True, restarts=1)]
    running = [container("a", state=RUNNING, ready=True), container("b", state=RUNNING, ready=True)]
    shown = pod(spec, phase="Running", initContainerStatuses=sidecar, containerStatuses=running)
    assert shown == ("3/3", "Running", "1")
    late = [container("mesh", state=RUNNING, started=False)]
    assert pod(spec, phase="Pending", initContainerStatuses=late)[:2] == ("0/3", "Init:0/1")


def test_deletion_gates_reasons_and_lost_nodes():
    gone = {"deletionTimestamp": CREATED}
    gated = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
    assert pod(phase="Running", metadata=gone)[1] == "Terminating"
    assert pod(phase="Succeeded", metadata=gone)[1] == "Succeeded"
    assert pod(phase="Running", reason="NodeLost", metadata=gone)[1] == "Unknown"
    assert pod(phase="Failed", reason="Evicted")[1] == "Evicted"
    assert pod(phase="Pending", conditions=gated)[1] == "SchedulingGated"


def test_wide_columns_of_a_pod():
    shown = cells(
        "pods",
        {
            "spec": SPEC
            | {"nodeName": "n1", "readinessGates": [{"conditionType": "up"}, {"conditionType": "b"}]},
            "status": {
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "nominatedNodeName": "n2",
                "conditions": [{"type": "up", "status": "True"}, {"type": "b", "status": "False"}],
            },
        },
    )
    wide = (shown["IP"], shown["Node"], shown["Nominated Node"], shown["Readiness Gates"])
    assert wide == ("10.0.0.1", "n1", "n2", "1/2")


def test_a_pod_at_its_end_has_a_condition_on_its_row():
    for phase, expected in (("Succeeded", ["Completed"]), ("Failed", ["Completed"]), ("Running", None)):
        body = encode_object({"metadata": {"name": "x"}, "status": {"phase": phase}}, TYPES["pods"])
        row = json.loads(next(rows(TYPES["pods"], [body], now=NOW)))
        conditions = row.get("conditions")
        assert (conditions and [condition["type"] for condition in conditions]) == expected


# -- the other kinds --------------------------------------------------------------------------------

TEMPLATE = {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:2"}]}}
TEMPLATE_CELLS = {"Containers": "a,b", "Images": "a:1,b:2"}
SELECTOR = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}


@pytest.mark.parametrize(
    ("resource", "document", "expected"),
    [
        (
            "deployments.apps",
            {
                "spec": {"replicas": 3, "template": TEMPLATE, "selector": SELECTOR},
                "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1},
            },
            {"Ready": "2/3", "Up-to-date": 3, "Available": 1, "Selector": "a=1,b=2,c", **TEMPLATE_CELLS},
        ),
        (
            "replicasets.apps",
            {"spec": {"replicas": 3, "template": TEMPLATE}, "status": {"replicas": 2, "readyReplicas": 1}},
            {"Desired": 3, "Current": 2, "Ready": 1, "Selector": "<none>", **TEMPLATE_CELLS},
        ),
        (
            "replicationcontrollers",
            {"spec": {"replicas": 1, "selector": {"app": "x"}, "template": TEMPLATE}},
            {"Desired": 1, "Current": 0, "Selector": "app=x"},
        ),
        (
            "statefulsets.apps",
            {"spec": {"replicas": 2, "template": TEMPLATE}, "status": {"readyReplicas": 1}},
            {"Ready": "1/2", **TEMPLATE_CELLS},
        ),
        (
            "daemonsets.apps",
            {"spec": {"template": TEMPLATE}, "status": {"desiredNumberScheduled": 4, "numberReady": 3}},
            {"Desired": 4, "Current": 0, "Ready": 3, "Node Selector": "<none>"},
        ),
        (
            "jobs.batch",
            {
                "spec": {"completions": 5},
                "status": {
                    "succeeded": 5,
                    "startTime": "2026-11-20T11:00:00Z",
                    "completionTime": "2026-11-20T11:01:30Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            {"Status": "Complete", "Completions": "5/5", "Duration": "90s"},
        ),
        (
            "jobs.batch",
            {"spec": {"parallelism": 4}, "status": {"startTime": "2026-11-20T11:00:00Z"}},
            {"Status": "Running", "Completions": "0/1 of 4", "Duration": "60m"},
        ),
        (
            "cronjobs.batch",
            {
                "spec": {"schedule": "0 * * * *", "suspend": False},
                "status": {"active": [{"name": "a"}], "lastScheduleTime": "2026-11-20T11:00:00Z"},
            },
            {
                "Schedule": "0 * * * *",
                "Timezone": "<none>",
                "Suspend": "False",
                "Active": 1,
                "Last Schedule": "60m",
            },
        ),
        ("cronjobs.batch", {"spec": {}}, {"Suspend": "<unset>", "Last Schedule": "<none>"}),
        (
            "services",
            {
                "spec": {
                    "type": "NodePort",
                    "clusterIP": "10.0.0.1",
                    "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}],
                    "selector": {"app": "x"},
                }
            },
            {"External-IP": "<none>", "Port(s)": "80:30080/TCP,53/UDP", "Selector": "app=x"},
        ),
        (
            "services",
            {"spec": {"type": "LoadBalancer"}},
            {"External-IP": "<pending>", "Cluster-IP": "<none>"},
        ),
        (
            "services",
            {
                "spec": {"type": "LoadBalancer", "externalIPs": ["1.1.1.1"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}, {"hostname": "lb.example.com"}]}},
            },
            {"External-IP": "9.9.9.9,lb.example.com,1.1.1.1"},
        ),
        (
            "services",
            {"spec": {"type": "ExternalName", "externalName": "db.example.com"}},
            {"External-IP": "db.example.com", "Port(s)": "<none>"},
        ),
        (
            "endpoints",
            {
                "subsets": [
                    {
                        "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                        "ports": [{"port": 80}, {"port": 81}],
                    }
                ]
            },
            {"Endpoints": "10.0.0.1:80,[fd00::1]:80,10.0.0.1:81 + 1 more..."},
        ),
        ("endpoints", {}, {"Endpoints": "<none>"}),
        (
            "endpointslices.discovery.k8s.io",
            {
                "addressType": "IPv4",
                "ports": [{"port": 80}, {"name": "any"}, {}],
                "endpoints": [{"addresses": [f"10.0.0.{at}"]} for at in range(5)],
            },
            {"Ports": "80,any,*", "Endpoints": "10.0.0.0,10.0.0.1,10.0.0.2 + 2 more..."},
        ),
        (
            "endpointslices.discovery.k8s.io",
            {"addressType": "IPv4", "endpoints": None, "ports": None},
            {"Ports": "<unset>", "Endpoints": "<unset>"},
        ),
        (
            "ingresses.networking.k8s.io",
            {
                "spec": {"rules": [{"host": f"{name}.x"} for name in "abcd"], "tls": [{}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}},
            },
            {"Class": "<none>", "Hosts": "a.x,b.x,c.x + 1 more...", "Address": "1.2.3.4", "Ports": "80, 443"},
        ),
        (
            "ingresses.networking.k8s.io",
            {"spec": {"rules": [{}]}},
            {"Hosts": "*", "Ports": "80", "Address": ""},
        ),
        (
            "nodes",
            {
                "spec": {"unschedulable": True},
                "status": {
                    "conditions": [{"type": "Ready", "status": "Unknown"}],
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.9"}],
                    "nodeInfo": {"kubeletVersion": "v1.36.2"},
                },
            },
            {
                "Status": "NotReady,SchedulingDisabled",
                "Roles": "<none>",
                "Version": "v1.36.2",
                "Internal-IP": "10.0.0.9",
                "External-IP": "<none>",
                "OS-Image": "<unknown>",
            },
        ),
        ("namespaces", {"status": {"phase": "Active"}}, {"Status": "Active"}),
        (
            "events",
            {
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
                "reason": "BackOff",
                "type": "Warning",
                "message": " late \n",
                "source": {"component": "kubelet", "host": "n1"},
                "firstTimestamp": "2026-11-20T11:00:00Z",
                "lastTimestamp": "2026-11-20T11:59:00Z",
                "count": 7,
            },
            {
                "Last Seen": "60s",
                "First Seen": "60m",
                "Object": "pod/p",
                "Subobject": "spec.containers{a}",
                "Source": "kubelet, n1",
                "Message": "late",
                "Count": 7,
            },
        ),
        (
            "events.events.k8s.io",
            {
                "regarding": {"kind": "Node", "name": "n"},
                "note": "hello",
                "eventTime": "2026-11-20T11:00:00.123456Z",
                "reportingController": "c",
                "series": {"count": 9, "lastObservedTime": "2026-11-20T11:59:30.000001Z"},
            },
            {
                "Last Seen": "29s",
                "First Seen": "59m",
                "Object": "node/n",
                "Source": "c",
                "Count": 9,
                "Message": "hello",
            },
        ),
        ("configmaps", {"data": {"a": "1"}, "binaryData": {"b": "Mg=="}}, {"Data": 2}),
        ("secrets", {"type": "Opaque", "data": {"a": ""}}, {"Type": "Opaque", "Data": 1}),
        ("serviceaccounts", {"secrets": [{"name": "a"}]}, {"Secrets": 1}),
        (
            "persistentvolumes",
            {
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                    "claimRef": {"namespace": "n", "name": "c"},
                },
                "status": {"phase": "Bound"},
            },
            {
                "Capacity": "1Gi",
                "Access Modes": "RWO,RWX",
                "Claim": "n/c",
                "VolumeAttributesClass": "<unset>",
                "VolumeMode": "<unset>",
            },
        ),
        (
            "persistentvolumeclaims",
            {
                "spec": {"volumeName": "v", "storageClassName": "fast"},
                "status": {
                    "phase": "Bound",
                    "capacity": {"storage": "2Gi"},
                    "accessModes": ["ReadWriteOncePod"],
                },
            },
            {
                "Status": "Bound",
                "Volume": "v",
                "Capacity": "2Gi",
                "Access Modes": "RWOP",
                "StorageClass": "fast",
            },
        ),
        ("persistentvolumes", {"spec": {}}, {"Capacity": "0", "StorageClass": ""}),
        ("persistentvolumeclaims", {"spec": {"volumeName": "v"}}, {"Capacity": "0"}),
        ("deployments.apps", {"spec": {}}, {"Ready": "0/0", "Selector": ""}),
        ("deployments.apps", {"spec": {"selector": {}}}, {"Selector": ""}),
        ("replicasets.apps", {"spec": {"selector": {}}}, {"Selector": "<none>"}),
        (
            "persistentvolumeclaims",
            {"status": {"phase": "Pending", "capacity": {"storage": "2Gi"}}},
            {"Status": "Pending", "Capacity": "", "Access Modes": ""},
        ),
        (
            "horizontalpodautoscalers.autoscaling",
            {
                "spec": {
                    "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                    "maxReplicas": 5,
                    "metrics": [
                        {
                            "type": "Resource",
                            "resource": {"name": "cpu", "target": {"averageUtilization": 80}},
                        },
                        {"type": "Pods", "pods": {"target": {"averageValue": "10"}}},
                        {"type": "External", "external": {"target": {"value": "7"}}},
                    ],
                },
                "status": {
                    "currentReplicas": 2,
                    "currentMetrics": [
                        {
                            "type": "Resource",
                            "resource": {"name": "cpu", "current": {"averageUtilization": 55}},
                        }
                    ],
                },
            },
            {
                "Reference": "Deployment/d",
                "Targets": "cpu: 55%/80%, <unknown>/10 + 1 more...",
                "MinPods": "<unset>",
                "MaxPods": 5,
                "Replicas": 2,
            },
        ),
        (
            "horizontalpodautoscalers.autoscaling",
            {
                "spec": {"targetCPUUtilizationPercentage": 60},
                "status": {"currentCPUUtilizationPercentage": 5},
            },
            {"Targets": "cpu: 5%/60%"},
        ),
        (
            "poddisruptionbudgets.policy",
            {"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}},
            {"Min Available": "50%", "Max Unavailable": "N/A", "Allowed Disruptions": 1},
        ),
        ("leases.coordination.k8s.io", {"spec": {"holderIdentity": "me"}}, {"Holder": "me"}),
        (
            "storageclasses.storage.k8s.io",
            {"provisioner": "p"},
            {
                "Name": "x",
                "ReclaimPolicy": "Delete",
                "VolumeBindingMode": "Immediate",
                "AllowVolumeExpansion": False,
            },
        ),
        ("customresourcedefinitions.apiextensions.k8s.io", {}, {"Created At": CREATED}),
        ("roles.rbac.authorization.k8s.io", {"rules": []}, {"Created At": CREATED}),
        (
            "rolebindings.rbac.authorization.k8s.io",
            {
                "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [
                    {"kind": "User", "name": "u"},
                    {"kind": "ServiceAccount", "namespace": "n", "name": "a"},
                    {"kind": "ServiceAccount", "namespace": "n", "name": "b"},
                ],
            },
            {"Role": "Role/r", "Users": "u", "Groups": "", "ServiceAccounts": "n/a, n/b"},
        ),
        (
            "apiservices.apiregistration.k8s.io",
            {
                "spec": {"service": {"namespace": "n", "name": "s"}},
                "status": {"conditions": [{"type": "Available", "status": "False", "reason": "Gone"}]},
            },
            {"Service": "n/s", "Available": "False (Gone)"},
        ),
        ("ipaddresses.networking.k8s.io", {}, {"ParentRef": "<none>"}),
    ],
)
def test_cells_of_a_kind(resource, document, expected):
    shown = cells(resource, document)
    assert {name: shown[name] for name in expected} == expected


def test_marks_of_nodes_and_classes_come_from_metadata():
    labels = {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}
    assert cells("nodes", {}, labels=labels)["Roles"] == "edge,worker"
    assert cells("nodes", {})["Status"] == "Unknown"
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    assert cells("storageclasses.storage.k8s.io", {}, annotations=default)["Name"] == "x (default)"
    assert cells("persistentvolumeclaims", {}, deletionTimestamp=CREATED)["Status"] == "Terminating"
    assert cells("jobs.batch", {}, deletionTimestamp=CREATED)["Status"] == "Terminating"


def test_selectors_read_as_kubernetes_writes_them():
    selector = Selector(
        {"b": "2"},
        [
            Requirement("a", "In", ["y", "x"]),
            Requirement("d", "DoesNotExist"),
            Requirement("c", "NotIn", ["z"]),
        ],
    )
    assert selector_text(selector) == "a in (x,y),b=2,c notin (z),!d"
    assert selector_text(None) == selector_text(Selector()) == "<none>"
    assert selector_text(Selector(None, [Requirement("a", "Around")])) == "<error>"


# -- custom resources -------------------------------------------------------------------------------

DOCUMENT = {
    "metadata": {"name": "w", "labels": {"app.io/x": "v"}, "creationTimestamp": CREATED},
    "spec": {"list": [1, 2, 3], "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 443}]},
    "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".spec.list", [[1, 2, 3]]),
        ("{.spec.list[0]}", [1]),
        ("spec.list[-1]", [3]),
        ("$.spec.list[1:]", [2, 3]),
        (".spec.list[*]", [1, 2, 3]),
        (".spec.ports[*].name", ["a", "b"]),
        (r".metadata.labels.app\.io/x", ["v"]),
        (".metadata.labels['app.io/x']", ["v"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type != 'Ready')].status", ["False"]),
        (".spec.ports[?(@.port > 100)].name", ["b"]),
        (".spec.ports[?(@.port > 'x')].name", []),
        (".spec.ports[?(@.name)].port", [80, 443]),
        (".spec.none.deeper", []),
        (".spec.list.name", []),
        (".metadata.labels.*", ["v"]),
    ],
)
def test_paths_find_what_the_api_servers_do(path, values):
    assert list(find(parse_path(path), DOCUMENT)) == values


@pytest.mark.parametrize("path", [".a[", ".a[?(@.b==)]", ".a[?(@.b=={)]", "..a", ".a[1,2]"])
def test_a_path_outside_the_subset_is_refused_and_its_cell_is_empty(path):
    with pytest.raises(ValueError, match="cannot read"):
        parse_path(path)
    assert custom_cell("string", path) is None


def custom_cell(kind, path):
    known = ResourceType(
        resource=Resource("example.com", "v1", "widgets"),
        kind="Widget",
        namespaced=True,
        custom=True,
        printer_columns=(PrinterColumn(name="C", type=kind, json_path=path),),
    )
    return json.loads(next(rows(known, [encode_object(DOCUMENT, known)], now=NOW)))["cells"][1]


@pytest.mark.parametrize(
    ("kind", "path", "cell"),
    [
        ("string", ".spec.list", "[1,2,3]"),
        ("string", ".spec.list[0]", "1"),
        ("integer", ".spec.ports[1].port", 443),
        ("integer", ".spec.ports[1].name", None),
        ("number", ".spec.list[1]", 2),
        ("boolean", ".spec.list[1]", None),
        ("date", ".metadata.creationTimestamp", "2m"),
        ("date", ".metadata.name", "<invalid>"),
        ("string", ".status.phase", None),
    ],
)
def test_cells_of_custom_resources_have_their_columns_type(kind, path, cell):
    assert custom_cell(kind, path) == cell


def test_a_definition_without_columns_shows_the_age():
    bare = ResourceType(
        resource=Resource("example.com", "v1", "widgets"), kind="Widget", namespaced=True, custom=True
    )
    assert [(column.name, column.type) for column in column_definitions(bare)] == [
        ("Name", "string"),
        ("Age", "date"),
    ]
    row = json.loads(next(rows(bare, [encode_object(DOCUMENT, bare)], now=NOW)))
    assert row["cells"] == ["w", "2m"]


@pytest.mark.parametrize(
    ("resource", "columns"),
    [
        ("pods", "Name Ready Status Restarts Age +IP +Node +Nominated_Node +Readiness_Gates"),
        ("deployments.apps", "Name Ready Up-to-date Available Age +Containers +Images +Selector"),
        (
            "replicasets.apps",
            "Name Desired:integer Current:integer Ready:integer Age +Containers +Images +Selector",
        ),
        ("statefulsets.apps", "Name Ready Age +Containers +Images"),
        (
            "daemonsets.apps",
            "Name Desired:integer Current:integer Ready:integer Up-to-date:integer Available:integer "
            "Node_Selector Age +Containers +Images +Selector",
        ),
        ("jobs.batch", "Name Status Completions Duration Age +Containers +Images +Selector"),
        (
            "cronjobs.batch",
            "Name Schedule Timezone Suspend:boolean Active:integer Last_Schedule Age +Containers +Images +Selector",
        ),
        ("services", "Name Type Cluster-IP External-IP Port(s) Age +Selector"),
        (
            "nodes",
            "Name Status Roles Age Version +Internal-IP +External-IP +OS-Image +Kernel-Version +Container-Runtime",
        ),
        ("namespaces", "Name Status Age"),
        ("events", "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name"),
        ("configmaps", "Name Data Age"),
        ("ingresses.networking.k8s.io", "Name Class Hosts Address Ports Age"),
        ("endpointslices.discovery.k8s.io", "Name AddressType Ports Endpoints Age"),
        (
            "persistentvolumes",
            "Name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass VolumeAttributesClass Reason Age "
            "+VolumeMode",
        ),
        (
            "persistentvolumeclaims",
            "Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age +VolumeMode",
        ),
        (
            "storageclasses.storage.k8s.io",
            "Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age",
        ),
        ("secrets", "Name Type Data Age"),
        (
            "horizontalpodautoscalers.autoscaling",
            "Name Reference Targets MinPods MaxPods Replicas Age",
        ),
        ("clusterrolebindings.rbac.authorization.k8s.io", "Name Role Age +Users +Groups +ServiceAccounts"),
    ],
)
def test_columns_are_the_api_servers(resource, columns):
    """Names, types and priorities (``+``: wide only) as pkg/printers/internalversion has them."""
    found = [
        f"{'+' if column.priority else ''}{column.name.replace(' ', '_')}"
        + ("" if column.type == "string" else f":{column.type}")
        for column in column_definitions(TYPES[resource])
    ]
    assert " ".join(found) == columns
    formats = {column.name: column.format for column in column_definitions(TYPES[resource]) if column.format}
    assert formats == {"Name": "name"}
