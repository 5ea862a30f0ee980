"""Hand-offs as the coordinator decides them: moves, splits and merges from the first instruction to the last."""

import pytest
from support.control import Bench, catalogue_of

from shoal.coordinator.commands import Drain, Move, Split
from shoal.coordinator.instructions import Adopt, Publish, Release, Switch
from shoal.coordinator.settings import PlacementSettings
from shoal.shards.model.partitions import PartitionId, ShardId
from shoal.shards.model.transfers import Source

PODS = PartitionId("v1/pods")
A, B, C = (ShardId(f"shard-{number}") for number in range(3))


def running(shards=2, *kinds, settings=None, **more):
    bench = Bench(shards, settings=settings, **more)
    bench.catalogue = catalogue_of(*(kinds or ("pods", "nodes")))
    bench.settle(4)
    bench.check_served()
    return bench


def owner(bench, partition=PODS):
    return bench.routed()[partition]


def other(bench, partition=PODS):
    return next(shard for shard in bench.shards if shard != owner(bench, partition))


def kinds_of(decision):
    return [type(instruction).__name__ for instruction in decision.instructions]


def handoff(bench):
    (one,) = bench.decider.handoffs
    return one


def listed(bench):
    return {name: list(shard.listed) for name, shard in bench.shards.items()}


def test_a_move_receives_switches_publishes_and_releases_in_this_order():
    bench = running()
    old, new, before = owner(bench), other(bench), listed(bench)
    assert bench.order(Move(PODS, new)) == (f"v1/pods moves from {old} to {new}, and is pinned there",)
    told = []
    for _ in range(8):
        told += [
            instruction
            for instruction in bench.step(0.7).instructions
            if not isinstance(instruction, Adopt) or PODS in {a.partition.id for a in instruction.assignments}
        ]
    arrival, switch, adoption, publication, release = told
    assert isinstance(arrival, Adopt)
    assert (arrival.shard, arrival.sources) == (new, {PODS: (Source(old, PODS),)})
    assert isinstance(switch, Switch)
    assert [str(copy) for copy in switch.passing.givers] == [f"v1/pods@{old}"]
    assert [str(copy) for copy in switch.passing.takers] == [f"v1/pods@{new}"]
    assert isinstance(adoption, Adopt)
    assert (adoption.shard, adoption.sources) == (new, {})
    assert isinstance(publication, Publish)
    assert isinstance(release, Release)
    assert (release.shard, release.partitions) == (old, (PODS,))
    assert arrival.epoch < switch.passing.epoch < adoption.epoch == publication.table.epoch == release.epoch
    assert owner(bench) == new
    assert listed(bench) == before, "nothing was listed"
    assert bench.decider.handoffs.counts == {"done": 1}
    bench.check_served()


def test_the_old_copy_is_released_only_after_the_grace_period():
    bench = running(settings=PlacementSettings(release_grace_s=4))
    old, new = owner(bench), other(bench)
    bench.order(Move(PODS, new))
    while owner(bench) == old:
        bench.step(0.5)
    published_at = bench.now
    while PODS in bench.shards[old].held:
        bench.step(0.5)
    assert 4 <= bench.now - published_at <= 5


def test_a_split_keeps_the_rest_where_it_is_and_a_merge_puts_it_together_again():
    bench = running()
    old, new, before = owner(bench), other(bench), listed(bench)
    lines = bench.order(Split(target="v1/pods", carve=("hot",)))
    assert lines == (
        "v1/pods is cut: hot and the rest (was: whole)",
        "  v1/pods -> v1/pods[hot], v1/pods[!hot]",
    )
    bench.settle(8)
    assert bench.routed()[PartitionId("v1/pods[!hot]")] == old
    assert bench.routed()[PartitionId("v1/pods[hot]")] == new
    assert bench.shards[old].received == ["v1/pods[!hot]"], "from itself"
    bench.check_served()
    bench.order(Split(target="v1/pods[hot]", merge=True))
    bench.settle(8)
    assert PODS in bench.routed()
    bench.check_served()
    assert listed(bench) == before, "nothing was listed"


def test_every_object_has_an_owner_in_every_table_of_a_split():
    bench = running()
    bench.order(Split(target="v1/pods", carve=("hot",)))
    bench.settle(8)
    cuts = [
        {r.partition.id for r in table.routes if r.partition.id.startswith(PODS)} for table in bench.published
    ]
    assert [cut for at, cut in enumerate(cuts) if not at or cut != cuts[at - 1]] == [
        {"v1/pods"},
        {"v1/pods[hot]", "v1/pods[!hot]"},
    ]


