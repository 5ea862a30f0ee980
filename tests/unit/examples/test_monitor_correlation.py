"""The correlation model of the gateway monitor: what it finds, and when that is over."""

import pytest
from gateway_monitor.correlation import Model
from gateway_monitor.findings import Changed, Finding, Identity, Opened, Resolved, Subject
from gateway_monitor.settings import Bounds, Checks, Production
from support.gateway_objects import (
    AUTHN,
    LIMITS,
    PODS,
    ROUTES,
    SERVICES,
    SLICES,
    authn,
    custom,
    endpoints,
    limit,
    pod,
    route,
    service,
)


class World:
    """A model, told in order of what happens; every event is a second later."""

    def __init__(self, **settings):
        self.model = Model(Checks(**settings))
        self.now = 1000.0
        self.known = {}

    def is_there(self, *objects):
        for resource, document in objects:
            self.now += 1
            key = (resource, document["metadata"]["name"])
            old = self.known.get(key)
            document["metadata"]["resourceVersion"] = str(int(self.now))
            if old is None:
                self.model.added(resource, document, self.now)
            else:
                self.model.updated(resource, old, document, self.now)
            self.known[key] = document
        return self

    def gone(self, resource, name, **metadata):
        self.now += 1
        document = self.known.pop((resource, name))
        document["metadata"] |= {"resourceVersion": str(int(self.now)), **metadata}
        self.model.deleted(resource, document, self.now)
        return self

    def transitions(self):
        return self.model.evaluate(self.now)

    def found(self):
        self.transitions()
        return {identity.check: finding for identity, finding in self.model.findings.items()}


HEALTHY = (
    (ROUTES, route),
    (SERVICES, service),
    (SLICES, lambda: endpoints(ready=["web-1"])),
    (PODS, pod),
    (LIMITS, limit),
    (AUTHN, authn),
)


@pytest.fixture
def world():
    made = World().is_there(*((resource, make()) for resource, make in HEALTHY))
    assert made.transitions() == []
    return made


# -- routes --------------------------------------------------------------------------------------------------


def test_a_route_without_a_ready_endpoint_is_down_and_says_why(world):
    world.is_there(
        (SLICES, endpoints(unready=["web-1", "web-2"])), (PODS, pod(waiting="CrashLoopBackOff", restarts=7))
    )
    [opened] = world.transitions()
    assert opened == Opened(
        Finding(
            check="route_down",
            subject=Subject(ROUTES, "shop", "web"),
            severity="critical",
            summary="route shop/web is down: none of the 2 endpoints of service shop/web is ready",
            details=(
                "pod shop/web-1: container main CrashLoopBackOff (7 restarts)",
                "pod shop/web-2: there is no such pod",
            ),
            since=world.now,
            api_version="gateway.example.com/v1",
        )
    )


def test_it_is_over_when_one_endpoint_is_ready(world):
    world.is_there((SLICES, endpoints(unready=["web-1"])))
    [opened] = world.transitions()
    world.is_there((SLICES, endpoints(ready=["web-2"], unready=["web-1"])))
    assert world.transitions() == [Resolved(opened.finding, world.now)]
    assert world.model.findings == {}


def test_details_change_while_it_lasts_and_since_does_not(world):
    world.is_there((SLICES, endpoints(unready=["web-1"])))
    [opened] = world.transitions()
    world.is_there((PODS, pod(waiting="ImagePullBackOff")))
    [changed] = world.transitions()
    assert isinstance(changed, Changed)
    assert changed.finding.since == opened.finding.since
    assert changed.finding.details == ("pod shop/web-1: container main ImagePullBackOff",)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda w: w.gone(SERVICES, "web"), "there is no service shop/web"),
        (lambda w: w.gone(SLICES, "web-slice"), "service shop/web has no EndpointSlice"),
        (lambda w: w.is_there((SLICES, endpoints())), "service shop/web has no endpoints"),
        (
            lambda w: w.is_there((SLICES, endpoints(service="", ready=["x"]))),
            "service shop/web has no EndpointSlice",
        ),
        (lambda w: w.is_there((SERVICES, service(port=8080))), "service shop/web has no port 80"),
        (lambda w: w.is_there((ROUTES, route(service="else"))), "there is no service shop/else"),
        (lambda w: w.is_there((ROUTES, route(spec={"backend": None}))), "it names no service"),
    ],
)
def test_other_ways_to_be_down(world, change, why):
    change(world)
    assert world.found()["route_down"].summary == f"route shop/web is down: {why}"


