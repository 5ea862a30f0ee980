"""Objects as handlers and listers give them: lazy, read-only, like the API's own names."""

import copy
import doctest
import pickle

import msgspec
import pytest

from shoal.cluster.informers import nodes, objects
from shoal.cluster.informers.nodes import FieldList, FieldMap
from shoal.cluster.informers.objects import KubeObject
from shoal.shards.model.errors import Garbage

POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "b1b7",
        "resourceVersion": "41",
        "labels": {"app": "web", "app.kubernetes.io/part-of": "shop"},
    },
    "spec": {
        "nodeName": "node-3",
        "priority": 0,
        "hostNetwork": False,
        "containers": [{"name": "main", "image": "nginx:1.29"}, {"name": "side", "image": "envoy:1.35"}],
        "volumes": [{"name": "c", "configMap": {"items": [{"key": "a", "path": "b"}]}}],
    },
    "status": {"phase": "Running", "startTime": None},
}


class Counted:
    """A body whose reads are counted."""

    def __init__(self, document):
        self.reads = 0
        self.body = msgspec.json.encode(document)

    def __call__(self):
        self.reads += 1
        return self.body


def pod(**changes):
    return KubeObject.from_dict({**POD, **changes})


def test_fields_read_like_the_names_of_the_api():
    web = pod()
    assert web.kind == "Pod"
    assert web.apiVersion == "v1"
    assert web.metadata.name == "web-1"
    assert web.spec.containers[0].image == "nginx:1.29"
    assert web.spec.containers[-1].name == "side"
    assert web["spec"]["nodeName"] == "node-3"
    assert web.spec.priority == 0
    assert web.spec.hostNetwork is False
    assert web.status.startTime is None
    assert web.metadata.labels["app.kubernetes.io/part-of"] == "shop"
    assert (web.key, web.namespace, web.name) == ("shop/web-1", "shop", "web-1")
    assert (web.uid, web.resource_version) == ("b1b7", "41")
    assert web.labels == POD["metadata"]["labels"]
    assert web.annotations == {}


def test_nothing_is_read_before_the_first_field_and_the_body_only_once():
    body = Counted(POD)
    web = KubeObject(body, "shop/web-1", uid="b1b7", version=41)
    assert (web.name, web.namespace, web.uid, web.resource_version) == ("web-1", "shop", "b1b7", "41")
    assert hash(web) == hash(pod())
    assert web
    assert web == pod()
    assert body.reads == 0
    assert web.spec.nodeName == "node-3"
    assert web.raw == body.body
    assert web.to_dict() == POD
    assert body.reads == 1


def test_a_level_is_split_once_and_kept():
    web = pod()
    assert web.spec is web.spec
    assert web.spec.containers is web["spec"]["containers"]
    assert web.spec.containers[1] is web.spec.containers[-1]


def test_an_absent_field_raises_and_says_what_is_there():
    web = pod()
    with pytest.raises(
        AttributeError, match=r"^spec has no 'nodName'; it has: nodeName, priority, hostNetwork"
    ):
        _ = web.spec.nodName
    with pytest.raises(KeyError, match=r"spec\.containers\[0\] has no 'ports'; it has: name, image"):
        _ = web.spec.containers[0]["ports"]
    with pytest.raises(AttributeError, match=r"^object shop/web-1 has no 'specs'; it has: kind, apiVersion"):
        _ = KubeObject(web.raw, "shop/web-1").specs
    with pytest.raises(AttributeError, match=r"the object has no 'spec'; it has: kind$"):
        _ = KubeObject(b'{"kind":"ConfigMap"}').spec
    with pytest.raises(IndexError, match=r"spec\.containers has 2 elements, no \[2\]"):
        _ = web.spec.containers[2]
    assert not hasattr(web, "data")
    assert getattr(web.spec, "replicas", 1) == 1
    assert "nodeName" in dir(web.spec)


def test_names_of_many_members_are_cut_short_in_messages():
    wide = KubeObject.from_dict({"data": {f"k{n}": "" for n in range(500)}})
    with pytest.raises(AttributeError, match=r"k29, … \(500 in all\)$"):
        _ = wide.data.missing


def test_get_is_the_forgiving_way():
    web = pod()
    assert web.get("spec", "nodeName") == "node-3"
    assert web.get("spec", "containers", 1, "image") == "envoy:1.35"
    assert web.get("spec", "containers", 7, "image", default="none") == "none"
    assert web.get("spec", "affinity", "nodeAffinity") is None
    assert web.get("status", "startTime", "seconds", default=5) == 5
    assert web.get("status", "startTime", default=5) is None
    assert web.spec.get("nodeName") == "node-3"
    with pytest.raises(
        TypeError, match=r"metadata\.labels\.app is str, which 'none' does not lead into; a default"
    ):
        web.metadata.labels.get("app", "none")
    with pytest.raises(TypeError, match="spec.containers is a list, which 'image'"):
        web.get("spec", "containers", "image")


def test_maps_are_mappings_even_where_a_field_is_called_like_a_method():
    web = pod()
    labels = web.metadata.labels
    assert dict(labels) == {**labels} == POD["metadata"]["labels"] == labels
    assert list(labels) == ["app", "app.kubernetes.io/part-of"]
    assert dict(labels.items()) == dict(zip(labels.keys(), labels.values(), strict=True))
    assert "app" in labels
    assert "tier" not in labels
    assert len(labels) == 2
    assert not KubeObject(b'{"spec":{}}').spec
    assert web.spec.volumes[0].configMap["items"][0].path == "b"
    assert [name for name, _ in web.spec.volumes[0].configMap.items()] == ["items"]


