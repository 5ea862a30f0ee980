import msgspec
from support.control import Bench, catalogue_of, resource_type

from shoal.coordinator.catalogue import Catalogue
from shoal.coordinator.instructions import Adopt, Publish, Release
from shoal.coordinator.settings import LivenessSettings, PlacementSettings
from shoal.shards.model.partitions import Epoch, PartitionId, ShardId
from shoal.shards.model.resources import SubresourceType

KINDS = ("pods", "events", "configmaps", "services", "nodes", "leases")
EAGER = PlacementSettings(tolerance=0.1, worth_weight=0, settle_s=3, partition_weight=10, moves_at_once=2)


def running(shards=3, **settings):
    bench = Bench(shards, **settings)
    bench.catalogue = catalogue_of(*KINDS)
    bench.settle(6)
    bench.check_served()
    return bench


def placed(bench):
    return {shard: sorted(bench.shards[shard].held) for shard in bench.shards}


def test_nothing_is_decided_before_the_api_server_was_heard():
    bench = Bench(2)
    decision = bench.step()
    assert decision.instructions == ()
    assert decision.waiting_for == ("what the API server serves is not known yet",)


def test_nothing_is_decided_before_all_shards_were_heard():
    bench = Bench(2)
    bench.catalogue = catalogue_of("pods")
    bench.unreachable = {ShardId("shard-1")}
    decision = bench.step()
    assert decision.instructions == ()
    assert decision.waiting_for == ("waiting for shard-1 to start",)
    bench.unreachable = set()
    bench.settle(3)
    bench.check_served()


def test_a_shard_that_never_starts_is_waited_for_only_so_long():
    bench = Bench(2, liveness=LivenessSettings(start_timeout_s=20))
    bench.catalogue = catalogue_of("pods", "nodes")
    bench.unreachable = {ShardId("shard-1")}
    bench.settle(19)
    assert not bench.published
    bench.settle(6)
    bench.check_served()
    assert set(bench.routed().values()) == {"shard-0"}


def test_without_any_shard_it_waits():
    bench = Bench(1, liveness=LivenessSettings(start_timeout_s=5))
    bench.catalogue = catalogue_of("pods")
    bench.unreachable = {ShardId("shard-0")}
    bench.settle(10)
    assert bench.step().waiting_for == ("no shard is healthy",)


def test_the_first_pass_adopts_then_publishes():
    bench = Bench(2)
    bench.catalogue = catalogue_of(*KINDS)
    instructions = bench.step().instructions
    assert [type(instruction) for instruction in instructions] == [Adopt, Adopt, Publish]
    assert {instruction.epoch for instruction in instructions[:2]} == {bench.table.epoch} == {1}
    assert bench.table.shards == ("shard-0", "shard-1")


def test_a_quiet_pass_says_nothing():
    bench = running()
    epoch = bench.table.epoch
    for _ in range(100):
        assert bench.step().instructions == ()
    assert bench.table.epoch == epoch


def test_a_restarted_shard_gets_its_partitions_again_and_nothing_moves():
    bench = running()
    before, routes = placed(bench), bench.table
    bench.shards["shard-1"].crash()
    bench.settle(4)
    bench.check_served()
    assert placed(bench) == before
    assert bench.table == routes


def test_an_instruction_that_got_lost_is_given_again():
    bench = Bench(2)
    bench.catalogue = catalogue_of(*KINDS)
    bench.lost_instructions = {ShardId("shard-0")}
    bench.settle(6)
    bench.check_served()


def test_a_dead_shard_loses_its_partitions_and_others_keep_theirs():
    bench = running()
    before = placed(bench)
    bench.unreachable = {ShardId("shard-1")}
    bench.settle(5)
    assert bench.routed() == {p: s for s, few in before.items() for p in few}, (
        "a suspect shard keeps what it has"
    )
    bench.settle(15)
    routed = bench.routed()
    assert set(routed.values()) == {"shard-0", "shard-2"}
    for shard in ("shard-0", "shard-2"):
        assert set(before[shard]) <= set(bench.shards[shard].held)


def test_a_shard_that_comes_back_from_the_dead_gives_up_what_others_have():
    bench = running()
    bench.unreachable = {ShardId("shard-1")}
    bench.settle(20)
    assert bench.shards["shard-1"].held, "it has not heard of it yet"
    bench.unreachable = set()
    bench.settle(10)
    bench.check_served()


def test_a_resource_that_appears_is_followed_and_published():
    bench = running()
    epoch = bench.table.epoch
    bench.catalogue = catalogue_of(*KINDS, "widgets")
    bench.step()
    assert bench.table.epoch > epoch
    assert "v1/widgets" in bench.routed()
    bench.settle(3)
    bench.check_served()


def test_a_resource_that_goes_is_first_unpublished_then_released():
    bench = running(settings=PlacementSettings(release_grace_s=2))
    bench.catalogue = catalogue_of(*KINDS[1:])
    instructions = bench.step().instructions
    assert "v1/pods" not in bench.routed()
    assert not any(isinstance(instruction, Release) for instruction in instructions)
    assert any(PartitionId("v1/pods") in shard.held for shard in bench.shards.values())
    bench.settle(3)
    bench.check_served()


