"""Continue tokens: round trip, tampering, and what an expired one is answered with."""

import base64
import json
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.local_shards import CONFIG_MAPS, PODS
from support.queries import collection_query

from shoal.cluster.query.tokens import Position, _checksum, continue_expired, decode_token, encode_token
from shoal.shards.model.errors import BadRequest

WIRE = Path(__file__).parents[2] / "wire"
FINGERPRINT = b"12345678"
LOW = "shardRange(object.metadata.uid, '0x0000000000000000', '0x8000000000000000')"
POSITION = Position(3, "alpha/web-1", {"v1/pods[alpha]": 10, "v1/pods[!alpha]": 12})

names = st.text(min_size=1, max_size=30)


@given(
    epoch=st.integers(0, 2**40),
    after=names,
    pins=st.dictionaries(names, st.integers(0, 2**63), max_size=5),
    missing=st.lists(names, max_size=3).map(tuple),
)
def test_a_token_stands_for_its_position(epoch, after, pins, missing):
    position = Position(epoch, after, pins, missing)
    assert decode_token(encode_token(position, FINGERPRINT), FINGERPRINT) == position


@given(st.data())
def test_a_changed_token_is_refused(data):
    token = encode_token(POSITION, FINGERPRINT)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCabc019-_=/ \n"))
    changed = token[:at] + other + token[at + 1 :]
    if changed == token:
        return
    with pytest.raises(BadRequest, match=r"^invalid continue token: continue key is not valid: "):
        decode_token(changed, FINGERPRINT)


@given(st.text())
def test_garbage_is_refused(text):
    with pytest.raises(BadRequest, match=r"^invalid continue token: continue key is not valid: "):
        decode_token(text, FINGERPRINT)


@pytest.mark.parametrize(
    "content",
    [
        [2, FINGERPRINT, 3, "a", {}],
        [1, FINGERPRINT, -3, "a", {}],
        [1, FINGERPRINT, 3, "a", {"p": "7"}],
        [1, FINGERPRINT, 3, "a", {"p": True}],
        [1, FINGERPRINT, 3, "a"],
        [1, FINGERPRINT, 3, "a", {}, []],
        [1, FINGERPRINT, 3, "a", {}, [7]],
        [1, FINGERPRINT, 3, "a", {}, "p"],
        [1, FINGERPRINT, 3, "a", {}, ["p"], ["q"]],
        {"v": 1},
        7,
    ],
)
def test_a_well_made_token_with_other_content_is_refused(content):
    payload = msgpack.packb(content)
    token = base64.urlsafe_b64encode(_checksum(payload) + payload).rstrip(b"=").decode()
    with pytest.raises(BadRequest, match="continue key is not valid"):
        decode_token(token, FINGERPRINT)


def test_a_token_of_the_api_servers_own_is_refused():
    with pytest.raises(BadRequest, match="continue key is not valid"):
        decode_token("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NjksInN0YXJ0IjoiL2NtLTFcdTAwMDAifQ", FINGERPRINT)


def test_a_huge_token_is_not_even_decoded():
    with pytest.raises(BadRequest, match="too long"):
        decode_token("A" * (2 << 20), FINGERPRINT)


def test_pages_of_different_questions_do_not_mix():
    def fingerprint(resource_type=PODS, namespace=None, **parameters):
        return collection_query(resource_type, list(parameters.items()), namespace=namespace).fingerprint

    base = fingerprint()
    others = [
        fingerprint(CONFIG_MAPS),
        fingerprint(namespace="a"),
        fingerprint(labelSelector="a=b"),
        fingerprint(fieldSelector="status.phase=a"),
        fingerprint(shardSelector=LOW),
        fingerprint(shardSelector=LOW.replace("uid", "namespace")),
    ]
    assert len({base, *others}) == 7
    assert fingerprint(shardSelector=LOW.replace(" ", "")) == fingerprint(shardSelector=LOW)
    assert fingerprint(limit="5") == base
    assert fingerprint(labelSelector="a==b , c") == fingerprint(labelSelector="a==b,c")


def test_an_expired_token_is_answered_as_the_api_server_does():
    recorded = json.loads(json.loads((WIRE / "list-continue-expired.json").read_text())["response"]["body"])
    status = continue_expired(POSITION, FINGERPRINT).status()
    goes_on = decode_token(status["metadata"].pop("continue"), FINGERPRINT)
    assert goes_on == Position(3, "alpha/web-1", {})
    recorded["metadata"].pop("continue")
    assert status == recorded
    assert list(status) == list(recorded)


def test_an_expired_token_of_a_partial_list_goes_on_without_the_same_partitions():
    partial = Position(3, "alpha/web-1", {"v1/pods[alpha]": 10}, ("v1/pods[!alpha]",))
    token = continue_expired(partial, FINGERPRINT).metadata["continue"]
    assert decode_token(token, FINGERPRINT) == Position(3, "alpha/web-1", {}, ("v1/pods[!alpha]",))
