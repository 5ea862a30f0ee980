"""The gateway monitor: deliveries in any order and number lead to the same findings; diffs and patches lead back."""

import json
from random import Random

from gateway_monitor.checks import findings_of
from gateway_monitor.correlation import Model
from gateway_monitor.diff import apply, diff, same
from gateway_monitor.facts import gateway_facts, pod_facts, service_facts, slice_facts
from gateway_monitor.findings import Opened, Resolved, Subject
from gateway_monitor.lastgood import LastGood
from gateway_monitor.relaxation import relaxed
from gateway_monitor.secrets import redacted
from gateway_monitor.settings import RULES
from gateway_monitor.undoing import merge_patch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gateway_objects import (
    AUTHN,
    LIMITS,
    PODS,
    ROUTES,
    SECURITY,
    SERVICES,
    SLICES,
    authn,
    endpoints,
    limit,
    pod,
    route,
    security,
    service,
)

EXAMPLES = 400
NAMES = st.sampled_from(["a", "b"])
POD_NAMES = st.lists(st.sampled_from(["p", "q"]), max_size=2, unique=True)
APPROVALS = st.sampled_from([None, None, "1", "2", "2.1"])
STATES = {
    ROUTES: st.builds(
        lambda service, port, env: route(service=service, port=port, labels={"env": env}),
        NAMES,
        st.sampled_from([80, 81]),
        st.sampled_from(["production", "staging"]),
    ),
    SERVICES: st.builds(
        lambda port, app, kind: service(port=port, selector={"app": app}, kind=kind),
        st.sampled_from([80, 81]),
        NAMES,
        st.sampled_from(["ClusterIP", "ClusterIP", "ExternalName"]),
    ),
    SLICES: st.builds(
        lambda service, ready, unready: endpoints(service=service, ready=ready, unready=unready),
        NAMES,
        POD_NAMES,
        POD_NAMES,
    ),
    PODS: st.builds(
        lambda app, waiting: pod(app=app, waiting=waiting), NAMES, st.sampled_from(["", "Backoff"])
    ),
    LIMITS: st.builds(
        lambda rate, target: limit(rate=rate, target=target), st.sampled_from([1, 10, 90000, None]), NAMES
    ),
    AUTHN: st.builds(
        lambda spec, target: authn(spec=spec, target=target),
        st.sampled_from([None, {}, {"jwt": {"issuer": "x"}}]),
        NAMES,
    ),
    SECURITY: st.builds(lambda waf: security(waf=waf), st.sampled_from(["block", "off"])),
}
OBJECTS = [
    (resource, name) for resource in STATES for name in (("p", "q") if resource == PODS else ("a", "b"))
]


@st.composite
def histories(draw):
    """Deliveries in the order in which an API server would send them: few objects, several lives each."""
    objects = draw(st.lists(st.sampled_from(OBJECTS), min_size=1, max_size=5, unique=True))
    steps = draw(st.lists(st.tuples(st.sampled_from(objects), st.integers(0, 2)), min_size=2, max_size=16))
    told, alive = [], {}
    for version, (key, chance) in enumerate(steps, start=1):
        resource, name = key
        before = alive.pop(key, None)
        if chance == 0 and before is not None:
            document = json.loads(json.dumps(before))
            document["metadata"]["resourceVersion"] = str(version)
            if draw(st.booleans()):
                document["metadata"]["annotations"] = {"shoal.dev/removal-approved": "true"}
            told.append((resource, document, True))
            continue
        document = draw(STATES[resource])
        uid = before["metadata"]["uid"] if before else f"{name}-{version}"
        generation = before["metadata"]["generation"] + 1 if before else 1
        document["metadata"] |= {
            "name": name,
            "uid": uid,
            "generation": generation,
            "resourceVersion": str(version),
        }
        approval = draw(APPROVALS)
        if approval is not None:
            document["metadata"]["annotations"] = {"shoal.dev/approved-generation": approval}
        alive[key] = document
        told.append((resource, document, False))
    return told


def tell(model, deliveries, evaluate=()):
    transitions = []
    for number, (resource, document, deleted) in enumerate(deliveries):
        (model.deleted if deleted else model.added)(resource, document, 1.0)
        if number in evaluate:
            transitions += model.evaluate(1.0)
    return transitions + model.evaluate(1.0)