def test_one_hand_off_of_a_resource_at_a_time_and_only_so_many_in_all():
    kinds = ("pods", "nodes", "events", "leases", "jobs")
    bench = running(2, *kinds, settings=PlacementSettings(moves_at_once=2), transfer_s=3)
    for kind in kinds:
        partition = PartitionId(f"v1/{kind}")
        bench.order(Move(partition, other(bench, partition)))
    decision = bench.step()
    assert len(list(bench.decider.handoffs)) == 2
    assert len(decision.postponed) == 3
    assert all("2 hand-offs are under way (placement.moves_at_once)" in why for why in decision.postponed)
    most = 0
    for _ in range(30):
        bench.step()
        most = max(most, bench.decider.handoffs.unpublished)
        resources = [handoff.resource for handoff in bench.decider.handoffs]
        assert len(resources) == len(set(resources))
    assert most == 2
    assert bench.decider.handoffs.counts == {"done": 5}
    bench.check_served()


def test_parts_that_have_nothing_in_common_are_handed_over_one_after_the_other():
    bench = running(3, settings=PlacementSettings(settle_s=1000), carve={"pods": ("a", "b")}, transfer_s=2)
    parts = [PartitionId(f"v1/pods[{name}]") for name in ("a", "b")]
    for part in parts:
        bench.order(Move(part, other(bench, part)))
    bench.step()
    assert len(handoff(bench).arriving) == 1
    bench.settle(20)
    assert bench.decider.handoffs.counts == {"done": 2}
    bench.check_served()


@pytest.mark.parametrize("fault", ["refused", "half"])
def test_a_switch_that_fails_leaves_the_old_shard_in_charge_and_is_tried_again(fault):
    bench = running()
    old, new = owner(bench), other(bench)
    faults = [fault]
    bench.fail_switch = lambda _: faults.pop() if faults else ""
    bench.order(Move(PODS, new))
    bench.settle(3)
    assert (handoff(bench).state, handoff(bench).attempts) in {("thawing", 1), ("complete", 1)}
    epochs = len(bench.published)
    bench.settle(2)
    assert handoff(bench).state == "complete"
    assert bench.shards[old].show(PODS), "it goes on letting be shown what is new"
    assert owner(bench) == old
    assert len(bench.published) == epochs, "nothing was published meanwhile"
    bench.settle(8)
    assert owner(bench) == new
    assert bench.shards[new].received == [PODS], "it was received once"
    bench.check_served()


def test_a_switch_that_goes_on_failing_is_given_up_and_begun_again_later():
    bench = running()
    old, new = owner(bench), other(bench)
    bench.fail_switch = lambda _: "half"
    bench.order(Move(PODS, new))
    bench.settle(25)
    assert bench.decider.handoffs.counts["failed"] >= 1
    (_, ended) = bench.decider.handoffs.finished[0]
    assert (ended.ended, ended.why) == ("abandoned", "the takers do not answer")
    assert ended.what == f"v1/pods@{old} -> v1/pods@{new}"
    assert owner(bench) == old
    bench.fail_switch = lambda _: ""
    bench.settle(60)
    assert owner(bench) == new
    assert not bench.decider.handoffs.waiting(bench.now)
    bench.check_served()


def test_one_that_fails_does_not_hold_up_the_others():
    bench = running(2, "pods", "nodes", "events")
    bench.fail_switch = lambda switch: (
        "refused" if any(copy.partition.id == PODS for copy in switch.passing.givers) else ""
    )
    targets = {name: other(bench, name) for name in map(PartitionId, ("v1/pods", "v1/nodes", "v1/events"))}
    for name, shard in targets.items():
        bench.order(Move(name, shard))
    bench.settle(4)
    assert owner(bench) != targets[PODS]
    assert all(owner(bench, name) == shard for name, shard in targets.items() if name != PODS)


def test_what_is_stranded_is_given_up_and_barred_and_received_again_after_a_pause():
    bench = running(transfer_s=3)
    old, new = owner(bench), other(bench)
    bench.order(Move(PODS, new))
    bench.settle(2)
    bench.shards[old].crash()
    bench.step()
    bench.step()
    assert PODS not in bench.shards[new].held, "what was received of it is given up"
    (_, ended) = bench.decider.handoffs.finished[-1]
    assert ended.why == f"v1/pods@{new} is stranded: {old} does not send v1/pods"
    assert new in bench.decider.handoffs.barred(bench.now)[PODS]
    bench.settle(60)
    bench.check_served()
    assert owner(bench) == new


def test_a_source_that_dies_once_everything_is_received_is_not_needed():
    bench = running(3, transfer_s=1)
    old, new = owner(bench), other(bench)
    bench.order(Move(PODS, new))
    bench.step()
    assert handoff(bench).state == "receiving"
    bench.now += 1
    assert bench.shards[new].state(PODS) == "synced", "which nobody has heard of yet"
    bench.shards[old].crash()
    bench.unreachable.add(old)
    bench.settle(20)
    assert owner(bench) == new
    assert PODS not in bench.shards[new].listed
    assert bench.shards[new].held[PODS].knows is None, "nobody can say what the dead one let be shown"


