"""Before a watch is resumed the server is asked where it is: the machine alone, and with its driver."""

import asyncio
import random

import pytest
from support.clock import run_virtual
from support.informing import CONFIG_MAPS, Remembering, in_world
from support.scripted_connection import (
    Answer,
    Never,
    ScriptedConnection,
    config_map,
    declined,
    line,
    listed,
)

from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.api.decode import Decoder
from shoal.shards.api.requests import GATEWAY_HEADER, Refusal
from shoal.shards.model.partitions import EVERYTHING, Partition
from shoal.shards.model.resources import ResourceType
from shoal.shards.settings import StoreSettings, WatchSettings
from shoal.shards.store.objects import PartitionStore
from shoal.shards.watch.permits import NoPermits
from shoal.shards.watch.protocol import Machine
from shoal.shards.watch.reflector import Reflector
from shoal.shards.watch.states import Opening, Probing, Watching
from shoal.shards.watch.steps import (
    Accepted,
    AskVersion,
    AskWatch,
    AwaitPermit,
    Begin,
    CloseStream,
    CompleteGeneration,
    Declined,
    Elapsed,
    Failed,
    Granted,
    InitialEventsEnded,
    PageApplied,
    ReadEvents,
    ReturnPermit,
    StreamEnded,
    VersionTold,
    Wait,
)

UNSUPPORTED = Declined(Refusal(422, "sendInitialEvents is forbidden", "Invalid"))


def machine(*events):
    made = Machine(WatchSettings(), lambda: 0.0)
    for event in events:
        made.step(event, 0.0)
    return made


# -- the machine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "lived_s", "counted"),
    [
        ("clean", 300.0, "timeout"),  # in time
        ("clean", 30.0, "ended"),  # early: a server that stops
        ("overlong", 305.0, "stalled"),
        ("silent", 60.0, "stalled"),
    ],
)
@pytest.mark.parametrize("delivered", [True, False])
def test_after_a_watch_that_was_no_failure_the_server_is_asked_at_once(how, lived_s, counted, delivered):
    made = machine(Begin(5), Accepted())
    step = made.step(StreamEnded(how, 8, delivered=delivered), lived_s)
    assert step == ((CloseStream(),), AskVersion(8)), "for all that the watch has brought"
    assert isinstance(made.state, Probing)
    assert made.watch_restarts == {counted: 1}
    assert made.errors == {}
    assert made.step(VersionTold(8), lived_s) == ((), AskWatch(8, 300))


@pytest.mark.parametrize(
    "event",
    [
        StreamEnded("clean"),  # as soon as it began, and with nothing
        StreamEnded("broken", 8, delivered=True),
        StreamEnded("truncated", 8, delivered=True),
        StreamEnded("garbage", 8, delivered=True),
    ],
)
def test_after_a_failure_it_is_asked_when_the_pause_is_over(event):
    made = machine(Begin(5), Accepted())
    step = made.step(event, 0.5)
    assert step.effects == (CloseStream(),)
    assert isinstance(step.activity, Wait)
    held = max(5, event.version)
    assert made.step(Elapsed(), 2.0) == ((), AskVersion(held))
    assert made.step(VersionTold(held), 2.0) == ((), AskWatch(held, 300))


def test_every_watch_but_the_one_after_a_list_is_asked_for_first():
    made = machine(Begin(5), Accepted())
    for now in range(300, 3000, 300):
        assert made.step(StreamEnded("clean"), now).activity == AskVersion(5)
        assert made.step(VersionTold(5), now).activity == AskWatch(5, 300)
        made.step(Accepted(), now)
    assert made.watch_restarts == {"timeout": 9}


def test_what_was_listed_just_now_is_watched_without_asking():
    made = machine(Begin(), Granted(), UNSUPPORTED)
    step = made.step(PageApplied(9, ""), 0.0)
    assert step == ((CompleteGeneration(9), ReturnPermit()), AskWatch(9, 300))
    made = machine(Begin(), Granted(), Accepted())
    step = made.step(InitialEventsEnded(9), 0.0)
    assert step == ((CompleteGeneration(9), ReturnPermit()), ReadEvents())
    assert isinstance(made.state, Watching)


