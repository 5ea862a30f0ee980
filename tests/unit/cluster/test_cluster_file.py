"""Cluster files: the packaged one, plain ones, and what damaged ones get."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import pytest
import zstandard

from shoal.cluster.simulator.cluster_file import read_cluster
from shoal.shards.model.errors import SettingsError
from shoal.shards.model.resources import Resource

LINE = {
    "group": "",
    "version": "v1",
    "resource": "configmaps",
    "object": {
        "metadata": {"name": "a", "namespace": "n"},
        "data": {"k": "v"},
        "apiVersion": "v1",
        "kind": "ConfigMap",
    },
}


def text(*lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def test_the_packaged_cluster_is_complete_and_in_the_form_of_bodies():
    kinds = Counter()
    for resource, body in read_cluster():
        kinds[resource.qualified_name] += 1
        start = b'{"apiVersion":"gateway.example.com/v1",' if "example" in resource.group else b'{"kind":"'
        assert body.startswith(start)
    assert kinds.total() == 3628
    assert kinds["pods"] == 1333
    assert kinds["apiroutes.gateway.example.com"] == 63


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_is_read_plain_or_compressed(tmp_path, compressed):
    content = text(LINE) + b"\n" + text(LINE).rstrip(b"\n")
    path = tmp_path / "cluster"
    path.write_bytes(zstandard.compress(content) if compressed else content)
    objects = list(read_cluster(path))
    assert [resource for resource, _ in objects] == [Resource("", "v1", "configmaps")] * 2
    body = objects[0].body
    assert body.startswith(b'{"kind":"ConfigMap","apiVersion":"v1",')
    assert json.loads(body) == LINE["object"]


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (b"{broken\n", "malformed"),
        (b'{"group":"","version":"v1","resource":"pods"}\n', "object"),
        (text(LINE | {"object": {"kind": "ConfigMap", "metadata": {}}}), "apiVersion"),
        (text(LINE | {"object": {"kind": "ConfigMap", "apiVersion": "v1"}}), "metadata"),
        (text(LINE | {"object": 3}), "Expected"),
        (b"\xff\xfe\n", "line 2"),
    ],
)
def test_a_bad_line_is_named_and_those_before_it_are_not_lost(tmp_path, second, problem):
    path = tmp_path / "cluster.jsonl"
    path.write_bytes(text(LINE) + second)
    objects = read_cluster(path)
    assert len(list(islice(objects, 1))) == 1
    with pytest.raises(SettingsError, match=problem) as caught:
        next(objects)
    assert f"{path}, line 2" in caught.value.message


def test_a_missing_an_empty_and_a_damaged_file_are_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.jsonl: No such file"):
        list(read_cluster(tmp_path / "nowhere.jsonl"))
    with pytest.raises(SettingsError, match="Is a directory"):
        list(read_cluster(tmp_path))
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    with pytest.raises(SettingsError, match=r"empty\.jsonl is empty"):
        list(read_cluster(empty))
    packed = zstandard.compress(text(*[LINE] * 50))
    damaged = tmp_path / "damaged.zst"
    damaged.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(SettingsError, match=r"damaged\.zst ends too early"):
        list(read_cluster(damaged))
    damaged.write_bytes(packed[:6] + b"\xff" * 40)
    with pytest.raises(SettingsError, match=r"damaged\.zst"):
        list(read_cluster(damaged))
