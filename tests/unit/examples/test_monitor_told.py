"""What people were told outlives a restart: nothing is said twice, and ends are told of what was over meanwhile."""

import asyncio
import json
import re

import msgspec
import pytest
from gateway_monitor.alerts import Alerting
from gateway_monitor.files import read_state, read_told, write_state
from gateway_monitor.findings import Finding, Identity, Opened, Resolved, Subject, Telling
from gateway_monitor.grouping import Group, Grouper, Notification, merged
from gateway_monitor.lastgood import LastGood
from gateway_monitor.outbox import Refused
from gateway_monitor.settings import Alertmanager, Alerts, Webhook
from gateway_monitor.told import Told
from support.apiserver import in_virtual_time
from support.gateway_objects import LIMITS
from unit.examples.monitored import POLICY, ROUTE, SETTINGS, WithToken, World, only_without
from unit.examples.monitored import Told as Receiver

GOOD = {"spec": {"requestsPerSecond": 100}}
RELAXED = {"spec": {"requestsPerSecond": 4000}}
RELAXED_MORE = {"spec": {"requestsPerSecond": 4900}}


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch):
    """There are none in virtual time."""

    async def here(function, *arguments):
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", here)


@pytest.fixture
def keeping(tmp_path):
    return msgspec.structs.replace(SETTINGS, state_file=str(tmp_path / "state.json"))


def said(receiver):
    """Since it was last asked: checks that were told as open, and as over."""
    found = (
        [one.check for told in receiver for one in told.firing],
        [one.finding.check for told in receiver for one in told.resolved],
    )
    receiver.clear()
    return found


class Away(Receiver):
    """Nobody is there until it is told otherwise."""

    away = True

    async def tell(self, notification):
        if self.away:
            raise Refused("not there")
        await super().tell(notification)


def restarted(recorded, settings, between, then, *, receiver=None):
    """A relaxed policy and a deleted route are told of; the monitor is away while `between`; then it is again there."""

    async def main():
        world = World(list(recorded))
        world.told = receiver if receiver is not None else world.told
        async with world.monitored(settings):
            await world.monitor.ready.wait()
            await world.patch(POLICY, RELAXED)
            await world.delete(ROUTE)
            await asyncio.sleep(30)
        world.first = said(world.told)
        await between(world)
        async with world.monitored(settings):
            await world.monitor.ready.wait()
            await asyncio.sleep(120)
            await then(world)

    in_virtual_time(main())


async def nothing(_):
    pass


def test_what_is_found_again_unchanged_is_not_told_again(recorded, keeping):
    async def then(world):
        assert sorted(world.first[0]) == ["policy_relaxed", "production_route_removed", "rollback_proposed"]
        assert set(world.monitor.model.findings) >= {
            Identity("policy_relaxed", Subject(LIMITS, "payments", "api-svc"))
        }
        assert said(world.told) == ([], [])

    restarted(recorded, keeping, nothing, then)


def test_what_was_over_while_nobody_looked_is_told_as_over(recorded, keeping):
    async def between(world):
        await world.patch(POLICY, GOOD)
        await asyncio.sleep(600)

    async def then(world):
        over = [one for told in world.told for one in told.resolved]
        assert sorted(one.finding.check for one in over) == ["policy_relaxed", "rollback_proposed"]
        assert all(600 < one.at - one.finding.since < 800 for one in over)
        assert said(world.told)[0] == []

    restarted(recorded, keeping, between, then)


def test_another_text_after_a_restart_is_told(recorded, keeping):
    async def between(world):
        await world.patch(POLICY, RELAXED_MORE)

    async def then(world):
        opened, over = said(world.told)
        assert (sorted(opened), over) == (["policy_relaxed", "rollback_proposed"], [])

    restarted(recorded, keeping, between, then)


def test_what_cannot_be_seen_after_a_restart_is_not_over(recorded, keeping):
    async def main():
        world = World(list(recorded), only_without("ratelimitpolicies"))
        state = Told()
        finding = Finding(
            check="policy_relaxed", subject=Subject(LIMITS, "payments", "api-svc"), severity="critical",
            summary="relaxed", since=1.0,
        )  # fmt: skip
        state.of("told").delivered(Notification(Group("critical", "payments"), (finding,)), 2.0)
        async with world.monitored(keeping, WithToken):
            await asyncio.sleep(30)
        good = read_state(keeping.state_file)
        write_state(keeping.state_file, good.encode(state.entries()))
        world.told.clear()
        async with world.monitored(keeping, WithToken):
            await asyncio.sleep(300)
            assert said(world.told)[1] == []
        assert finding in [one.finding for one in read_told(keeping.state_file).of("told").tellings]

    in_virtual_time(main())


def test_who_was_not_reached_before_is_told_after_a_restart(recorded, keeping):
    receiver = Away()

    async def between(world):
        receiver.away = False
        await world.patch(POLICY, GOOD)

    async def then(world):
        assert world.first == ([], [])
        # And never of the end of what it did not know.
        assert said(world.told) == (["production_route_removed"], [])

    restarted(recorded, keeping, between, then, receiver=receiver)


