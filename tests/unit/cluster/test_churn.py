"""Churn against a cluster that is a dict: what it changes, at which pace, and that it never harms itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest
from support.clock import run_virtual

from shoal.cluster.simulator.churn import Churn
from shoal.cluster.simulator.population import EVENTS, LEASES, NODES, PODS, population
from shoal.shards.model.errors import AlreadyExists, Conflict, NotFound
from shoal.shards.model.refs import key_of

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class DictCluster:
    """The least that satisfies `Writes`, with the server's refusals. Bodies are bytes: copies cost little."""

    def __init__(self, pods):
        self.objects = {}
        self.log = []
        for made in population(pods):
            key = self.key(msgspec.json.decode(made.body))
            self.objects.setdefault(made.resource, {})[key] = made.body

    def all(self, resource):
        return [msgspec.json.decode(body) for body in self.objects[resource].values()]

    def _store(self, resource, document):
        document["metadata"]["resourceVersion"] = f"{len(self.log)}-new"
        self.objects[resource][self.key(document)] = msgspec.json.encode(document)
        return document

    @staticmethod
    def key(document):
        return key_of(document["metadata"].get("namespace", ""), document["metadata"]["name"])

    def create(self, resource, document):
        held = self.objects.setdefault(resource, {})
        if self.key(document) in held:
            raise AlreadyExists(self.key(document))
        self.log.append(("create", resource, self.key(document)))
        return self._store(resource, document)

    def update(self, resource, document):
        if self.key(document) not in self.objects[resource]:
            raise NotFound(self.key(document))
        if msgspec.json.encode(document) == self.objects[resource][self.key(document)]:
            return document
        self.log.append(("update", resource, self.key(document)))
        return self._store(resource, dict(document, metadata=dict(document["metadata"])))

    def delete(self, resource, namespace, name):
        if self.objects[resource].pop(key_of(namespace, name), None) is None:
            raise NotFound(name)
        self.log.append(("delete", resource, key_of(namespace, name)))

    def get(self, resource, namespace, name):
        body = self.objects.get(resource, {}).get(key_of(namespace, name))
        return None if body is None else msgspec.json.decode(body)

    def names(self, resource):
        return list(self.objects.get(resource, {}))


class Clock:
    """A time that passes a second each time somebody looks."""

    def __init__(self):
        self.seconds = 0

    def __call__(self):
        self.seconds += 1
        return datetime.fromtimestamp(NOW.timestamp() + self.seconds, UTC)


def churned(cluster, steps, *, seed=0):
    churn = Churn(cluster, rate=1, seed=seed, now=Clock())
    for _ in range(steps):
        churn.step()
    return churn


def test_a_seed_repeats_itself():
    first, second, other = DictCluster(40), DictCluster(40), DictCluster(40)
    churned(first, 300)
    churned(second, 300)
    churned(other, 300, seed=1)
    assert first.log == second.log
    assert first.log != other.log


def test_pods_change_most_and_every_kind_of_change_happens():
    cluster = DictCluster(100)
    churn = churned(cluster, 2000)
    kinds = Counter((verb, resource) for verb, resource, _ in cluster.log)
    assert kinds["update", PODS] > 0.6 * len(cluster.log)
    changes = {
        ("create", PODS),
        ("delete", PODS),
        ("create", EVENTS),
        ("update", EVENTS),
        ("update", LEASES),
        ("update", NODES),
    }
    assert changes <= set(kinds)
    assert churn.total == len(cluster.log) == churn.done.total()


def test_a_moment_reported_twice_is_no_change():
    cluster = DictCluster(20)
    churn = Churn(cluster, rate=1, now=lambda: NOW)
    for _ in range(1000):
        churn.step()
    assert churn.done["unchanged"] > 0
    assert churn.total == len(cluster.log)


def test_the_cluster_keeps_its_size_and_replaced_pods_start():
    cluster = DictCluster(60)
    churned(cluster, 5000)
    pods = cluster.all(PODS)
    assert len(pods) == 60
    phases = Counter(pod["status"]["phase"] for pod in pods)
    assert phases["Running"] > phases["Pending"]
    ready = sum(status["ready"] for pod in pods for status in pod["status"].get("containerStatuses", [])[:1])
    assert ready > 0.75 * phases["Running"]
    for pod in pods:
        if "nodeName" not in pod["spec"]:
            assert pod["status"]["phase"] == "Pending"


def test_events_are_kept_to_a_number(monkeypatch):
    monkeypatch.setattr("shoal.cluster.simulator.churn._EVENTS_KEPT", 20)
    cluster = DictCluster(30)
    before = len(cluster.objects[EVENTS])
    churned(cluster, 3000)
    assert len(cluster.objects[EVENTS]) <= before + 21
    assert any(verb == "delete" and resource == EVENTS for verb, resource, _ in cluster.log)


def test_an_empty_cluster_is_left_alone_until_there_is_something():
    cluster = DictCluster(0)
    churn = churned(cluster, 50)
    assert churn.total == 0
    cluster.objects.update(DictCluster(5).objects)
    for _ in range(50):
        churn.step()
    assert churn.total > 0


def test_what_others_delete_is_forgotten_and_what_they_refuse_is_counted():
    cluster = DictCluster(30)
    churn = churned(cluster, 100)
    for key in list(cluster.objects[PODS])[:-1]:
        del cluster.objects[PODS][key]
    for _ in range(200):
        churn.step()
    assert churn.done["refused"] == 0

    def refuse(resource, document):
        raise Conflict("changed meanwhile")

    cluster.update = refuse
    before = churn.total
    for _ in range(20):
        churn.step()
    assert churn.done["refused"] > 0
    assert churn.total - before < 20


@pytest.mark.parametrize(("rate", "seconds"), [(3, 40), (250, 4), (5000, 1)])
def test_the_pace_is_the_rate_whatever_it_is(rate, seconds):
    async def scenario():
        churn = Churn(DictCluster(50), rate=rate, now=Clock())
        task = asyncio.create_task(churn.run())
        await asyncio.sleep(seconds + 0.005)
        task.cancel()
        return churn.total

    assert run_virtual(scenario()) == pytest.approx(seconds * rate, rel=0.02, abs=1)


def test_the_rate_can_be_changed_and_stopped():
    async def scenario():
        churn = Churn(DictCluster(50), rate=0, now=Clock())
        task = asyncio.create_task(churn.run())
        await asyncio.sleep(3)
        idle = churn.total
        churn.rate = 100
        await asyncio.sleep(2.005)
        task.cancel()
        return idle, churn.total

    idle, busy = run_virtual(scenario())
    assert idle == 0
    assert busy == pytest.approx(200, abs=4)
