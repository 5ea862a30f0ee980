"""The coordinator dies at every step of every kind of hand-off; its successor goes on where things stand.

A story is a hand-off, and when within it the coordinator dies: between two passes, or with a switch of which it never
learns the outcome, whether nothing, half or all of it was done. `Bench` checks every table and every epoch on the way;
here it is checked that everything is served all the time, that nothing is listed, and that it comes to rest.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.control import Bench, catalogue_of

from shoal.coordinator.commands import Move, Split
from shoal.coordinator.settings import PlacementSettings
from shoal.shards.model.partitions import PartitionId, ShardId

PODS = "v1/pods"
KINDS = {
    "move": lambda bench: Move(PartitionId(PODS), elsewhere(bench)),
    "split by namespaces": lambda _: Split(target=PODS, carve=("hot", "warm")),
    "split by uid": lambda _: Split(target=PODS, ranges=3),
    "split by hashes of namespaces": lambda _: Split(target=PODS, ranges=3, field="namespace"),
    "split of a part": lambda _: Split(target="v1/pods[a]", ranges=2),
    "merge": lambda _: Split(target=PODS, merge=True),
}
CARVED = {"pods": ("a",)}
WHOLE_AT_FIRST = ("move", "split by namespaces", "split by uid", "split by hashes of namespaces")
STEPS = 10


def elsewhere(bench):
    owner = bench.routed()[PartitionId(PODS)]
    return next(ShardId(name) for name in sorted(bench.shards) if name != owner)


def begun(kind, **more):
    """A bench on which that hand-off was just ordered."""
    placement = PlacementSettings(release_grace_s=1, handoff_pause_s=2, **more)
    bench = Bench(3, settings=placement, transfer_s=1.0)
    bench.catalogue = catalogue_of("pods", "nodes", "events")
    bench.settle(4)
    if kind not in WHOLE_AT_FIRST:
        bench.order(Split(target=PODS, carve=("a",)))
        bench.settle(12)
    bench.check_served()
    bench.order(KINDS[kind](bench))
    return bench


def all_served(bench, when):
    """Readers of every partition find a copy that is complete."""
    for partition, name in bench.routed().items():
        shard = bench.shards[name]
        complete = partition in shard.held and shard.synced(partition)
        assert complete, f"{partition} is not served {when}"


def listed(bench):
    return {name: list(shard.listed) for name, shard in bench.shards.items()}


def goes_on(bench, when):
    before = listed(bench)
    bench.restart_coordinator()
    bench.fail_switch = lambda _: ""
    for _ in range(50):
        bench.step(0.5)
        all_served(bench, when)
    bench.check_served()
    assert listed(bench) == before, f"nothing is listed again {when}"
    epochs = [table.epoch for table in bench.published]
    assert epochs == sorted(set(epochs)), "epochs grow"
    assert all(bench.step().instructions == () for _ in range(20)), f"it is at rest {when}"


@pytest.mark.parametrize("kind", KINDS)
def test_it_dies_between_any_two_passes(kind):
    for steps in range(STEPS):
        bench = begun(kind)
        for _ in range(steps):
            bench.step(0.5)
            all_served(bench, "before it dies")
        goes_on(bench, f"after it died in step {steps} of a {kind}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("done", ["refused", "half", "silent"])
def test_it_dies_while_a_switch_is_under_way(kind, done):
    for later in range(3):
        bench = begun(kind)
        switched = []

        def fail(switch, switched=switched):
            switched.append(switch)
            return done

        bench.fail_switch = fail
        bench.outcomes_after = 100
        for _ in range(40):
            bench.step(0.5)
            if switched:
                break
        assert switched
        for _ in range(later):
            bench.step(0.5)
        bench.outcomes_after = 0
        goes_on(bench, f"after it died in a switch of a {kind}, {done}, {later} passes later")


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from(("", "refused", "half", "silent"))),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from(("", "shard-0", "shard-1", "shard-2")),
    st.integers(0, 20),
)
def test_it_dies_again_and_again_and_a_shard_is_started_again(kind, deaths, crashed, at):
    bench = begun(kind)
    passed = 0
    for steps, fault in deaths:
        bench.fail_switch = lambda _, fault=fault: fault
        for _ in range(steps):
            bench.step(0.5)
            passed += 1
            if passed == at and crashed:
                bench.shards[crashed].crash()
        bench.restart_coordinator()
    bench.fail_switch = lambda _: ""
    bench.settle(120)
    bench.check_served()
    assert all(bench.step().instructions == () for _ in range(20))
