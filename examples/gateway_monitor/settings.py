"""Settings of the monitor: plain frozen values, from a YAML file or as they stand here.

``settings.yaml`` beside this file shows all of them. A field that is not known, or of another type, is an error that
names it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import Meta, field

from .documents import parts
from .findings import Check, Restorable

LONGEST_S = 315_360_000.0
"""Ten years: what is meant to be longer is meant to be never, and that is said in another way."""
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_S)]
Positive = Annotated[float, Meta(gt=0, le=LONGEST_S)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class SettingsInvalid(Exception):  # noqa: N818 - read as a sentence
    """A settings file that cannot be used; the message says which, where and why."""


def _field_of_object(path: str) -> None:
    """Raises ValueError: not a JSON pointer to something that is kept of an object."""
    for part in path.split("/")[1:] if path.startswith("/") else ():
        if not part or part.replace("~0", "").replace("~1", "").count("~"):
            raise ValueError(
                f"{path!r} is no JSON pointer to a field: each part has a name, with ~0 for ~ and ~1 for /"
            )
    where = parts(path)
    if where[:1] != ("spec",) and where[:2] != ("metadata", "labels"):
        raise ValueError(f"{path}: expected a field of /spec or /metadata/labels")


def _is_url(setting: str, url: str) -> None:
    """Raises ValueError: it is none that can be posted to. The message does not show it: it may be a secret."""
    found = urlsplit(url)
    if found.scheme not in ("http", "https") or not found.hostname:
        raise ValueError(f"{setting}: expected a URL that begins with http:// or https:// and a host")


class Production(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as production: an object that any of these selects, in its present or in its last good state."""

    labels: dict[str, str] = field(default_factory=lambda: {"env": "production"})
    """One of these labels."""
    annotations: dict[str, str] = {}
    """One of these annotations."""
    namespaces: tuple[str, ...] = ()
    """Shell patterns: ``*-prod``."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Between which values a limit has to be; None: no bound on that side."""

    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError: nothing can be between them, or everything."""
        for name, bound in (("least", self.least), ("most", self.most)):
            if bound is not None and not math.isfinite(bound):
                raise ValueError(f"{name} is {bound}: expected a finite number; leave it out for no bound")
        if self.least is None and self.most is None:
            raise ValueError("bounds that bound nothing: give `least`, `most` or both")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least is {self.least:g}: expected at most `most` ({self.most:g})")


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field of a policy, and which changes of it relax the policy.

    =========== =============================================================================================
    sort        relaxed by
    =========== =============================================================================================
    limit       a number raised to more than `limit_factor` times the good one, or taken away
    required    being taken away, emptied, or changed in anything but the fields of other rules below it
    off         ``false``, ``off``, ``disabled``, ``none`` where something else stood or nothing
    optional    ``true`` or ``optional`` where something else stood or nothing
    ordered     going down in `order`, being taken away, or becoming something that is not in it
    deny        a network or text that is no longer covered
    allow       a network or text that was not covered; or the whole list being taken away
    accept      an element that was not there; or the whole list being taken away
    =========== =============================================================================================
    """

    path: str
    """A JSON pointer."""
    sort: Literal["limit", "required", "off", "optional", "ordered", "deny", "allow", "accept"]
    order: tuple[str, ...] = ()
    """Of `ordered`: from lax to strict."""

    def __post_init__(self) -> None:
        """Raises ValueError: the path is no pointer, or an order is missing."""
        _field_of_object(self.path)
        if (self.sort == "ordered") != bool(self.order):
            raise ValueError(f"rule {self.path}: `order` goes with sort `ordered`, and with no other")


RULES: dict[str, tuple[Rule, ...]] = {
    "ratelimitpolicies": (
        Rule(path="/spec/requestsPerSecond", sort="limit"),
        Rule(path="/spec/burst", sort="limit"),
        Rule(path="/spec/enabled", sort="off"),
        Rule(path="/spec/targetRef", sort="required"),
    ),
    "authnpolicies": (
        Rule(path="/spec/jwt", sort="required"),
        Rule(path="/spec/jwt/issuer", sort="required"),
        Rule(path="/spec/jwt/audiences", sort="accept"),
        Rule(path="/spec/jwt/optional", sort="optional"),
        Rule(path="/spec/optional", sort="optional"),
        Rule(path="/spec/allowAnonymous", sort="optional"),
        Rule(path="/spec/enabled", sort="off"),
        Rule(path="/spec/mode", sort="off"),
        Rule(path="/spec/targetRef", sort="required"),
    ),
    "securitypolicies": (
        Rule(path="/spec/denyCIDRs", sort="deny"),
        Rule(path="/spec/allowCIDRs", sort="allow"),
        Rule(path="/spec/wafMode", sort="ordered", order=("off", "detect", "block")),
        Rule(path="/spec/enabled", sort="off"),
        Rule(path="/spec/targetRef", sort="required"),
    ),
}


LIMITS: dict[str, dict[str, Bounds]] = {
    "ratelimitpolicies": {
        "/spec/requestsPerSecond": Bounds(least=1, most=5000),
        "/spec/burst": Bounds(least=1, most=10_000),
    },
    "apiroutes": {"/spec/timeoutMs": Bounds(least=1, most=120_000)},
}


