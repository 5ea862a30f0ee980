"""Diffs of the gateway monitor: what differs, how it is applied, and that secrets are not shown."""

import pytest
from gateway_monitor.diff import Change, apply, diff, shown
from gateway_monitor.documents import ABSENT, number, parts, plain, pointer, within
from gateway_monitor.secrets import redacted


def test_each_field_that_differs_has_its_own_path():
    old = {"spec": {"a": 1, "gone": True, "same": [1, {"x": 2}]}}
    new = {"spec": {"a": 2, "new": None, "same": [1, {"x": 2}]}}
    assert diff(old, new) == (
        Change(("spec", "a"), 1, 2),
        Change(("spec", "gone"), True, ABSENT),
        Change(("spec", "new"), ABSENT, None),
    )
    assert diff(old, old) == ()


@pytest.mark.parametrize(("old", "new"), [(True, 1), (False, 0), ([True], [1]), (None, ABSENT), ({}, None)])
def test_values_that_python_takes_for_equal_differ_as_json(old, new):
    assert diff(old, new) == (Change((), old, new),)


def test_lists_of_values_are_one_value_and_mappings_are_paired():
    assert diff(["a", "b"], ["a"]) == (Change((), ["a", "b"], ["a"]),)
    old = [{"name": "x", "port": 1}, {"name": "y", "port": 2}]
    new = [{"name": "x", "port": 1}, {"name": "y", "port": 3}]
    assert diff(old, new, ("ports",)) == (Change(("ports", "1", "port"), 2, 3),)
    assert diff(old, new[:1], ("ports",)) == (Change(("ports",), old, new[:1]),)


def test_a_diff_leads_from_one_to_the_other_and_changes_neither():
    old = {"a": {"b": [{"c": 1}, {"d": 2}]}, "x": 1}
    new = {"a": {"b": [{"c": 1}, {"d": 3, "e": None}]}, "y": {}}
    before = repr(old)
    assert apply(old, diff(old, new)) == new
    assert repr(old) == before


def test_a_change_below_nothing_cannot_be_applied():
    with pytest.raises(ValueError, match="there is nothing at /b"):
        apply({"a": 1}, [Change(("a", "b"), ABSENT, 2)])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "jwt", "clientSecret"), "hunter2hunter2"),
        (("spec", "auth"), {"password": "hunter2hunter2"}),
        (("spec", "headers"), [{"name": "x", "value": "Bearer hunter2hunter2"}]),
        (("spec", "upstream"), "https://me:hunter2hunter2@db.example.com/"),
        (("spec", "apiKey"), ["hunter2hunter2"]),
        (("spec", "key"), "-----BEGIN PRIVATE KEY-----\nhunter2hunter2"),
        (("spec", "x"), "eyJhbGciOiJIUzI1NiJ9.hunter2hunter2"),
        (("spec", "token"), {"a": {"b": "hunter2hunter2"}}),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(path, value):
    change = shown(Change(path, ABSENT, value))
    assert "hunter2" not in str(change)
    assert "redacted" in change.new
    assert change.old == "(absent)"


@pytest.mark.parametrize("name", ["tokenUrl", "secretRef", "secretName", "issuer", "tokenTTL"])
def test_a_field_about_a_secret_is_none(name):
    assert shown(Change(("spec", name), "a", "b")).new == '"b"'


def test_long_values_are_cut():
    assert len(shown(Change(("spec",), ABSENT, "x" * 5000)).new) == 120


def test_redaction_keeps_everything_else():
    assert redacted({"a": [1, {"password": None, "secret": True, "token": 7}]}) == {
        "a": [1, {"password": None, "secret": True, "token": "(redacted)"}]
    }


def test_pointers():
    assert pointer(("metadata", "labels", "example.com/a~b")) == "/metadata/labels/example.com~1a~0b"
    assert parts("/metadata/labels/example.com~1a~0b") == ("metadata", "labels", "example.com/a~b")
    assert parts("") == ()
    assert within(("spec", "a"), ("spec",))
    assert not within(("spec",), ("spec", "a"))
    with pytest.raises(ValueError, match="has to begin with /"):
        parts("spec/host")


def test_numbers():
    assert [number(one) for one in (1, "2.5", True, None, "x", [])] == [1.0, 2.5, None, None, None, None]
    assert [plain(one) for one in (100000.0, 0.5, 1e6)] == ["100,000", "0.5", "1,000,000"]
