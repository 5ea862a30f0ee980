"""Watchers in virtual time: what every one of them rebuilds equals the API server's objects, and never goes back.

Of the embedded API server itself, which proves the oracle; and of Shoal's gateways, under churn, faults, deaths of
shards, broken connections, moves, and restarts of gateways and coordinators. The seed alone repeats a run.
"""

import logging
from dataclasses import replace

import pytest
from support.watch_simulation import WatchSimulation
from support.watch_simulation_installation import GatewaySimulation
from support.watch_simulation_world import FAULTS, IGNORED_SELECTORS, World
from support.watcher_oracle_flavours import CONFIG_MAPS, flavours
from support.watcher_oracle_replica import OracleBroken, Replica
from support.watcher_oracle_truth import Seen


@pytest.fixture(autouse=True)
def _quiet():
    logger = logging.getLogger("shoal")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def test_watchers_of_gateways_rebuild_what_the_api_server_has(watcher_seed):
    GatewaySimulation(watcher_seed).run()


@pytest.mark.parametrize("number", range(30))
def test_watchers_of_the_embedded_api_server_rebuild_what_it_has(number):
    WatchSimulation(number).run()


def test_the_trouble_happens():
    runs = [GatewaySimulation(number).run() for number in range(5)]
    counts = sum((run.counts for run in runs), start=type(runs[0].counts)())
    assert sum(run.deaths for run in runs) > 3
    assert sum(run.gateway_restarts for run in runs) > 1
    assert sum(run.restarts for run in runs) > 0
    assert sum(run.cuts for run in runs) > 5
    assert {
        "lists",
        "resumed",
        "ended",
        "broken",
        "again",
        "forgotten",
        "restarts",
        "bookmarks",
    } <= counts.keys()
    assert sum(watcher.replica.lines for run in runs for watcher in run.watchers) > 3000


def test_every_flavour_is_watched_within_a_few_seeds():
    seen = {watcher.flavour.name for number in range(6) for watcher in WatchSimulation(number).run().watchers}
    assert seen == {flavour.name for flavour in flavours()}


class _Selectorless(WatchSimulation):
    """The server ignores selectors now and then, as the oracle must not."""

    def _make_world(self):
        return World(self.rng, seed=self.seed, faults=(*FAULTS, *[IGNORED_SELECTORS] * 20))


def test_the_oracle_notices_what_selectors_should_have_left_out():
    with pytest.raises(AssertionError, match="Selected"):
        for number in range(20):
            _Selectorless(number).run()


class _Forgetful(WatchSimulation):
    """A server whose log now and then loses an event."""

    async def _start(self):
        for collection in self.world.app.storage.collections.values():
            collection.subscribers.add(lambda collection=collection: self._forget(collection))

    def _forget(self, collection):
        if collection.events and self.rng.random() < 0.1:
            collection.events.pop()


def test_the_oracle_notices_a_lost_event():
    with pytest.raises(AssertionError, match="No gap"):
        for number in range(20):
            _Forgetful(number).run()


# -- the rules themselves ----------------------------------------------------------------------------------------

PLAIN = next(flavour for flavour in flavours() if flavour.name == "plain")
FRONT = next(flavour for flavour in flavours() if flavour.name == "by label")


def state(version, *, name="a", uid="u", **labels):
    return Seen(f"alpha/{name}", version, uid, "alpha", labels)


class Past:
    """A truth that a test writes itself."""

    revision = 100

    def __init__(self, *states):
        self._states = states

    def at(self, key, version):
        found = [one for one in self._states if one[0] == key and one[1] <= version]
        return found[-1][2] if found else None

    def later(self, key, version):
        return [one[2] for one in self._states if one[0] == key and one[1] > version]

    def moments(self, version):
        keys = dict.fromkeys(key for key, _, _ in self._states)
        found = {key: [one for one in self._states if one[0] == key and one[1] <= version] for key in keys}
        return [states[-1] for states in found.values() if states]


ONE = state(10)
HISTORY = Past(
    ("alpha/a", 10, ONE), ("alpha/a", 20, replace(ONE, version=20)), ("alpha/b", 30, state(30, name="b"))
)


def replica(flavour=PLAIN, **more):
    assert flavour.resource == CONFIG_MAPS
    return Replica(flavour, "a test", lambda: 0.0, HISTORY, **more)


def begun(**more):
    watcher = replica(**more)
    watcher.replace({"alpha/a": ONE}, 15)
    watcher.begins()
    return watcher


def test_a_good_stream_is_good():
    watcher = begun()
    watcher.apply("MODIFIED", state(20))
    watcher.apply("ADDED", state(30, name="b"))
    watcher.bookmark(40)
    assert watcher.version == 40
    assert not watcher.equals({"alpha/a": 20, "alpha/b": 30})
    assert "alpha/b" in watcher.equals({"alpha/a": 20})


BAD = {
    "Never back: an older state": lambda watcher: (
        watcher.apply("MODIFIED", state(20)),
        watcher.apply("MODIFIED", ONE),
    ),
    "Never back: the same again": lambda watcher: watcher.apply("MODIFIED", ONE),
    "Never back: a list": lambda watcher: (
        watcher.apply("MODIFIED", state(20)),
        watcher.replace({"alpha/a": ONE}, 15),
    ),
    "Sense: ADDED": lambda watcher: watcher.apply("ADDED", state(20)),
    "Sense: MODIFIED": lambda watcher: watcher.apply("MODIFIED", state(30, name="b")),
    "Sense: DELETED": lambda watcher: watcher.apply("DELETED", state(31, name="c")),
    "True: never was": lambda watcher: watcher.apply("MODIFIED", state(19)),
    "True: another": lambda watcher: watcher.apply("MODIFIED", state(20, uid="v")),
    "True: it is there": lambda watcher: watcher.apply("DELETED", state(20)),
    "Honest: a bookmark of the future": lambda watcher: watcher.bookmark(101),
    "Honest: a bookmark that goes back": lambda watcher: (watcher.bookmark(17), watcher.bookmark(16)),
    "Honest: less than demanded": lambda watcher: watcher.replace({"alpha/a": ONE}, 15, demanded=16),
    "No gap: a bookmark": lambda watcher: watcher.bookmark(20),
    "No gap: a list": lambda watcher: watcher.replace({"alpha/a": state(20)}, 30),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_stream_is_noticed(what):
    with pytest.raises(OracleBroken, match=what.partition(":")[0]):
        BAD[what](begun())


def test_what_selectors_leave_out_is_noticed():
    with pytest.raises(OracleBroken, match="Selected"):
        replica(FRONT).apply("ADDED", ONE)


def test_a_cut_resource_may_repeat_what_is_known_until_the_first_bookmark():
    watcher = begun(cut=True)
    watcher.apply("ADDED", ONE)
    watcher.bookmark(15)
    with pytest.raises(OracleBroken, match="Never back"):
        watcher.apply("ADDED", ONE)
