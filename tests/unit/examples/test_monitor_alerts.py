"""Delivering notifications: retries, merging, giving up; and what an HTTP receiver's answers mean."""

import asyncio

import pytest
from gateway_monitor.alerts import Alerting
from gateway_monitor.findings import Finding, Opened, Resolved, Subject
from gateway_monitor.grouping import Group, Notification
from gateway_monitor.outbox import Outbox, Refused
from gateway_monitor.posting import AlertmanagerReceiver, Poster, WebhookReceiver
from gateway_monitor.settings import Alertmanager, Alerts, Webhook
from support.alert_receiver import AlertReceiver
from support.apiserver import in_virtual_time

SETTINGS = Alerts(group_wait_s=1, retry_first_s=2, retry_longest_s=30, give_up_s=100, groups_max=2, hold_s={})


def finding(name="web", **more):
    return Finding(
        check="field_changed", subject=Subject("x", more.pop("namespace", "shop"), name), severity="warning",
        summary=f"{name} is bad", **more,
    )  # fmt: skip


def note(*names, group="shop"):
    return Notification(Group("warning", group), tuple(finding(name) for name in names))


class Told:
    """A receiver that refuses as long as it is told to."""

    name = "told"

    def __init__(self, *refusals):
        self.refusals = list(refusals)
        self.at = []
        self.names = []

    async def tell(self, notification):
        self.at.append(asyncio.get_running_loop().time())
        if self.refusals:
            refusal = self.refusals.pop(0)
            await asyncio.sleep(0)
            raise refusal
        self.names.append([one.subject.name for one in notification.firing])


async def delivered(receiver, *notifications, settings=SETTINGS, for_s=1000):
    outbox = Outbox(receiver, settings)
    worker = asyncio.create_task(outbox.work())
    for notification in notifications:
        outbox.put(notification)
    await asyncio.sleep(for_s)
    await outbox.close()
    await worker
    return outbox.counts


def test_a_receiver_that_fails_is_asked_again_with_growing_delays():
    told = Told(Refused("503"), Refused("503"), Refused("503"))
    counts = in_virtual_time(delivered(told, note("a")))
    assert told.at == [0, 2, 6, 14]
    assert told.names == [["a"]]
    assert (counts.delivered, counts.failed, counts.dropped) == (1, 3, 0)


def test_retry_after_counts():
    told = Told(Refused("429", retry_after_s=11), Refused("429", retry_after_s=9999))
    in_virtual_time(delivered(told, note("a"), for_s=11_000))
    # Longer than the longest delay of its own.
    assert told.at == [0, 11, 10010]


def test_retry_after_counts_for_everything_that_the_receiver_is_sent():
    async def main():
        told = Told(Refused("429", retry_after_s=60))
        outbox = Outbox(told, SETTINGS)
        worker = asyncio.create_task(outbox.work())
        outbox.put(note("a"))
        await asyncio.sleep(5)
        outbox.put(note("a", "b"))
        outbox.put(note("c", group="other"))
        await asyncio.sleep(50)
        assert told.at == [0]
        await asyncio.sleep(50)
        assert told.at == [0, 60, 60]
        assert sorted(told.names) == [["a", "b"], ["c"]]
        await outbox.close()
        await worker

    in_virtual_time(main())


