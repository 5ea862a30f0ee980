"""What receivers are sent: alerts as Alertmanager takes them, Slack-style messages within their limits."""

import json

from gateway_monitor.diff import ShownChange
from gateway_monitor.findings import Finding, Resolved, Subject
from gateway_monitor.grouping import Group, Notification
from gateway_monitor.messages import (
    BLOCKS_MAX,
    alert,
    alert_name,
    generator_url,
    labels,
    lines,
    slack_message,
)

ROUTE = Subject("apiroutes.gateway.example.com", "shop", "web")
DOWN = Finding(
    check="route_down",
    subject=ROUTE,
    severity="critical",
    summary="route shop/web is down: <!channel> & more",
    details=("pod shop/web-1: ```CrashLoopBackOff```",),
    changes=(ShownChange("/spec/host", '"a"', '"b"'),),
    since=1763629200.5,
)
GROUP = Group("critical", "shop")


def test_an_alert_is_what_alertmanager_takes():
    made = alert(DOWN, ends_at=1763629260, generator_url="http://api/x")
    assert made == {
        "labels": {
            "alertname": "GatewayRouteDown",
            "severity": "critical",
            "namespace": "shop",
            "resource": "apiroutes.gateway.example.com",
            "name": "web",
            "fingerprint": DOWN.fingerprint,
        },
        "annotations": {
            "summary": DOWN.summary,
            "description": 'pod shop/web-1: ```CrashLoopBackOff```\n/spec/host: "a" -> "b"',
        },
        "startsAt": "2025-11-20T09:00:00.500Z",
        "endsAt": "2025-11-20T09:01:00.000Z",
        "generatorURL": "http://api/x",
    }


def test_labels_have_nothing_in_them_that_changes():
    other = Finding(check="route_down", subject=ROUTE, severity="critical", summary="other", since=5)
    assert labels(other) == labels(DOWN)
    cluster = Finding(
        check="resource_unreadable", subject=Subject("pods", "", "pods"), severity="info", summary="x"
    )
    assert "namespace" not in labels(cluster)
    assert alert_name("limit_out_of_bounds") == "GatewayLimitOutOfBounds"


def about(subject, api_version=""):
    return Finding(check="route_down", subject=subject, severity="info", summary="x", api_version=api_version)


def test_links_lead_to_the_object():
    assert generator_url("https://api:6443/", about(ROUTE, "gateway.example.com/v2beta1")) == (
        "https://api:6443/apis/gateway.example.com/v2beta1/namespaces/shop/apiroutes/web"
    )
    assert generator_url("https://api", about(ROUTE)).endswith(
        "/apis/gateway.example.com/v1/namespaces/shop/apiroutes/web"
    )
    assert generator_url("https://api", about(Subject("nodes", "", "n"))) == "https://api/api/v1/nodes/n"
    assert generator_url("", about(ROUTE)) == ""


def test_links_about_what_cannot_be_seen_lead_to_all_of_it():
    assert generator_url("https://api", about(Subject("pods", "", "pods"), "v1")) == "https://api/api/v1/pods"
    group = Subject("*.gateway.example.com", "", "gateway.example.com")
    assert generator_url("https://api", about(group)) == "https://api/apis/gateway.example.com"


def test_a_message_for_a_chat():
    message = slack_message(Notification(GROUP, (DOWN,), (Resolved(DOWN, DOWN.since + 90),)), shown_max=5)
    assert message["text"] == "[critical in shop] API gateway: 1 open, 1 resolved"
    header, firing, resolved = message["blocks"]
    assert header["text"]["type"] == "plain_text"
    text = firing["text"]["text"]
    assert text.startswith(":red_circle: *route shop/web is down: &lt;!channel&gt; &amp; more*\n```")
    assert text.count("```") == 2
    assert "over after 90 s" in resolved["text"]["text"]
    json.dumps(message)


def test_a_message_keeps_within_the_limits():
    many = tuple(
        Finding(
            check="field_changed",
            subject=Subject("x", "shop", f"n{number}"),
            severity="info",
            summary="s" * 4000,
            details=("d" * 5000,),
        )
        for number in range(80)
    )
    message = slack_message(Notification(GROUP, many), shown_max=70)
    assert len(message["blocks"]) <= 50
    assert all(len(block["text"]["text"]) <= 3000 for block in message["blocks"][:BLOCKS_MAX])
    assert message["blocks"][-1]["elements"][0]["text"] == "and 33 more"


def test_text_for_the_log():
    assert lines(Notification(GROUP, (DOWN,), repeated=True)) == [
        "[critical in shop] API gateway: 1 still open",
        "  critical route_down: route shop/web is down: <!channel> & more",
        "      pod shop/web-1: ```CrashLoopBackOff```",
        '      /spec/host: "a" -> "b"',
    ]
