"""What receivers are sent: Alertmanager's alerts, Slack-style messages, lines of text. Pure.

Alertmanager: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml (postableAlerts). Its identity
of an alert is its labels, so labels have nothing in them that changes while a finding lasts, except for the severity.
Slack: https://api.slack.com/reference/block-kit/blocks; a message has at most 50 blocks, a section 3 000 characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from .findings import Finding, Resolved
from .grouping import Notification

SECTION_CHARS_MAX = 2900
BLOCKS_MAX = 48
DESCRIPTION_CHARS_MAX = 8000
MARKS = {"critical": ":red_circle:", "warning": ":large_orange_circle:", "info": ":large_blue_circle:"}


def timestamp(at: float) -> str:
    """Seconds since 1970 as RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- Alertmanager --------------------------------------------------------------------------------------------


def alert_name(check: str) -> str:
    """``route_down`` is ``GatewayRouteDown``."""
    return "Gateway" + "".join(part.capitalize() for part in check.split("_"))


def labels(finding: Finding) -> dict[str, str]:
    """By which Alertmanager knows it, and by which people route and silence it."""
    subject = finding.subject
    made = {
        "alertname": alert_name(finding.check),
        "severity": finding.severity,
        "namespace": subject.namespace,
        "resource": subject.resource,
        "name": subject.name,
        "fingerprint": finding.fingerprint,
    }
    return {name: value for name, value in made.items() if value}


def alert(finding: Finding, *, ends_at: float, generator_url: str) -> dict[str, Any]:
    """One of ``postableAlerts``."""
    return {
        "labels": labels(finding),
        "annotations": {
            "summary": finding.summary,
            "description": "\n".join(explanation(finding))[:DESCRIPTION_CHARS_MAX],
        },
        "startsAt": timestamp(finding.since),
        "endsAt": timestamp(ends_at),
        "generatorURL": generator_url,
    }


def generator_url(base: str, finding: Finding) -> str:
    """Where the object is: its path at the API server, below `base`; "" without a base. What is about a whole resource,
    or a whole group, leads there.
    """
    if not base:
        return ""
    subject = finding.subject
    plural, _, group = subject.resource.partition(".")
    if plural == "*":
        return f"{base.rstrip('/')}/apis/{group}"
    version = finding.api_version or (f"{group}/v1" if group else "v1")
    root = f"apis/{version}" if group else f"api/{version}"
    inside = f"namespaces/{subject.namespace}/" if subject.namespace else ""
    name = "" if not subject.namespace and subject.name == subject.resource else f"/{subject.name}"
    return f"{base.rstrip('/')}/{root}/{inside}{plural}{name}"


# -- Slack ---------------------------------------------------------------------------------------------------


def slack_message(notification: Notification, *, shown_max: int) -> dict[str, Any]:
    """The body for an incoming webhook; `text` is what notifications on a telephone show."""
    headline = title(notification)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": headline[:150], "emoji": True}}
    ]
    blocks += [
        _section(f"{MARKS[finding.severity]} *{_escaped(finding.summary)}*", explanation(finding))
        for finding in notification.firing[:shown_max]
    ]
    blocks += [
        _section(f":white_check_mark: {_escaped(resolution(resolved))}", ())
        for resolved in notification.resolved[:shown_max]
    ]
    hidden = max(0, len(notification.firing) - shown_max) + max(0, len(notification.resolved) - shown_max)
    if len(blocks) > BLOCKS_MAX:
        hidden += len(blocks) - BLOCKS_MAX
        blocks = blocks[:BLOCKS_MAX]
    if hidden:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": f"and {hidden} more"}]})
    return {"text": _escaped(headline), "blocks": blocks}


def _section(head: str, lines: Iterable[str]) -> dict[str, Any]:
    body = "\n".join(_escaped(line) for line in lines).replace("```", "'''")
    if len(body) > SECTION_CHARS_MAX - len(head):
        body = body[: max(0, SECTION_CHARS_MAX - len(head) - 2)] + " …"
    text = f"{head[:SECTION_CHARS_MAX]}\n```{body}```" if body else head[:SECTION_CHARS_MAX]
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _escaped(text: str) -> str:
    """As Slack asks for; also keeps object names from mentioning ``<!channel>``."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# -- text ----------------------------------------------------------------------------------------------------


def title(notification: Notification) -> str:
    """One line about a notification."""
    told = []
    if notification.firing:
        told.append(f"{len(notification.firing)} {'still open' if notification.repeated else 'open'}")
    if notification.resolved:
        told.append(f"{len(notification.resolved)} resolved")
    return f"[{notification.group}] API gateway: {', '.join(told)}"


def resolution(resolved: Resolved) -> str:
    """One line about the end of a finding."""
    finding = resolved.finding
    return f"over after {resolved.at - finding.since:.0f} s: {finding.summary}"


def explanation(finding: Finding) -> list[str]:
    """What there is to say below the summary."""
    return [*finding.details, *(str(change) for change in finding.changes)]


def lines(notification: Notification) -> list[str]:
    """A notification as text, the headline first."""
    made = [title(notification)]
    for finding in notification.firing:
        made.append(f"  {finding.severity} {finding.check}: {finding.summary}")
        made += [f"      {line}" for line in explanation(finding)]
    made += [f"  resolved {one.finding.check}: {resolution(one)}" for one in notification.resolved]
    return made