class Checks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wrong."""

    group: str = "gateway.example.com"
    """All custom resources of this group are followed, whichever there are."""
    routes: str = "apiroutes"
    """Plural name of what has a backend: ``spec.backend.service`` and ``.port``."""
    rules: dict[str, tuple[Rule, ...]] = field(default_factory=lambda: dict(RULES))
    """What relaxes a policy, by plural name. Given, it replaces the one that is built in."""
    limit_factor: Annotated[float, Meta(gt=1, le=1e12)] = 2.0
    """A limit raised to more than so many times the good one is a relaxed policy."""
    limits: dict[str, dict[str, Bounds]] = field(default_factory=lambda: dict(LIMITS))
    """By plural name and JSON pointer: bounds that hold whatever the last good state was."""
    compared: tuple[str, ...] = ("/spec", "/metadata/labels")
    """Fields compared with the last good state."""
    production: Production = Production()
    pods_shown: Count = 10
    """Pods that a finding names; the others are counted."""
    forget_removed_s: Positive = 7 * 86_400.0
    """How long the last good state of an object that was deleted is remembered, and its removal complained of."""
    tombstone_s: Positive = 600.0
    """How long a late delivery about an object that was deleted is recognised as one."""

    def __post_init__(self) -> None:
        """Raises ValueError: a path is no pointer, or is below nothing that is kept."""
        for path in (*self.compared, *(path for bounds in self.limits.values() for path in bounds)):
            _field_of_object(path)


class Alertmanager(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An Alertmanager to tell."""

    url: str
    """Its base: ``http://alertmanager.monitoring:9093``; ``/api/v2/alerts`` is added."""
    resend_s: Positive = 60.0
    """Alerts are sent again so often, so that they do not expire."""
    expire_s: Positive = 240.0
    """An alert ends by itself so long after it was sent last: should the monitor die. At least 2 x `resend_s`."""
    batch: Count = 200
    """Alerts in one request."""

    def __post_init__(self) -> None:
        """Raises ValueError: alerts would expire before they are sent again, or the URL is none."""
        if self.expire_s < 2 * self.resend_s:
            raise ValueError(
                f"expire_s is {self.expire_s:g}: expected at least twice resend_s ({self.resend_s:g})"
            )
        _is_url("url of an Alertmanager", self.url)


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Slack-style incoming webhook."""

    url: str
    findings_shown: Count = 10
    """Findings in one message; the others are counted."""

    def __post_init__(self) -> None:
        """Raises ValueError: the URL is none."""
        _is_url("url of a webhook", self.url)


class Alerts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to tell, and how often."""

    alertmanagers: tuple[Alertmanager, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    group_wait_s: Seconds = 5.0
    """How long the first finding of a group (severity and namespace) waits for others."""
    repeat_s: Positive = 4 * 3600.0
    """A finding that has not changed is not told again before this."""
    hold_s: dict[Check, Seconds] = field(default_factory=lambda: {"route_down": 5.0})
    """By check: how long a finding has to last before anybody is told. A roll-out may leave a service empty for a
    moment."""
    timeout_s: Positive = 10.0
    """Of one request."""
    retry_first_s: Positive = 1.0
    retry_longest_s: Positive = 120.0
    """Delays between attempts double from the first to the longest; Retry-After is honoured, up to a day."""
    give_up_s: Positive = 3600.0
    """What could not be delivered for so long is dropped, logged and counted."""
    groups_max: Count = 1000
    """Groups of findings that wait to be told, at a receiver; more are dropped, oldest first, and counted."""
    generator_url: str = ""
    """Base of the links in alerts; empty: the API server's own URL for the object."""

    def __post_init__(self) -> None:
        """Raises ValueError: the base of links is no URL."""
        if self.generator_url:
            _is_url("generator_url", self.generator_url)


class Restore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which fields a forbidden change is put back."""

    fields: tuple[str, ...]
    """JSON pointers; a field below one of them counts."""
    recreate: bool = False
    """An object that was deleted is made again from its last good state."""

    def __post_init__(self) -> None:
        """Raises ValueError: a path is no pointer, or not one that may be written."""
        for path in self.fields:
            if path.startswith(("/spec", "/metadata/labels")):
                _field_of_object(path)
            if parts(path)[:1] != ("spec",) and parts(path)[:2] != ("metadata", "labels"):
                raise ValueError(f"{path}: only fields of /spec and /metadata/labels can be put back")


RESTORE: dict[str, Restore] = {
    plural: Restore(fields=("/spec",))
    for plural in ("ratelimitpolicies", "authnpolicies", "securitypolicies")
}


class Rollback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Putting changes back. Without `enforce` the patch is only shown, and checked by the server."""

    enforce: bool = False
    restore: dict[str, Restore] = field(default_factory=lambda: dict(RESTORE))
    """By plural name; nothing else is ever written to."""
    checks: tuple[Restorable, ...] = ("policy_relaxed", "limit_out_of_bounds", "production_route_removed")
    """Findings that make a change forbidden."""
    per_hour_max: Count = 3
    """Of one object. Whoever changes it more often than that means it, or is a program: then it is only alerted of."""
    delay_s: Seconds = 1.0
    """Between a change and its undoing, so that changes that belong together are undone together."""
    timeout_s: Positive = 10.0
    attempts_max: Count = 8
    """Of one undoing that the server refuses, with growing delays; then it is left alone for a quarter of an hour. A
    server that cannot be asked, or is busy, is asked again until it can be."""
    told_s: Positive = 900.0
    """How long the finding ``rollback_done`` lasts: what it is about is over before anybody could be told."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything."""

    checks: Checks = Checks()
    alerts: Alerts = Alerts()
    rollback: Rollback = Rollback()
    state_file: str = ""
    """Where last good states, and what people were told, are kept over restarts; empty: in memory alone."""
    audit_file: str = ""
    """Where a line is added for each rollback; empty: the log alone."""
    save_s: Positive = 5.0
    """The state file is written at most so often."""


def read_settings(path: str | Path) -> Settings:
    """Settings from a YAML file.

    Raises:
        SettingsInvalid: it cannot be read, is no YAML, or has a field that is unknown or has no such value.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return msgspec.convert(document if document is not None else {}, Settings)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise SettingsInvalid(f"settings file {path}: {error}") from error