def good_states(model):
    return sorted((resource, place, good.version) for resource, place, good in model.good.items())


@given(histories(), st.integers(), st.integers(0, 12), st.sets(st.integers(0, 30)))
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_order_and_any_number_of_the_same_deliveries_lead_to_the_same_findings(
    history, seed, again, evaluate
):
    in_order, disordered, rng = Model(), Model(), Random(seed)
    tell(in_order, history)
    disorder = [*history, *rng.choices(history, k=again)]
    rng.shuffle(disorder)
    tell(disordered, disorder, evaluate)
    assert disordered.findings == in_order.findings
    assert good_states(disordered) == good_states(in_order)
    # Once more, all of it: nothing happens.
    assert tell(disordered, history) == []


@given(histories(), st.sets(st.integers(0, 20)))
@settings(max_examples=EXAMPLES, deadline=None)
def test_looking_at_what_may_have_changed_is_as_good_as_looking_at_everything(history, evaluate):
    model = Model()
    transitions = tell(model, history, evaluate)
    subjects = {Subject(resource, "shop", document["metadata"]["name"]) for resource, document, _ in history}
    from_scratch = {one.identity: one for subject in subjects for one in findings_of(model.view, subject)}
    assert model.findings.keys() == from_scratch.keys()
    assert all(one.says_the_same_as(from_scratch[identity]) for identity, one in model.findings.items())
    # What was told adds up to what is there.
    told = {}
    for one in transitions:
        identity = one.finding.identity
        assert isinstance(one, Opened) == (identity not in told)
        if isinstance(one, Resolved):
            del told[identity]
        else:
            told[identity] = one.finding
    assert told == model.findings


@given(histories())
@settings(max_examples=40, deadline=None)
def test_good_states_survive_a_restart(history):
    model = Model()
    tell(model, history)
    remembered = LastGood.decode(model.good.encode())
    assert [
        (*key, one.version, one.facts) for *key, one in sorted(remembered.items(), key=lambda item: item[:2])
    ] == [
        (*key, one.version, one.facts) for *key, one in sorted(model.good.items(), key=lambda item: item[:2])
    ]
    assert LastGood.decode(remembered.encode()).encode() == model.good.encode()


# -- documents -----------------------------------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text("ab/~", max_size=3)
)
FIELDS = st.sampled_from(
    [
        "a",
        "b/c",
        "~d",
        "spec",
        "jwt",
        "ports",
        "metadata",
        "labels",
        "conditions",
        "endpoints",
        "type",
        "password",
    ]
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=15,
)


@given(JSON, JSON)
@settings(max_examples=250)
def test_a_diff_leads_from_one_document_to_the_other(old, new):
    changes = diff(old, new)
    assert same(apply(old, changes), new)
    assert diff(new, new) == ()


def merged(document, patch):
    """RFC 7386, as it stands there."""
    if not isinstance(patch, dict):
        return patch
    made = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), value)
    return made


def without_nulls(document):
    if isinstance(document, dict):
        return {name: without_nulls(value) for name, value in document.items() if value is not None}
    return document


@given(JSON, JSON)
@settings(max_examples=250)
def test_a_patch_leads_back(now, wanted):
    now, wanted = {"spec": now}, without_nulls({"spec": wanted})
    assert same(merged(now, merge_patch(now, wanted)), wanted)


@given(JSON, JSON)
@settings(max_examples=150)
def test_nothing_that_anybody_can_write_is_too_strange(one, other):
    for read in (gateway_facts, service_facts, slice_facts, pod_facts):
        read({"spec": one, "metadata": other, "status": one, "endpoints": other})
    for rules in RULES.values():
        relaxed(rules, {"spec": one}, {"spec": other}, 2.0)
    redacted(one)
    model = Model()
    for resource in (ROUTES, LIMITS, AUTHN, SECURITY, SERVICES, SLICES, PODS):
        for version, body in enumerate((one, other), start=1):
            model.added(
                resource,
                {"metadata": {"name": "x", "namespace": "n", "resourceVersion": str(version)}, "spec": body}
                | {"status": body, "endpoints": body},
                1.0,
            )
    model.evaluate(1.0)
