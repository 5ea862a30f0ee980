"""Which changes relax a policy, rule by rule, over the policies of the recorded cluster."""

import pytest
from gateway_monitor.relaxation import relaxed
from gateway_monitor.settings import RULES, Rule
from support.gateway_objects import authn, limit, security


def why(plural, good, now):
    return [one.why for one in relaxed(RULES[plural], good, now, 2.0)]


@pytest.mark.parametrize(
    ("rate", "found"),
    [
        (100, []),
        (10, []),
        (200, []),
        (201, ["/spec/requestsPerSecond was raised from 100 to 201, 2 times as much"]),
        (100000, ["/spec/requestsPerSecond was raised from 100 to 100,000, 1,000 times as much"]),
        ("500", ["/spec/requestsPerSecond was raised from 100 to 500, 5 times as much"]),
        (None, ["/spec/requestsPerSecond was taken away: it was 100"]),
        ("unlimited", ["/spec/requestsPerSecond is no number any more: it was 100"]),
    ],
)
def test_a_limit(rate, found):
    assert why("ratelimitpolicies", limit(), limit(rate=rate)) == found


def test_a_limit_that_was_zero_may_not_be_raised():
    assert why("ratelimitpolicies", limit(rate=0), limit(rate=1)) == [
        "/spec/requestsPerSecond was raised from 0 to 1"
    ]


def test_a_limit_for_another_route():
    [found] = why("ratelimitpolicies", limit(), limit(target="else"))
    assert found.startswith("/spec/targetRef was changed from")


JWT = {"issuer": "https://id.example.com", "audiences": ["shop"]}


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"jwt": JWT}, []),
        (
            {},
            [
                "/spec/jwt was taken away",
                "/spec/jwt/issuer was taken away",
                "/spec/jwt/audiences was taken away",
            ],
        ),
        ({"jwt": JWT, "optional": True}, ["/spec/optional was made optional"]),
        ({"jwt": {**JWT, "optional": "true"}}, ["/spec/jwt/optional was made optional"]),
        ({"jwt": JWT, "enabled": False}, ["/spec/enabled was turned off"]),
        ({"jwt": JWT, "mode": "Disabled"}, ["/spec/mode was turned off"]),
        ({"jwt": JWT, "mode": "strict"}, []),
        (
            {"jwt": {**JWT, "audiences": []}},
            ["/spec/jwt/audiences was taken away: only what it named was accepted"],
        ),
        ({"jwt": {**JWT, "audiences": ["shop", "*"]}}, ["/spec/jwt/audiences also accepts *"]),
        ({"jwt": {**JWT, "issuer": "https://evil.example.net"}}, ["/spec/jwt/issuer was changed from"]),
        ({"jwt": {**JWT, "jwksUri": "https://evil.example.net"}}, ["/spec/jwt was changed in jwksUri"]),
    ],
)
def test_authentication(spec, found):
    told = why("authnpolicies", authn(), authn(spec=spec))
    assert len(told) == len(found)
    assert all(line.startswith(start) for line, start in zip(told, found, strict=True))


def test_stricter_authentication_is_no_relaxation():
    both = {"jwt": {**JWT, "audiences": ["shop", "web"]}}
    assert why("authnpolicies", authn(spec=both), authn()) == []


@pytest.mark.parametrize(
    ("good", "now", "found"),
    [
        (["10.0.0.0/8"], ["10.0.0.0/8", "192.0.2.0/24"], []),
        (["10.0.0.0/8"], ["10.0.0.0/9", "10.128.0.0/9"], []),
        (["10.0.0.0/8"], ["0.0.0.0/0"], []),
        (["10.0.0.0/8"], ["10.0.0.0/9"], ["/spec/denyCIDRs no longer denies 10.0.0.0/8"]),
        (["10.0.0.0/8", "2001:db8::/32"], ["10.0.0.0/8"], ["/spec/denyCIDRs no longer denies 2001:db8::/32"]),
        (["2001:db8::/48"], ["2001:db8::/32"], []),
        (["not a network"], ["not a network"], []),
        (["not a network"], [], ["/spec/denyCIDRs no longer denies not a network"]),
    ],
)
def test_denied_networks(good, now, found):
    assert why("securitypolicies", security(deny=good), security(deny=now)) == found


@pytest.mark.parametrize(
    ("good", "now", "found"),
    [
        ("block", "block", []),
        ("detect", "block", []),
        ("block", "detect", ["/spec/wafMode went from block down to detect"]),
        ("block", "Off", ["/spec/wafMode went from block down to off"]),
        ("off", "whatever", []),
        ("block", "log", ['/spec/wafMode became "log", which is none of off, detect, block: it was block']),
        ("block", None, ["/spec/wafMode was taken away: it was block"]),
    ],
)
def test_the_mode_of_the_firewall(good, now, found):
    assert why("securitypolicies", security(waf=good), security(waf=now)) == found


@pytest.mark.parametrize(
    ("good", "now", "found"),
    [
        (["10.0.0.0/8"], ["10.1.0.0/16"], []),
        (["10.0.0.0/8"], ["10.0.0.0/8", "0.0.0.0/0"], ["/spec/allowCIDRs also allows 0.0.0.0/0"]),
        (["10.0.0.0/8"], [], ["/spec/allowCIDRs was taken away: it allowed only what it named"]),
        ([], ["10.0.0.0/8"], []),
    ],
)
def test_allowed_networks(good, now, found):
    def policy(allowed):
        made = security()
        made["spec"]["allowCIDRs"] = allowed
        return made

    assert why("securitypolicies", policy(good), policy(now)) == found


def test_an_order_belongs_to_the_rules_that_have_one():
    for wrong in ({"sort": "ordered"}, {"sort": "limit", "order": ("a",)}):
        with pytest.raises(ValueError, match="`order` goes with sort `ordered`"):
            Rule(path="/spec/x", **wrong)


def test_values_of_fields_that_look_like_secrets_are_not_told():
    rules = (Rule(path="/spec/apiKeys", sort="accept"), Rule(path="/spec/signingKey", sort="required"))
    good, now = (
        {"spec": {"apiKeys": keys, "signingKey": keys[-1]}} for keys in (["hunter1"], ["hunter1", "hunter2"])
    )
    assert [one.why for one in relaxed(rules, good, now, 2.0)] == [
        "/spec/apiKeys became laxer; its values are not shown",
        "/spec/signingKey became laxer; its values are not shown",
    ]
