"""The demonstration's own honesty: what was not seen is said, and what a real receiver would refuse is refused."""

import aiohttp
import pytest
from gateway_monitor.demo import summarize
from gateway_monitor.findings import Finding, Opened, Resolved, Subject
from gateway_monitor.receivers import ALERTS, HOOK, Received, listening
from gateway_monitor.scenario import GROUP, NAMESPACE, Stage
from support.apiserver import in_virtual_time

DOWN = Finding(
    check="route_down",
    subject=Subject(f"apiroutes.{GROUP}", NAMESPACE, "web"),
    severity="critical",
    summary="down",
)


def test_what_was_not_seen_is_not_detected(capsys):
    said = []

    async def main():
        stage = Stage(said.append)
        stage.take_transitions([Opened(DOWN)])
        await stage.expects("an outage", lambda: stage.opened("route_down", "apiroutes", "web").summary)
        await stage.expects("its end", lambda: stage.resolved("route_down", "apiroutes", "web"))
        await stage.expects("another", lambda: stage.opened("route_down", "apiroutes", "else"))
        assert not summarize(stage, 1.0)
        stage.take_transitions([Resolved(DOWN, 9)])
        assert stage.resolved("route_down", "apiroutes", "web", since=0) == DOWN
        assert stage.opened("route_down", "apiroutes", "web", since=stage.mark()) is None

    in_virtual_time(main())
    assert [line for line in said if "NOT SEEN" in line] == [
        "  NOT SEEN within 15 s: its end",
        "  NOT SEEN within 15 s: another",
    ]
    shown = capsys.readouterr().out.splitlines()
    assert shown[-3:-1] == ["expected  3", "detected  1"]
    assert sum("NOT DETECTED" in line for line in shown) == 2


def test_everything_seen_is_detected(capsys):
    async def main():
        stage = Stage(lambda _: None)
        await stage.expects("something", lambda: "it is there")
        assert summarize(stage, 1.0)

    in_virtual_time(main())
    assert "it is there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (ALERTS, [], 200),
        (ALERTS, [{"labels": {"alertname": "x", "name": "y"}}], 400),
        (ALERTS, {"alerts": []}, 400),
        (HOOK, {"text": "hello"}, 200),
        (HOOK, {"blocks": []}, 400),
    ],
)
async def test_receivers_refuse_what_real_ones_would(path, body, status):
    async with (
        listening(Received(lambda: None)) as url,
        aiohttp.ClientSession() as session,
        session.post(url + path, json=body) as answer,
    ):
        assert answer.status == status
