"""Errors cross the wire as values: the same class with the same fields, or `Broken`; never more than the class has."""

import msgspec
import pytest

from shoal.shards.model import errors
from shoal.shards.model.errors import (
    BadRequest,
    BadShardSelector,
    Broken,
    CertificateRejected,
    Expired,
    Invalid,
    NotReady,
    NotServed,
    ShoalError,
    TooLargeVersion,
    Upstream,
)
from shoal.shards.wire.failures import CLASSES, OWN_FIELDS, decode_failure, encode_failure

PLENTY = 1 << 20


def crossed(error, payload_bytes_max=PLENTY):
    return decode_failure(encode_failure(error, payload_bytes_max))


def made(kind):
    """An error of every class, with everything it can have."""
    match kind.__name__:
        case "NotServed":
            return NotServed("v1/pods[a]", 12)
        case "TooLargeVersion":
            return TooLargeVersion(200, 100)
        case "Upstream":
            return Upstream("no", http_status=403, upstream_status={"reason": "Forbidden"}, retry_after_s=4)
        case "BadShardSelector":
            return BadShardSelector("what is this")
        case _:
            causes = [{"reason": "FieldValueInvalid", "field": "limit"}]
            return kind("wrong", details={"causes": causes}, metadata={"continue": "x"}, retry_after_s=3)


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_error_arrives_as_it_was(kind):
    error = made(kind)
    arrived = crossed(error)
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert arrived.status() == error.status()
    assert {name: getattr(arrived, name) for name in vars(error)} == vars(error)


def test_the_classes_are_all_of_the_tree():
    found, todo = set(), [ShoalError]
    while todo:
        kind = todo.pop()
        found.add(kind)
        todo += [below for below in kind.__subclasses__() if below.__module__ == errors.__name__]
    assert set(CLASSES.values()) == found


def test_what_a_class_has_beyond_the_root_is_known():
    plain = set(vars(ShoalError("x")))
    for kind in CLASSES.values():
        own = set(vars(made(kind))) - plain
        assert own <= set(OWN_FIELDS.get(kind, {})), f"{kind.__name__} has fields that would be lost: {own}"


def test_a_flag_of_one_error_survives():
    error = CertificateRejected("no")
    error.sent = False
    assert crossed(error).sent is False


def test_a_class_made_elsewhere_travels_as_what_it_is_in_the_tree():
    class Special(Expired):
        pass

    class Impostor(BadRequest):
        pass

    Impostor.__name__ = "NotServed"  # a name alone does not make a class one of the tree
    assert type(crossed(Special("old"))) is Expired
    assert type(crossed(Impostor("bad"))) is BadRequest


def test_an_unknown_class_is_broken_and_says_what_happened():
    payload = msgspec.msgpack.encode(["FromTheFuture", "the message", None, {}, 5, {}])
    error = decode_failure(payload)
    assert type(error) is Broken
    assert "FromTheFuture" in str(error)
    assert "the message" in str(error)


def test_only_fields_of_the_class_are_set():
    payload = msgspec.msgpack.encode(["NotReady", "m", None, {}, 1, {"status": "evil", "code": 200}])
    error = decode_failure(payload)
    assert type(error) is NotReady
    assert error.status()["code"] == 503


@pytest.mark.parametrize(
    "own", [{}, {"partition": 1, "epoch": 1}, {"partition": "v1/pods", "epoch": "x"}], ids=str
)
def test_fields_of_a_wrong_kind_are_refused(own):
    with pytest.raises(msgspec.ValidationError):
        decode_failure(msgspec.msgpack.encode(["NotServed", "m", None, {}, None, own]))


def test_details_that_cannot_be_said_are_left_out_and_nothing_else():
    error = crossed(Invalid("wrong", details={"causes": [object()]}, retry_after_s=2))
    assert (type(error), str(error), error.details, error.retry_after_s) == (Invalid, "wrong", None, 2)


def test_an_error_is_never_longer_than_a_frame():
    long = crossed(NotServed("v1/pods", 3), 10)
    assert (type(long), long.partition, long.epoch) == (NotServed, "v1/pods", 3)
    payload = encode_failure(Upstream("x" * 9000, http_status=500, upstream_status={"a": "b" * 9000}), 5000)
    assert len(payload) < 2000
    assert type(decode_failure(payload)) is Broken