def test_without_endpoints_the_pods_are_looked_at_that_the_service_selects(world):
    world.gone(SLICES, "web-slice").is_there(
        (PODS, pod("other", app="else")), (PODS, pod("web-2", waiting="Creating"))
    )
    assert world.found()["route_down"].details == (
        "pod shop/web-1: ready",
        "pod shop/web-2: container main Creating",
    )
    world.gone(PODS, "web-1").gone(PODS, "web-2")
    assert world.found()["route_down"].details == ("no pod matches its selector",)


@pytest.mark.parametrize(
    "up",
    [
        service(kind="ExternalName"),
        {"metadata": service()["metadata"], "spec": {"selector": {"app": "web"}}},
    ],
)
def test_a_service_that_is_elsewhere_or_names_no_ports_is_not_down(world, up):
    world.is_there((SERVICES, up))
    if up["spec"].get("type") == "ExternalName":
        world.gone(SLICES, "web-slice")
    assert "route_down" not in world.found()


@pytest.mark.parametrize("port", [80, "80", "http", None, True])
def test_a_port_by_number_or_name(world, port):
    world.is_there((ROUTES, route(port=port)))
    assert "route_down" not in world.found()


def test_an_endpoint_that_does_not_say_whether_it_is_ready_is(world):
    unsaid = endpoints(unready=["web-1"])
    unsaid["endpoints"][0]["conditions"] = {}
    world.is_there((SLICES, unsaid))
    assert world.found() == {}


def test_only_so_many_pods_are_named():
    world = World(pods_shown=2)
    world.is_there((ROUTES, route()), (SERVICES, service()), (SLICES, endpoints(unready=list("abcde"))))
    details = world.found()["route_down"].details
    assert details == (
        "pod shop/a: there is no such pod",
        "pod shop/b: there is no such pod",
        "and 3 more pods",
    )


def test_outside_of_production_it_is_a_warning(world):
    world.is_there((ROUTES, route("test", labels={"env": "staging"}, service="nothing")))
    assert world.found()["route_down"].severity == "warning"


def test_a_production_route_that_was_removed(world):
    world.gone(ROUTES, "web")
    found = world.found()
    assert found["production_route_removed"].summary == "production route shop/web was removed"
    assert found["production_route_removed"].details == ("it served web.example.com",)
    world.is_there((ROUTES, route(uid="another")))
    assert world.found() == {}


def test_taking_the_label_away_first_does_not_help(world):
    world.is_there((ROUTES, route(labels={})))
    found = world.found()["field_changed"]
    assert found.severity == "warning"
    assert [str(change) for change in found.changes] == ['/metadata/labels/env: "production" -> (absent)']
    world.gone(ROUTES, "web")
    assert set(world.found()) == {"production_route_removed"}


def test_a_removal_may_be_approved(world):
    world.gone(ROUTES, "web", annotations={"shoal.dev/removal-approved": "true"})
    assert world.found() == {}


def test_a_route_of_staging_may_be_removed(world):
    world.is_there((ROUTES, route("test", labels={"env": "staging"})))
    world.transitions()
    world.gone(ROUTES, "test")
    assert world.found() == {}


def test_a_removal_is_forgotten_after_a_while():
    world = World(forget_removed_s=60).is_there((ROUTES, route()), (SERVICES, service(kind="ExternalName")))
    world.transitions()
    world.gone(ROUTES, "web")
    assert set(world.found()) == {"production_route_removed"}
    assert world.model.evaluate(world.now + 59) == []
    [over] = world.model.evaluate(world.now + 61)
    assert isinstance(over, Resolved)
    assert len(world.model.good) == 0


