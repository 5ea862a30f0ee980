"""Whatever a client sends, it is somebody, nobody, or refused with a Status: nothing else comes of it."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shoal.cluster.gateway.authentication import bearer_token
from shoal.cluster.gateway.reviews import access_spec
from shoal.cluster.serving.documents import status_body
from shoal.cluster.serving.identity import (
    AUTHENTICATED,
    UNAUTHENTICATED,
    User,
    forbidden,
    impersonated,
    impersonation_asked,
    impersonation_checks,
    quoted,
    request_attributes,
)
from shoal.shards.model.errors import BadRequest

HEADER = st.binary(max_size=40).map(lambda raw: raw.decode("latin-1"))
NAMES = st.sampled_from(
    [
        "authorization",
        "impersonate-user",
        "impersonate-group",
        "impersonate-uid",
        "impersonate-extra-",
        "impersonate-extra-scopes",
        "impersonate-extra-%2f%ff%",
        "impersonate-",
        "accept",
    ]
)
FIELDS = st.lists(st.tuples(NAMES | HEADER, HEADER), max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PATH = st.one_of(
    TEXT,
    st.lists(
        st.sampled_from(
            ["api", "apis", "v1", "apps", "watch", "proxy", "namespaces", "pods", "a", "", ".", "status"]
        ),
        max_size=9,
    ).map(lambda parts: "/" + "/".join(parts)),
)
METHOD = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "x"])
PARAMETERS = st.lists(
    st.tuples(st.sampled_from(["watch", "fieldSelector", "labelSelector", "limit"]) | TEXT, TEXT), max_size=5
)


@given(FIELDS)
def test_headers_make_somebody_or_a_400(fields):
    assert isinstance(bearer_token(tuple(value for name, value in fields if name == "authorization")), str)
    try:
        wanted = impersonation_asked(fields)
    except BadRequest as error:
        assert json.loads(status_body(error))["code"] == 400
        return
    if wanted is None:
        return
    checks = impersonation_checks(wanted)
    assert len(checks) == 1 + bool(wanted.uid) + len(wanted.groups) + sum(map(len, wanted.extra.values()))
    became = impersonated(wanted)
    assert {AUTHENTICATED, UNAUTHENTICATED} & set(became.groups)
    for check in checks:
        assert msgspec.json.decode(msgspec.json.encode(access_spec(became, check)))["user"] == wanted.name


@given(METHOD, PATH, PARAMETERS, TEXT, TEXT)
def test_every_request_is_about_something_and_its_refusal_can_be_sent(method, path, parameters, name, reason):
    attributes = request_attributes(method, path, parameters)
    assert attributes.path == path
    assert attributes.unselected.unselected == attributes.unselected
    document = json.loads(status_body(forbidden(User(name), attributes, reason)))
    assert document["code"] == 403
    assert quoted(name) in document["message"]
    sent = msgspec.json.decode(msgspec.json.encode(access_spec(User(name), attributes)))
    assert ("resourceAttributes" in sent) is bool(attributes.resource)
    assert ("nonResourceAttributes" in sent) is not bool(attributes.resource)