def test_an_end_that_could_not_be_told_is_told_after_a_restart(recorded, keeping):
    receiver = Away()
    receiver.away = False

    async def main():
        world = World(list(recorded))
        world.told = receiver
        async with world.monitored(keeping):
            await world.monitor.ready.wait()
            await world.patch(POLICY, RELAXED)
            await asyncio.sleep(30)
            receiver.away = True
            await world.patch(POLICY, GOOD)
            await asyncio.sleep(30)
        said(receiver)
        receiver.away = False
        async with world.monitored(keeping):
            await asyncio.sleep(120)
            opened, over = said(receiver)
            assert (opened, sorted(over)) == ([], ["policy_relaxed", "rollback_proposed"])
        async with world.monitored(keeping):
            await asyncio.sleep(120)
            assert said(receiver) == ([], [])

    in_virtual_time(main())


# -- when ----------------------------------------------------------------------------------------------------


def finding(name="web", **more):
    return Finding(
        check="field_changed", subject=Subject("x", "shop", name), severity=more.pop("severity", "warning"),
        summary=more.pop("summary", f"{name} is bad"), since=more.pop("since", 0.0), **more,
    )  # fmt: skip


def grouper(*told):
    return Grouper(group_wait_s=5, repeat_s=100, hold_s={}, told=told)


def test_what_was_told_before_says_nothing_until_it_is_found():
    again = grouper(Telling(finding(), 10))
    assert again.next_at is None
    assert again.due(5000) == []
    assert again.told == []
    assert again.awaited == [finding()]


def test_it_is_repeated_from_when_it_was_told_before():
    again = grouper(Telling(finding(), 10))
    again.offer([Opened(finding())], 50)
    assert again.due(109) == []
    [notification] = again.due(110)
    assert notification.repeated
    late = grouper(Telling(finding(), 10))
    late.offer([Opened(finding())], 1000)
    assert late.due(1004) == []
    assert late.due(1005)[0].repeated


def test_a_clock_that_went_back_does_not_silence_it():
    again = grouper(Telling(finding(), 1_000_000))
    again.offer([Opened(finding())], 50)
    assert again.due(150)[0].repeated


def test_over_and_found_after_a_restart_within_the_wait_has_not_happened():
    again = grouper(Telling(finding(), 10))
    again.offer([Resolved(finding(), 50)], 50)
    again.offer([Opened(finding())], 52)
    assert again.due(60) == []


def test_another_severity_after_a_restart_ends_what_was_told():
    again = grouper(Telling(finding(), 10))
    again.offer([Opened(finding(severity="critical"))], 20)
    firing, over = again.due(25)
    assert (str(firing.group), str(over.group)) == ("critical in shop", "warning in shop")
    other = grouper(Telling(finding(), 10))
    other.offer([Resolved(finding(severity="critical"), 20)], 20)
    [over] = other.due(25)
    # As this receiver knows it: Alertmanager has the severity as a label.
    assert over.resolved[0].finding.severity == "warning"


def test_an_end_is_not_lost_with_a_repetition_that_could_not_be_delivered():
    group = Group("warning", "shop")
    repeated = Notification(group, (finding(),), repeated=True)
    end = Notification(group, (), (Resolved(finding(), 9),))
    assert merged(repeated, end).resolved == ()
    assert merged(repeated, end, known={finding().identity}).resolved == end.resolved


# -- to whom -------------------------------------------------------------------------------------------------

HOLDING = Alerts(group_wait_s=1, retry_first_s=2, hold_s={}, give_up_s=100)


class Posted:
    """In the place of a poster."""

    def __init__(self):
        self.to = []

    async def post(self, url, document):
        self.to.append((asyncio.get_running_loop().time(), url, document))


async def alerted(settings, told, transitions, *, known=True, for_s=10, posted=None, more=()):
    loop, posted = asyncio.get_running_loop(), posted or Posted()
    alerting = Alerting(settings, posted, links="", now=loop.time, more=more, told=told)
    running = asyncio.create_task(alerting.run())
    alerting.offer(transitions)
    if known:
        alerting.known()
    await asyncio.sleep(for_s)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return posted.to


def test_webhooks_of_one_host_are_told_apart_in_whichever_order_and_a_new_one_hears_everything():
    one, two, new = (Webhook(url=f"https://hooks.example.com/{name}") for name in ("one", "two", "new"))

    async def main():
        told = Told()
        first = msgspec.structs.replace(HOLDING, webhooks=(one, two))
        assert len(await alerted(first, told, [Opened(finding())])) == 2
        assert "one" not in json.dumps([entry.receiver for entry in told.entries()])
        second = msgspec.structs.replace(HOLDING, webhooks=(new, two, one))
        to = await alerted(second, Told.of_entries(told.entries()), [Opened(finding())])
        assert [url for _, url, _ in to] == [new.url]
        to = await alerted(second, Told.of_entries(told.entries()), [Resolved(finding(), 5)])
        assert {url for _, url, _ in to} == {one.url, two.url}

    in_virtual_time(main())