def test_two_receivers_on_one_host_are_both_told():
    async def main():
        loop, told = asyncio.get_running_loop(), [Told(), Told(), Told()]
        alerting = Alerting(SETTINGS, Poster(1), links="", now=loop.time, more=told)
        running = asyncio.create_task(alerting.run())
        alerting.offer([Opened(finding(since=0.0))])
        await asyncio.sleep(10)
        assert [one.names for one in told] == [[["web"]]] * 3
        names = [outbox.name for outbox in alerting.outboxes]
        assert names == ["log", "told", "told (2)", "told (3)"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    in_virtual_time(main())


def test_webhooks_of_one_host_have_an_outbox_each():
    settings = Alerts(
        webhooks=(Webhook(url="https://hooks.example.com/1"), Webhook(url="https://hooks.example.com/2")),
        alertmanagers=(Alertmanager(url="http://mimir/a"), Alertmanager(url="http://mimir/b")),
    )

    async def main():
        return [one.name for one in Alerting(settings, Poster(1), links="", now=lambda: 0.0).outboxes]

    assert in_virtual_time(main()) == [
        "log", "alertmanager at mimir", "alertmanager at mimir (2)",
        "webhook at hooks.example.com", "webhook at hooks.example.com (2)",
    ]  # fmt: skip


class Slow:
    """In the place of a poster: every request takes a while."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.ends = []

    async def post(self, url, alerts):
        await asyncio.sleep(self.seconds)
        at = asyncio.get_running_loop().time()
        self.ends.append([(one["labels"]["name"], one["endsAt"], at) for one in alerts])


def test_an_alert_that_is_over_is_not_sent_again_by_a_resend_that_is_under_way():
    async def main():
        loop, slow = asyncio.get_running_loop(), Slow(3)
        settings = Alerts(
            alertmanagers=(Alertmanager(url="http://x", resend_s=20, expire_s=100, batch=1),),
            group_wait_s=1, hold_s={},
        )  # fmt: skip
        alerting = Alerting(settings, slow, links="", now=loop.time)
        running = asyncio.create_task(alerting.run())
        many = [finding(name, since=0.0) for name in ("a", "b", "c", "d")]
        alerting.offer([Opened(one) for one in many])
        await asyncio.sleep(22)
        # The first batch of the resend is on its way.
        alerting.offer([Resolved(one, 22.0) for one in many[1:]])
        await asyncio.sleep(30)
        told = [one for request in slow.ends for one in request if one[0] == "d"]
        assert told[0][1] == "1970-01-01T00:01:41.000Z"
        assert [ends for _, ends, _ in told[1:]] == ["1970-01-01T00:00:22.000Z"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    in_virtual_time(main())


def test_a_resend_waits_as_long_as_the_receiver_wants_it_to():
    class Busy(Slow):
        async def post(self, url, alerts):
            await super().post(url, alerts)
            if len(self.ends) == 1:
                raise Refused("429", retry_after_s=100)

    async def main():
        loop, busy = asyncio.get_running_loop(), Busy(0)
        settings = Alerts(
            alertmanagers=(Alertmanager(url="http://x", resend_s=20, expire_s=100),),
            group_wait_s=1,
            hold_s={},
        )
        alerting = Alerting(settings, busy, links="", now=loop.time)
        running = asyncio.create_task(alerting.run())
        alerting.offer([Opened(finding(since=0.0))])
        await asyncio.sleep(90)
        assert len(busy.ends) == 1
        await asyncio.sleep(30)
        assert [at for request in busy.ends for _, _, at in request][1] == 101
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    in_virtual_time(main())


async def test_control_characters_of_an_answer_do_not_reach_the_log():
    async with AlertReceiver() as server, Poster(5) as poster:
        server.answers = [(500, {})]
        server.text = "\x1b[2Jall\nis well\x9b"
        with pytest.raises(Refused) as refused:
            await poster.post(server.url, {})
        assert str(refused.value).endswith("answered 500: \\x1b[2Jall\\nis well\\x9b")


def test_what_is_not_wanted_at_all_is_dropped(caplog):
    told = Told(Refused("400", final=True))
    counts = in_virtual_time(delivered(told, note("a")))
    assert told.at == [0]
    assert counts.dropped == 1
    assert [record.message for record in caplog.records] == ["alert given up"]


def test_it_is_given_up_after_a_while():
    told = Told(*(Refused("503") for _ in range(100)))
    counts = in_virtual_time(delivered(told, note("a")))
    assert counts.dropped == 1
    assert 100 < told.at[-1] < 140


def test_a_receiver_that_breaks_delays_no_other_notification():
    told = Told(ZeroDivisionError("oops"))
    counts = in_virtual_time(delivered(told, note("a"), note("b", group="other")))
    assert sorted(told.names) == [["a"], ["b"]]
    assert counts.failed == 1


def test_notifications_of_a_group_are_merged_while_they_wait():
    told = Told()
    in_virtual_time(delivered(told, note("a"), note("b")))
    assert told.names == [["a", "b"]]


def test_only_so_many_groups_wait():
    told = Told()
    counts = in_virtual_time(delivered(told, *(note("a", group=name) for name in "xyz")))
    assert len(told.names) == 2
    assert counts.dropped == 1


def test_alerting_tells_after_the_wait_and_the_end_when_it_stops():
    async def main():
        loop, told = asyncio.get_running_loop(), Told()
        alerting = Alerting(SETTINGS, Poster(1), links="", now=loop.time, more=[told])
        running = asyncio.create_task(alerting.run())
        await asyncio.sleep(10)
        one = finding(since=10.0)
        alerting.offer([Opened(one)])
        await asyncio.sleep(10)
        assert (told.at, told.names) == ([11], [["web"]])
        alerting.offer([Resolved(one, 20)])
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert told.names == [["web"], []]

    in_virtual_time(main())


# -- over HTTP -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "final", "retry_after_s"),
    [
        (503, {"Retry-After": "7"}, False, 7),
        (429, {}, False, None),
        (408, {}, False, None),
        (
            500,
            {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:27:10 GMT"},
            False,
            50,
        ),
        (
            503,
            {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:30:00 GMT"},
            False,
            0,
        ),
        (503, {"Retry-After": "soon"}, False, None),
        (401, {}, False, None),
        (403, {}, False, None),
        (404, {}, False, None),
        (302, {"Location": "/elsewhere"}, False, None),
        (400, {}, True, None),
        (413, {}, True, None),
    ],
)
async def test_what_an_answer_means(status, headers, final, retry_after_s):
    async with AlertReceiver() as server, Poster(5) as poster:
        server.answers = [(status, headers)]
        with pytest.raises(Refused, match=f"answered {status}: told you") as refused:
            await poster.post(f"{server.url}/services/secret-part", {})
        assert (refused.value.final, refused.value.retry_after_s) == (final, retry_after_s)
        assert "secret-part" not in str(refused.value)
        assert len(server.bodies) == 1


async def test_nobody_there_is_no_secret_either():
    async with Poster(5) as poster:
        with pytest.raises(Refused, match=r"^127.0.0.1:1 cannot be reached: ClientConnectorError$"):
            await poster.post("http://user:secret@127.0.0.1:1/secret", {})
        with pytest.raises(Refused, match="cannot be reached: InvalidUrl"):
            await poster.post("no url", {})


async def test_alerts_in_batches_with_ends():
    async with AlertReceiver() as server, Poster(5) as poster:
        settings = Alertmanager(url=f"{server.url}/", batch=2, resend_s=10, expire_s=30)
        receiver = AlertmanagerReceiver(settings, poster, links="", now=lambda: 1000.0)
        over = Resolved(finding("c"), 990)
        await receiver.tell(Notification(Group("warning", "shop"), (finding("a"), finding("b")), (over,)))
        assert [path for path, _ in server.bodies] == ["/api/v2/alerts"] * 2
        alerts = [alert for _, body in server.bodies for alert in body]
        assert [(one["labels"]["name"], one["endsAt"]) for one in alerts] == [
            ("a", "1970-01-01T00:17:10.000Z"),
            ("b", "1970-01-01T00:17:10.000Z"),
            ("c", "1970-01-01T00:16:30.000Z"),
        ]


async def test_a_message_arrives():
    async with AlertReceiver() as server, Poster(5) as poster:
        await WebhookReceiver(Webhook(url=f"{server.url}/hook"), poster).tell(note("a"))
        [(path, body)] = server.bodies
        assert path == "/hook"
        assert set(body) == {"text", "blocks"}


async def test_alerts_that_last_are_sent_again():
    async with AlertReceiver() as server, Poster(5) as poster:
        settings = Alerts(
            alertmanagers=(Alertmanager(url=server.url, resend_s=0.05, expire_s=60),),
            group_wait_s=0,
            hold_s={},
        )
        alerting = Alerting(settings, poster, links="http://api", now=lambda: 1000.0)
        running = asyncio.create_task(alerting.run())
        alerting.offer([Opened(finding(since=990.0))])
        async with asyncio.timeout(30):
            while len(server.bodies) < 3:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert all(body == server.bodies[0][1] for _, body in server.bodies)


def test_alerts_must_not_expire_before_they_are_sent_again():
    with pytest.raises(ValueError, match="at least twice resend_s"):
        Alertmanager(url="http://x", resend_s=60, expire_s=100)