def test_a_described_change_reaches_the_shard_and_a_new_column_does_not():
    bench = running()
    shard = bench.shards[bench.routed()[PartitionId("v1/nodes")]]
    types = list(bench.catalogue.followed)
    at = next(at for at, known in enumerate(types) if known.resource.name == "nodes")

    below = (SubresourceType(name="status", kind="Node", verbs=("get",)),)
    types[at] = msgspec.structs.replace(
        types[at], short_names=("no",), subresources=("status",), subresource_types=below
    )
    bench.catalogue = Catalogue(tuple(types))
    bench.settle(3)
    assert bench.table.catalogue == bench.catalogue.followed
    assert shard.listed.count("v1/nodes") == 1

    types[at] = msgspec.structs.replace(types[at], selectable_fields=("spec.x",))
    bench.catalogue = Catalogue(tuple(types))
    bench.settle(3)
    bench.check_served()
    assert shard.listed.count("v1/nodes") == 2
    assert shard.held["v1/nodes"].assignment.resource_type.selectable_fields == ("spec.x",)


def test_what_a_shard_found_gone_is_told_again_while_discovery_shows_it():
    bench = running()
    shard = bench.shards[bench.routed()[PartitionId("v1/nodes")]]
    shard.held["v1/nodes"].gone = True
    bench.step()
    assert not shard.held["v1/nodes"].gone
    shard.held["v1/nodes"].gone = True
    bench.settle(5)
    assert shard.held["v1/nodes"].gone, "not more often than every ten seconds"
    bench.settle(10)
    bench.check_served()


def test_secrets_are_redacted_where_settings_say_so():
    bench = Bench(1, secrets="redact")
    bench.catalogue = Catalogue((resource_type("secrets"), resource_type("secrets", "vault.example.com")))
    bench.settle(3)
    redacted = {partition: held.assignment.redact for partition, held in bench.shards["shard-0"].held.items()}
    assert redacted == {"v1/secrets": True, "vault.example.com/v1/secrets": False}
    bench.secrets = "include"
    bench.restart_coordinator()
    bench.settle(4)
    assert not bench.shards["shard-0"].held["v1/secrets"].assignment.redact
    assert bench.shards["shard-0"].listed.count("vault.example.com/v1/secrets") == 1


def test_a_coordinator_that_comes_back_moves_nothing_and_goes_on_above_the_epoch():
    bench = running()
    before, epoch = placed(bench), bench.table.epoch
    listed = {name: list(shard.listed) for name, shard in bench.shards.items()}
    bench.restart_coordinator()
    bench.settle(5)
    bench.check_served()
    assert placed(bench) == before
    assert {name: list(shard.listed) for name, shard in bench.shards.items()} == listed, (
        "nothing was listed again"
    )
    assert bench.table.epoch > epoch


def test_a_router_with_a_greater_epoch_is_believed():
    bench = running()
    bench.restart_coordinator()
    for shard in bench.shards.values():
        shard.crash()
    bench.router_epoch = Epoch(700)
    bench.settle(4)
    assert bench.table.epoch > 700
    bench.check_served()


def test_a_router_that_shows_a_greater_epoch_later_is_believed_too():
    bench = running()
    bench.router_epoch = Epoch(900)
    bench.step()
    assert bench.table.epoch > 900
    epoch = bench.table.epoch
    bench.settle(5)
    assert bench.table.epoch == epoch


def weigh(bench, **objects):
    bench.objects.update({PartitionId(f"v1/{name}"): count for name, count in objects.items()})


def test_a_move_is_published_when_the_new_shard_is_complete_and_released_after_that():
    bench = running(shards=2, settings=EAGER, sync_s=3)
    heavy = bench.routed()[PartitionId("v1/pods")]
    mates = [
        partition for partition, shard in bench.routed().items() if shard == heavy and partition != "v1/pods"
    ]
    weigh(bench, pods=1000, **{mate.removeprefix("v1/"): 900 for mate in mates[:1]})
    moved = None
    for _ in range(60):
        bench.step()
        for partition in bench.routed():
            holders = [name for name, shard in bench.shards.items() if partition in shard.held]
            assert any(bench.shards[name].synced(partition) for name in holders), (
                "never without a complete copy"
            )
            assert bench.shards[bench.routed()[partition]].synced(partition), (
                "never routed to an incomplete copy"
            )
            if len(holders) > 1:
                moved = partition
    assert moved is not None
    bench.check_served()


def test_a_move_to_a_shard_that_is_refused_is_given_up():
    bench = running(shards=2, settings=EAGER)
    routed = bench.routed()
    heavy = routed[PartitionId("v1/pods")]
    mates = [partition for partition, shard in routed.items() if shard == heavy and partition != "v1/pods"]
    weigh(bench, pods=1000, **{mate.removeprefix("v1/"): 900 for mate in mates[:1]})
    other = next(name for name in bench.shards if name != heavy)
    bench.shards[other].refused = {*routed}
    for shard in routed:
        bench.shards[heavy].refused.discard(shard)
    bench.settle(40)
    assert {partition for partition, shard in bench.routed().items() if shard == heavy} >= {"v1/pods", *mates}


def test_shards_that_are_added_get_their_part():
    bench = running(shards=2, settings=EAGER)
    bench.wanted = 3
    bench.settle(60)
    bench.check_served()
    assert bench.shards["shard-2"].held
    assert bench.table.shards == ("shard-0", "shard-1", "shard-2")


def test_a_shard_that_is_to_leave_ends_once_others_serve_what_it_had():
    bench = running(shards=3, sync_s=3)
    bench.wanted = 2
    for _ in range(20):
        bench.step()
        for partition, shard in bench.routed().items():
            assert bench.shards[shard].synced(partition), "never routed to an incomplete copy"
    assert set(bench.shards) == {"shard-0", "shard-1"}
    bench.check_served()


def test_the_plan_explains_itself():
    bench = Bench(2)
    bench.catalogue = catalogue_of("pods", "nodes")
    plan = bench.step().orders.plan
    lines = plan.explain()
    assert lines[0].startswith("v1/pods (weight ")
    assert "-> shard-0: the lightest, at 0 before it" in lines[0]
    assert any(line.startswith("  not shard-0: weighs") for line in lines)
