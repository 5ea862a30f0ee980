import pytest

from shoal.coordinator.patterns import parse_pattern, parse_resource_name
from shoal.shards.model.resources import Resource

PODS = Resource("", "v1", "pods")
EVENTS = Resource("", "v1", "events")
NEW_EVENTS = Resource("events.k8s.io", "v1", "events")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
ROUTES = Resource("gateway.example.com", "v1beta1", "routes")
WIDGETS = Resource("example.com", "v1", "widgets")
EVERY = {PODS, EVENTS, NEW_EVENTS, DEPLOYMENTS, ROUTES, WIDGETS}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("*", EVERY),
        ("pods", {PODS}),
        ("events", {EVENTS, NEW_EVENTS}),
        ("v1/events", {EVENTS}),
        ("events.events.k8s.io", {NEW_EVENTS}),
        ("apps/*", {DEPLOYMENTS}),
        ("apps/v1/deployments", {DEPLOYMENTS}),
        ("apps/v2/deployments", set()),
        ("deployments.apps", {DEPLOYMENTS}),
        ("*.gateway.example.com", {ROUTES}),
        ("*.example.com", {WIDGETS}),
        ("*.*.example.com", {ROUTES}),
        ("*example.com/*", {ROUTES, WIDGETS}),
        ("v1/*", {PODS, EVENTS}),
        ("*/v1beta1/*", {ROUTES}),
        ("*s.events.k8s.io", {NEW_EVENTS}),
        ("po*", {PODS}),
    ],
)
def test_a_pattern_means_these_resources(text, meant):
    pattern = parse_pattern(text)
    assert {resource for resource in EVERY if pattern.matches(resource)} == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Pod", "lower case, such as 'pods'"),
        ("", "expected NAME, NAME.GROUP"),
        ("a/b/c/d", "expected NAME, NAME.GROUP"),
        ("apps/", "expected NAME, NAME.GROUP"),
        ("deployments.", "nothing after the dot"),
        ("pods!", "'pods!' cannot be a part of one"),
        ("apps/v1/deploy ments", "'deploy ments' cannot be a part of one"),
        ("-pods", "cannot be a part of one"),
    ],
)
def test_what_is_no_pattern_is_refused_with_what_was_expected(text, message):
    with pytest.raises(ValueError, match="is not a resource pattern") as caught:
        parse_pattern(text)
    assert message in str(caught.value)


def test_a_resource_name_means_one_resource():
    assert parse_resource_name("deployments.apps").matches(DEPLOYMENTS)
    with pytest.raises(ValueError, match=r"has a \*"):
        parse_resource_name("*.apps")