def test_a_shard_that_dies_while_it_receives_is_not_waited_for():
    bench = running(3, transfer_s=30)
    old, new = owner(bench), other(bench)
    bench.order(Move(PODS, new))
    bench.settle(2)
    bench.unreachable.add(new)
    bench.settle(20)
    assert bench.decider.handoffs.counts["taker_gone"] == 1
    assert owner(bench) == old
    assert bench.shards[old].synced(PODS)


def test_what_takes_too_long_is_given_up():
    bench = running(settings=PlacementSettings(transfer_timeout_s=10), transfer_s=1000)
    old, new = owner(bench), other(bench)
    bench.order(Move(PODS, new))
    bench.settle(13)
    assert bench.decider.handoffs.counts["timed_out"] == 1
    (_, ended) = bench.decider.handoffs.finished[-1]
    assert ended.why == f"not complete after 10 s: v1/pods@{new} is arriving"
    assert PODS not in bench.shards[new].held
    assert owner(bench) == old


def test_each_failure_doubles_the_pause_and_a_success_forgets_them():
    bench = running(settings=PlacementSettings(transfer_timeout_s=2, handoff_pause_s=5), transfer_s=1000)
    bench.order(Move(PODS, other(bench)))
    began = []
    for _ in range(60):
        before = bench.decider.handoffs.of(bench.catalogue.followed[-1].resource)
        bench.step()
        after = bench.decider.handoffs.of(bench.catalogue.followed[-1].resource)
        if after is not None and (before is None or before.number != after.number):
            began.append(bench.now)
    pauses = [later - sooner for sooner, later in zip(began, began[1:], strict=False)]
    assert len(pauses) >= 2
    assert all(later > sooner for sooner, later in zip(pauses, pauses[1:], strict=False))
    for shard in bench.shards.values():
        shard.transfer_s = 0.1
    bench.settle(60)
    bench.check_served()
    assert not bench.decider.handoffs.waiting(bench.now)


def test_an_order_taken_back_withdraws_the_hand_off():
    bench = running(transfer_s=5)
    old, new = owner(bench), other(bench)
    bench.order(Move(PODS, new))
    bench.settle(2)
    bench.order(Move(PODS, old))
    bench.settle(3)
    assert bench.decider.handoffs.counts == {"withdrawn": 1}
    assert owner(bench) == old
    bench.check_served()


def test_a_resource_that_vanishes_takes_its_hand_off_along():
    bench = running(transfer_s=5)
    bench.order(Move(PODS, other(bench)))
    bench.settle(2)
    bench.catalogue = catalogue_of("nodes")
    bench.settle(8)
    assert bench.decider.handoffs.counts == {"withdrawn": 1}
    bench.check_served()


def test_a_drained_shard_is_emptied_without_a_list():
    bench = running(3, "pods", "nodes", "events", "leases", "jobs", "secrets")
    before = listed(bench)
    bench.order(Drain(B))
    bench.settle(20)
    assert not bench.shards[B].held
    assert B not in bench.routed().values()
    assert listed(bench) == before
    bench.check_served()


def test_where_nothing_is_complete_there_is_nothing_to_hand_over():
    bench = running(3)
    old = owner(bench)
    bench.unreachable.add(old)
    bench.settle(20)
    new = owner(bench)
    assert new != old
    assert bench.shards[new].listed.count(PODS) == 1, "the API server is listed"
    assert not list(bench.decider.handoffs)


def test_a_merge_waits_for_all_its_parts():
    bench = running(2, carve={"pods": ("a",)})
    part, rest = PartitionId("v1/pods[a]"), PartitionId("v1/pods[!a]")
    bench.shards[owner(bench, part)].refused.add(part)
    bench.carve = {}
    decision = bench.step()
    assert not list(bench.decider.handoffs)
    shard = owner(bench, part)
    assert decision.postponed == (f"v1/pods[a]@{shard} has to be complete before it is handed over",)
    assert {part, rest} <= set(bench.routed())
    bench.shards[owner(bench, part)].refused.discard(part)
    bench.settle(6)
    bench.check_served()


def test_a_part_of_a_dead_shard_is_listed_where_the_whole_is_to_be():
    bench = running(3, carve={"pods": ("a",)})
    part = PartitionId("v1/pods[a]")
    dead = owner(bench, part)
    assert owner(bench, PartitionId("v1/pods[!a]")) != dead
    bench.unreachable.add(dead)
    bench.settle(8)
    bench.carve = {}
    bench.settle(20)
    assert PODS in bench.routed()
    assert bench.shards[owner(bench)].synced(PODS)
    assert dead not in bench.routed().values()


def test_a_quiet_pass_says_nothing_while_something_is_received():
    bench = running(transfer_s=20)
    bench.order(Move(PODS, other(bench)))
    bench.step()
    assert [kinds_of(bench.step()) for _ in range(10)] == [[]] * 10