def test_what_counts_as_production():
    by_namespace = World(production=Production(labels={}, namespaces=("sh*",)))
    by_namespace.is_there((ROUTES, route(labels={}, service="no")))
    assert by_namespace.found()["route_down"].severity == "critical"
    by_annotation = World(production=Production(labels={}, annotations={"tier": "1"}))
    by_annotation.is_there((ROUTES, route(labels={}, annotations={"tier": "1"}, service="no")))
    assert by_annotation.found()["route_down"].severity == "critical"


# -- policies ------------------------------------------------------------------------------------------------


def test_a_relaxed_policy_shows_the_fields(world):
    world.is_there((LIMITS, limit(rate=1000)))
    found = world.found()
    assert set(found) == {"policy_relaxed"}
    assert found["policy_relaxed"].severity == "critical"
    assert [str(change) for change in found["policy_relaxed"].changes] == [
        "/spec/requestsPerSecond: 100 -> 1000"
    ]


def test_a_change_that_relaxes_nothing_is_a_change(world):
    world.is_there((LIMITS, limit(rate=1000, burst=60)))
    found = world.found()
    assert set(found) == {"policy_relaxed", "field_changed"}
    assert [str(change) for change in found["field_changed"].changes] == ["/spec/burst: 50 -> 60"]


def test_bounds_hold_whatever_was_good_before():
    world = World(limits={"ratelimitpolicies": {"/spec/requestsPerSecond": Bounds(least=5, most=50)}})
    world.is_there((LIMITS, limit()))
    assert world.found()["limit_out_of_bounds"].details == (
        "/spec/requestsPerSecond is 100: at most 50 is allowed",
    )
    world.is_there((LIMITS, limit(rate=1)))
    assert world.found()["limit_out_of_bounds"].details == (
        "/spec/requestsPerSecond is 1: at least 5 is wanted",
    )
    world.is_there((LIMITS, limit(rate="many")))
    assert world.found()["limit_out_of_bounds"].details == ("/spec/requestsPerSecond is no number",)


def test_a_policy_that_was_removed_while_its_route_is_there(world):
    world.gone(AUTHN, "web")
    found = world.found()["policy_relaxed"]
    assert found.summary == "AuthNPolicy shop/web was removed, and route shop/web is still there"
    world.gone(ROUTES, "web")
    assert set(world.found()) == {"production_route_removed"}


def test_the_severity_of_a_policy_follows_its_route(world):
    world.is_there((LIMITS, limit(rate=1000)))
    assert world.found()["policy_relaxed"].severity == "critical"
    other = World().is_there((ROUTES, route(labels={})), (LIMITS, limit()))
    other.transitions()
    other.is_there((LIMITS, limit(rate=1000)))
    assert other.found()["policy_relaxed"].severity == "warning"
    other.is_there((ROUTES, route()))
    assert other.found()["policy_relaxed"].severity == "critical"


def test_a_state_that_was_approved_is_good(world):
    world.is_there((LIMITS, limit(rate=1000, generation=2)))
    assert "policy_relaxed" in world.found()
    world.is_there(
        (LIMITS, limit(rate=1000, generation=2, annotations={"shoal.dev/approved-generation": "2"}))
    )
    assert world.found() == {}
    # The annotation stays, the generation does not: approving is of one state.
    world.is_there(
        (LIMITS, limit(rate=9000, generation=3, annotations={"shoal.dev/approved-generation": "2"}))
    )
    assert "policy_relaxed" in world.found()


@pytest.mark.parametrize("annotation", ["", "two", "3", "2.x", "-2", "2" * 40])
def test_an_approval_that_is_not_of_this_generation_is_none(world, annotation):
    world.is_there(
        (LIMITS, limit(rate=1000, generation=2, annotations={"shoal.dev/approved-generation": annotation}))
    )
    assert "policy_relaxed" in world.found()