def test_what_was_received_up_to_now_is_watched_without_asking_and_what_is_old_is_not():
    assert machine().step(Begin(17), 0.0) == ((), AskWatch(17, 300))
    made = machine()
    assert made.step(Begin(17, old=True), 0.0) == ((), AskVersion(17))
    assert made.condition == "synced"
    assert made.step(VersionTold(18), 0.0) == ((), AskWatch(17, 300))


def test_nothing_held_is_listed_however_old():
    assert machine().step(Begin(old=True), 0.0) == ((), AwaitPermit())


@pytest.mark.parametrize("told", [8, 9, 0])
def test_a_server_that_is_not_behind_or_does_not_say_is_watched_on(told):
    made = machine(Begin(8), Accepted(), StreamEnded("overlong"))
    assert made.step(VersionTold(told), 0.0) == ((), AskWatch(8, 300))
    assert isinstance(made.state, Opening)
    assert made.errors == {}


@pytest.mark.parametrize("how", ["clean", "overlong", "silent"])
def test_a_server_that_is_behind_is_listed_and_counted_and_believed(how):
    made = machine(Begin(5), Accepted())
    made.step(StreamEnded(how, 8, delivered=True), 300.0)
    assert made.step(VersionTold(7), 300.0) == ((), AwaitPermit())
    assert made.errors == {"went_back": 1}
    assert made.condition == "synced", "what is held is served until the list takes its place"
    made.step(Granted(), 300.0)
    made.step(Accepted(), 300.0)
    assert made.step(InitialEventsEnded(7), 300.0).effects == (CompleteGeneration(7), ReturnPermit())
    assert made.step(StreamEnded("clean"), 600.0).activity == AskVersion(7)
    assert made.step(VersionTold(7), 600.0) == ((), AskWatch(7, 300))
    assert made.errors == {"went_back": 1}


@pytest.mark.parametrize("event", [Failed("connection", "refused"), Declined(Refusal(500, "boom"))])
def test_no_watch_is_resumed_before_the_server_has_said_where_it_is(event):
    made = machine(Begin(5), Accepted(), StreamEnded("overlong"))
    assert isinstance(made.step(event, 1.0).activity, Wait)
    assert made.step(Elapsed(), 2.0) == ((), AskVersion(5))


# -- the driver ----------------------------------------------------------------------------------------------

MAPS = ResourceType(resource=CONFIG_MAPS, kind="ConfigMap", namespaced=True)
NEWEST = {"limit": "1"}
REACHED = {"resourceVersion": "8", "resourceVersionMatch": "NotOlderThan", "limit": "1"}


class NoJitter(random.Random):
    """Every random number is 0: timeouts and delays are at their smallest."""

    def random(self):
        return 0.0


def by_gateway(answer):
    return Answer(answer.pieces, answer.status, {GATEWAY_HEADER: "7"})


def ended_at_8(*told, then=()):
    """A watch comes in order to version 8 and its end; the server is asked where it is, and `told` is what it says."""
    brought = Answer([line("MODIFIED", config_map("a", 8)), 2.0])
    connection = ScriptedConnection(listed(5, config_map("a", 5)), brought, *then, Answer([Never]), told=told)

    async def main():
        clock = asyncio.get_running_loop().time
        partition = Partition(CONFIG_MAPS, EVERYTHING)
        store = PartitionStore(partition, MAPS, settings=StoreSettings(), clock=clock)
        settings = WatchSettings(streaming_list="never")
        reflector = Reflector(
            partition=partition,
            resource_type=MAPS,
            connection=connection,
            store=store,
            decoder=Decoder(MAPS, line_bytes_max=settings.line_bytes_max),
            permits=NoPermits(),
            settings=settings,
            rng=NoJitter(),
        )
        running = asyncio.create_task(reflector.run())
        await asyncio.sleep(60.0)
        running.cancel()
        await asyncio.wait([running])
        return reflector.status, store

    status, store = run_virtual(main())
    return connection, status, store