def test_lists_are_sequences():
    containers = pod().spec.containers
    assert [each.name for each in containers] == ["main", "side"]
    assert [each.name for each in containers[1:]] == ["side"]
    assert containers == POD["spec"]["containers"]
    assert containers == pod().spec.containers
    assert POD["spec"]["containers"][1] in containers
    assert len(containers) == 2


@pytest.mark.parametrize("node", [pod(), pod().spec, pod().metadata.labels], ids=repr)
def test_nothing_can_be_changed(node):
    before = node.to_dict()
    for change in (
        lambda: setattr(node, "spec", 1),
        lambda: setattr(node, "_members", {}),
        lambda: delattr(node, "_members"),
        lambda: node.__setitem__("a", 1),
    ):
        with pytest.raises((AttributeError, TypeError)):
            change()
    node.to_dict().clear()
    assert node.to_dict() == before


def test_what_is_given_out_is_the_callers_own():
    web = pod()
    web.labels["app"] = "other"
    web.to_dict()["spec"]["containers"].clear()
    assert web.labels["app"] == "web"
    assert web.to_dict() == POD


def test_equality_is_identity_and_version():
    assert pod() == pod(status={"phase": "Pending"})
    assert pod() != pod(metadata={**POD["metadata"], "resourceVersion": "42"})
    assert pod() != pod(metadata={**POD["metadata"], "uid": "c2"})
    assert len({pod(), pod()}) == 1
    assert pod() != POD


def test_objects_without_a_version_are_told_apart_by_their_contents():
    usage = {"kind": "PodMetrics", "metadata": {"name": "a"}, "containers": [1]}
    assert KubeObject.from_dict(usage) == KubeObject.from_dict({**usage})
    assert KubeObject.from_dict(usage) != KubeObject.from_dict({**usage, "containers": [2]})


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda node: pickle.loads(pickle.dumps(node))])
def test_copies_and_pickles_are_the_same_object(copied):
    body = Counted(POD)
    web = copied(KubeObject(body, "shop/web-1", version=41))
    assert web == pod()
    assert web.to_dict() == POD
    assert web.resource_version == "41"
    for node in (pod().spec, pod().spec.containers, pod().spec.containers[0]):
        again = copied(node)
        assert type(again) is type(node)
        assert again == node
        assert repr(again) == repr(node)


def test_representations_are_short_and_hold_no_values():
    secret = KubeObject.from_dict(
        {
            "kind": "Secret",
            "metadata": {"name": "s", "resourceVersion": "7"},
            "data": {"password": "aHVzaA=="},
        }
    )
    assert repr(secret) == "<Secret s resourceVersion=7>"
    assert repr(secret.data) == "<data: password>"
    assert repr(pod().spec.containers) == "<spec.containers: 2 elements>"
    assert "aHVzaA" not in repr(secret.data) + str(secret.data)


@pytest.mark.parametrize("body", [b"", b"[]", b'"text"', b"null", b'{"metadata":', b'{"a":1}x', b"\xff"])
def test_a_body_that_is_no_object_is_garbage_when_it_is_read(body):
    broken = KubeObject(body, "shop/web-1")
    assert broken.name == "web-1"
    for read in (lambda: broken.spec, lambda: broken["spec"], lambda: broken.get("spec"), broken.to_dict):
        with pytest.raises(Garbage, match="object shop/web-1"):
            read()


def test_broken_bytes_below_the_first_level_are_garbage_too():
    broken = KubeObject(b'{"metadata":{"name":"a"},"spec":{"x":"\xff"}}', "a")
    assert broken.metadata.name == "a"
    with pytest.raises(Garbage, match=r"spec\.x is not the JSON"):
        _ = broken.spec.x
    assert repr(KubeObject(b"{", "a")) == "<unreadable object a>"


def test_objects_nested_deeper_than_the_interpreter_recurses_are_read():
    depth = 3000
    deep = KubeObject(b'{"spec":' + b'{"a":' * depth + b'"end"' + b"}" * depth + b"}")
    node = deep.spec
    for _ in range(depth):
        node = node.a
    assert node == "end"


def test_reading_three_fields_makes_nothing_of_the_others(monkeypatch):
    entered = []
    original = objects.entered
    monkeypatch.setattr(nodes, "entered", lambda value, path: entered.append(path) or original(value, path))
    monkeypatch.setattr(objects, "entered", nodes.entered)
    web = pod()
    assert (web.metadata.name, web.spec.nodeName, web.status.phase) == ("web-1", "node-3", "Running")
    assert [nodes.path_text(path) for path in entered] == [
        "metadata",
        "metadata.name",
        "spec",
        "spec.nodeName",
        "status",
        "status.phase",
    ]


def test_node_classes_are_what_maps_and_lists_read_as():
    web = pod()
    assert type(web.spec) is FieldMap
    assert type(web.spec.containers) is FieldList


def test_examples_of_the_docstrings():
    assert doctest.testmod(objects).attempted
    assert doctest.testmod(objects).failed == 0