def test_a_change_of_labels_is_approved_by_a_revision(world):
    def approved(by, **labels):
        return (ROUTES, route(labels={**labels}, annotations={"shoal.dev/approved-generation": by}))

    world.is_there(approved("1", env="production"), approved("1", env="production", team="a"))
    assert [str(one) for one in world.found()["field_changed"].changes] == [
        '/metadata/labels/team: (absent) -> "a"'
    ]
    world.is_there(approved("1.1", env="production", team="a"))
    assert world.found() == {}


def test_custom_resources_of_any_other_kind_are_compared(world):
    breakers = "circuitbreakers.gateway.example.com"
    world.is_there((breakers, custom(breakers, "web", {"threshold": 5})))
    assert world.transitions() == []
    world.is_there((breakers, custom(breakers, "web", {"threshold": 50})))
    assert (
        world.found()["field_changed"].summary == "Other shop/web differs from its last good state in a field"
    )
    world.gone(breakers, "web")
    assert world.found() == {}


# -- order, completeness, notes ------------------------------------------------------------------------------


def test_nothing_is_found_before_everything_it_depends_on_is_known():
    model = Model(incomplete=[SERVICES, ROUTES, LIMITS])
    model.added(ROUTES, route(), 1)
    model.added(LIMITS, limit(rate=10**9), 1)
    for resource in (ROUTES, LIMITS):
        assert model.dirty
        model.complete(resource)
    assert {type(one).__name__ + one.finding.check for one in model.evaluate(1)} == {
        "Openedlimit_out_of_bounds"
    }
    model.complete(SERVICES)
    assert [one.finding.check for one in model.evaluate(1)] == ["route_down"]


def test_duplicates_and_late_deliveries_change_nothing(world):
    old, new = route(version=5000), route(version=5001, spec={"timeoutMs": 7})
    world.model.updated(ROUTES, old, new, 1)
    first = world.found()
    for _ in range(2):
        world.model.added(ROUTES, old, 2)
        world.model.updated(ROUTES, old, new, 2)
    assert world.transitions() == []
    assert world.found() == first
    world.model.deleted(ROUTES, route(version=5002), 3)
    world.model.updated(ROUTES, old, new, 3)
    assert set(world.found()) == {"production_route_removed"}
    assert world.model.view.facts(Subject(ROUTES, "shop", "web")) is None


def test_a_server_that_lost_its_past_is_right(world):
    restored = route(version=3, spec={"timeoutMs": 7})
    world.model.updated(ROUTES, world.known[ROUTES, "web"], restored, 1)
    assert world.model.view.facts(Subject(ROUTES, "shop", "web")).spec["timeoutMs"] == 7


def test_the_world_can_be_replaced_by_what_there_is():
    world = World().is_there(
        (SERVICES, service("web")), (SERVICES, service("gone")), (SERVICES, service("deleted"))
    )
    world.gone(SERVICES, "deleted")
    world.model.replaced(SERVICES, [service("web", 3), service("deleted", 2)], world.now)
    held = {place.name: version for place, version in world.model.view.services.versions()}
    assert held == {"web": 3, "deleted": 2}


def test_findings_that_do_not_follow_from_objects(world):
    noted = Finding(
        check="resource_unreadable", subject=Subject(PODS, "", PODS), severity="critical", summary="blind"
    )
    world.model.note(noted)
    [opened] = world.transitions()
    assert opened.finding.since == world.now
    world.model.note(noted)
    assert world.transitions() == []
    world.model.withdraw(Identity("resource_unreadable", Subject(PODS, "", PODS)))
    assert [type(one) for one in world.transitions()] == [Resolved]
    world.model.withdraw(Identity("resource_unreadable", Subject(SERVICES, "", SERVICES)))
    assert not world.model.dirty


def test_a_fingerprint_is_of_the_trouble_and_not_of_its_text():
    subject = Subject(ROUTES, "shop", "web")
    one = Finding(check="route_down", subject=subject, severity="critical", summary="a", since=1)
    other = Finding(check="route_down", subject=subject, severity="warning", summary="b", since=2)
    assert one.fingerprint == other.fingerprint
    assert len(one.fingerprint) == 16
    different = Finding(check="field_changed", subject=subject, severity="critical", summary="a", since=1)
    assert different.fingerprint != one.fingerprint