def test_the_server_is_asked_for_one_object_between_two_watches():
    connection, status, store = ended_at_8(8)
    assert connection.probed == [NEWEST]
    assert connection.probes == [2.0]
    assert [asked.query.get("resourceVersion") for asked in connection.asked] == [None, "5", "8"]
    assert status.lists == {"paged": 1}
    assert store.frontier == 8


def test_an_api_server_that_says_it_is_behind_is_believed_at_once():
    connection, status, store = ended_at_8(7, then=[listed(7, config_map("b", 7))])
    assert connection.probed == [NEWEST]
    assert status.errors == {"went_back": 1}
    assert status.lists == {"paged": 2}
    assert store.get("alpha/a") is None
    assert store.get("alpha/b") is not None
    assert store.frontier == 7


def test_a_gateway_whose_list_is_older_is_asked_once_more_for_what_is_held():
    """Its lists are as new as the oldest of its partitions, and its watches as the newest."""
    connection, status, store = ended_at_8(by_gateway(listed(7)), by_gateway(listed(9)))
    assert connection.probed == [NEWEST, REACHED]
    assert connection.probes == [2.0, 2.0]
    assert connection.asked[-1].query["resourceVersion"] == "8"
    assert status.errors == {}
    assert store.frontier == 8


def test_a_gateway_that_is_not_behind_is_asked_once():
    connection, status, _ = ended_at_8(by_gateway(listed(8)))
    assert connection.probed == [NEWEST]
    assert status.errors == {}


def test_a_gateway_that_does_not_get_there_is_behind():
    unreached = by_gateway(declined(504, "Too large resource version: 8, current: 7"))
    connection, status, store = ended_at_8(
        by_gateway(listed(7)), unreached, then=[listed(7, config_map("b", 7))]
    )
    assert connection.probed == [NEWEST, REACHED]
    assert status.errors == {"went_back": 1}
    assert status.lists == {"paged": 2}
    assert store.frontier == 7


def test_a_gateway_that_cannot_say_now_is_asked_again_and_nothing_is_listed():
    away = by_gateway(declined(503, "not ready"))
    connection, status, store = ended_at_8(by_gateway(listed(7)), away, by_gateway(listed(8)))
    assert connection.probed == [NEWEST, REACHED, NEWEST]
    assert "went_back" not in status.errors
    assert status.lists == {"paged": 1}
    assert store.frontier == 8


# -- another server behind the same address ------------------------------------------------------------------


def test_an_older_server_behind_the_same_address_is_noticed_after_an_orderly_end():
    """A server that stops ends its watches in order; the next connection leads to one with a past of its own. By its
    first event it has overtaken what is held, so that nothing in the next watch would tell."""

    async def main(world):
        for number in range(20):
            world.create(f"lost{number}")
        held = world.create("both")
        informer = world.factory.informer("configmaps")
        handler = Remembering()
        await informer.add_handler(handler).synced()
        await asyncio.sleep(30)  # a watch that ends as soon as it began counts as a failure
        older = build_app(SimulatorSettings(seed=1))
        kind = older.verbs.served(CONFIG_MAPS)
        for name in ("both", "other"):
            older.verbs.create(kind, "default", {"metadata": {"name": name}})
        assert older.storage.revision < held
        world.connection._app, stopping = older, world.app
        stopping.close()
        await asyncio.sleep(30)
        assert informer.status.watch_restarts == {"ended": 1}
        assert informer.status.went_back == 1
        assert informer.status.state == "synced"
        assert handler.state.keys() == {"default/both", "default/other"}
        world.app = older
        assert handler.state == world.state()
        world.change("other", app="web")
        while older.storage.revision <= held:
            world.create(f"new{older.storage.revision}")
        await asyncio.sleep(5)
        assert handler.state == world.state()
        assert sorted(obj.key for obj in informer.lister.list()) == sorted(world.state())
        assert informer.status.went_back == 1

    in_world(main)