def test_receivers_that_are_not_there_any_more_are_forgotten():
    async def main():
        told = Told()
        told.of("gone").delivered(Notification(Group("warning", "shop"), (finding(),)), 1)
        await alerted(HOLDING, told, [])
        assert told.entries() == ()
        assert told.findings() == {}

    in_virtual_time(main())


def test_an_end_that_is_given_up_is_not_remembered():
    class Refusing(Receiver):
        async def tell(self, notification):
            if notification.resolved:
                raise Refused("400", final=True)

    async def main():
        told = Told()
        await alerted(HOLDING, told, [Opened(finding())], more=[Refusing()])
        assert [entry.receiver for entry in told.entries()] == ["log", "told"]
        await alerted(HOLDING, told, [Resolved(finding(), 5)], more=[Refusing()])
        assert told.entries() == ()

    in_virtual_time(main())


def test_alertmanager_hears_at_once_that_an_alert_lasts_and_when_it_ends():
    settings = msgspec.structs.replace(
        HOLDING, alertmanagers=(Alertmanager(url="http://x", resend_s=20, expire_s=100),)
    )

    async def main():
        told, names = Told(), ("a", "b")
        await alerted(settings, told, [Opened(finding(name)) for name in names])
        await asyncio.sleep(60)
        start = asyncio.get_running_loop().time()
        to = await alerted(settings, Told.of_entries(told.entries()), [Opened(finding("a"))], for_s=30)
        # `b` could not be looked at: nobody knows that it is over.
        assert [(at - start, [one["labels"]["name"] for one in sent]) for at, _, sent in to] == [
            (0, ["a", "b"]),
            (20, ["a", "b"]),
        ]
        start = asyncio.get_running_loop().time()
        ends = [Opened(finding("a")), Resolved(finding("b"), start)]
        to = await alerted(settings, Told.of_entries(told.entries()), ends)
        [over] = [one for _, _, sent in to for one in sent if one["labels"]["name"] == "b"]
        assert over["endsAt"] == f"1970-01-01T00:01:{start - 60:06.3f}Z"
        # Before everything is known, only what was found: the others may be over, and their alerts have expired.
        to = await alerted(
            settings, Told.of_entries(told.entries()), [Opened(finding("a"))], known=False, for_s=30
        )
        assert [[one["labels"]["name"] for one in sent] for _, _, sent in to] == [["a"]]

    in_virtual_time(main())


def test_what_was_given_up_and_came_through_with_a_resend_was_told():
    class RefusingOnce(Posted):
        async def post(self, url, document):
            await super().post(url, document)
            if len(self.to) == 1:
                raise Refused("400", final=True)

    settings = msgspec.structs.replace(
        HOLDING, alertmanagers=(Alertmanager(url="http://x", resend_s=20, expire_s=100),)
    )

    async def main():
        for seconds, receivers in ((10, 1), (30, 2)):
            told = Told()
            await alerted(settings, told, [Opened(finding())], for_s=seconds, posted=RefusingOnce())
            assert len(told.entries()) == receivers

    in_virtual_time(main())


# -- the file ------------------------------------------------------------------------------------------------


def kept():
    told = Told()
    told.of("hook").delivered(Notification(Group("warning", "shop"), (finding(details=("pod",)),)), 7)
    return told


def test_what_was_told_is_read_as_it_was_written(tmp_path):
    path = str(tmp_path / "state.json")
    write_state(path, LastGood().encode(kept().entries()))
    again = read_told(path)
    assert again.of("hook").tellings == [Telling(finding(details=("pod",)), 7)]
    assert again.findings() == {finding().identity: finding(details=("pod",))}


def test_without_a_file_nothing_was_told_and_nobody_is_warned(tmp_path, caplog):
    assert read_told(str(tmp_path / "none")).entries() == ()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "shoal-gateway-monitor/1", "told": None}, "an earlier version of the monitor wrote it"),
        ({"told": 7}, "it is damaged: .*told"),
        ({"told": [{"receiver": "x", "tellings": [{"finding": {"check": "?"}}]}]}, "it is damaged: .*check"),
    ],
)
def test_what_was_told_cannot_be_read_and_the_good_states_can(tmp_path, caplog, change, reason):
    path = tmp_path / "state.json"
    document = json.loads(LastGood().encode(kept().entries())) | change
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))
    assert len(read_state(str(path))) == 0
    assert read_told(str(path)).entries() == ()
    [record] = caplog.records
    assert record.message == "what was told before is not known; what is open is told again"
    assert (record.levelname, record.path) == ("WARNING", str(path))
    assert re.search(reason, record.reason)
