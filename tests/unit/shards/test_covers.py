"""Texts that are no partition, covers that are none, and what covers have to do with each other, case by case."""

import pytest

from shoal.coordinator.cuts import WHOLE, CarvedNamespace, Cut, even_bounds
from shoal.shards.model.covers import complete, contains, disjoint, parse_cover, parse_partition
from shoal.shards.model.errors import BadRequest
from shoal.shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    fnv1a64,
)
from shoal.shards.model.resources import Resource

MIDDLE = HASH_END // 2
LOW, HIGH = "0000000000000000-8000000000000000", "8000000000000000-10000000000000000"


@pytest.mark.parametrize(
    ("text", "cover"),
    [
        ("", EVERYTHING),
        ("[a]", OneNamespace("a")),
        ("[uid]", OneNamespace("uid")),
        ("[!a,b]", ExceptNamespaces(("a", "b"))),
        (f"[uid:{LOW}]", HashRange("uid", 0, MIDDLE)),
        (f"[namespace:{HIGH}]", HashRange("namespace", MIDDLE, HASH_END)),
        (f"[uid:uid:{HIGH}]", HashRange("uid", MIDDLE, HASH_END, "uid")),
        (f"[a:uid:{LOW}]", HashRange("uid", 0, MIDDLE, "a")),
        (f"[!a,b:uid:{LOW}]", HashRange("uid", 0, MIDDLE, None, ("a", "b"))),
        (f"[!a:namespace:{LOW}]", HashRange("namespace", 0, MIDDLE, None, ("a",))),
    ],
)
def test_covers_as_text(text, cover):
    assert str(cover) == text
    assert parse_cover(text) == cover
    assert parse_partition(f"apps/v1/deployments{text}") == Partition(
        Resource("apps", "v1", "deployments"), cover
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected RESOURCE"),
        ("pods", "'pods' is not a resource"),
        ("[a]", "expected RESOURCE"),
        ("v1/pods[a", "expected RESOURCE"),
        ("v1/pods[a]x", "expected RESOURCE"),
        ("v1/pods[]", "'' is not the name of a namespace"),
        ("v1/pods[A]", "'A' is not the name of a namespace"),
        ("v1/pods[a,b]", "[!a,b]"),
        ("v1/pods[!b,a]", "have to be sorted, each once: a,b"),
        ("v1/pods[!a,a]", "have to be sorted, each once: a"),
        ("v1/pods[!a,]", "'' is not the name"),
        ("v1/pods[uid:0-1]", "'0-1' are not bounds"),
        (f"v1/pods[name:{LOW}]", "not of 'name'"),
        ("v1/pods[uid:8000000000000000-8000000000000000]", "is no range"),
        (f"v1/pods[a:namespace:{LOW}]", "divided by ranges of uid"),
        (f"v1/pods[!:uid:{LOW}]", "expected [NAMESPACE]"),
        (f"v1/pods[a:b:uid:{LOW}]", "expected [NAMESPACE]"),
    ],
)
def test_what_is_no_partition_is_said_with_the_reason(text, why):
    with pytest.raises(BadRequest) as refused:
        parse_partition(text)
    assert why in refused.value.message
    assert repr(text) in refused.value.message


def test_text_without_brackets_is_no_cover():
    with pytest.raises(BadRequest, match="expected"):
        parse_cover("a")


@pytest.mark.parametrize(
    "arguments",
    [
        ("name", 0, 1),
        ("uid", -1, 1),
        ("uid", 0, HASH_END + 1),
        ("uid", 1, 1),
        ("namespace", 0, 1, "a"),
        ("uid", 0, 1, "a", ("b",)),
        ("uid", 0, 1, None, ("b", "a")),
        ("uid", 0, 1, None, ("a", "a")),
    ],
)
def test_what_could_hold_nothing_is_no_range(arguments):
    with pytest.raises(ValueError, match=r"range|namespace"):
        HashRange(*arguments)


def test_a_namespace_and_a_range_of_namespaces_meet_where_its_hash_is():
    at = fnv1a64("a")
    around, beside = HashRange("namespace", at, at + 1), HashRange("namespace", at + 1, HASH_END)
    assert contains(around, OneNamespace("a"))
    assert contains(around, HashRange("uid", 0, 5, "a"))
    assert disjoint(beside, OneNamespace("a"))
    assert disjoint(HashRange("namespace", at, at + 1, None, ("a",)), OneNamespace("a"))
    assert not contains(OneNamespace("a"), around), "other names may have that hash"
    assert contains(HashRange("namespace", at + 1, HASH_END, None, ("a",)), beside), "a was never there"


def test_ranges_of_different_fields_overlap():
    assert not disjoint(HashRange("uid", 0, 1), HashRange("namespace", 0, 1))
    assert not contains(HashRange("uid", 0, 1), HashRange("namespace", 0, 1))


def test_completeness_is_judged_for_names_in_and_out_of_ranges():
    low, high = HashRange("uid", 0, MIDDLE), HashRange("uid", MIDDLE, HASH_END)
    assert not complete([])
    assert complete([low, high])
    assert not complete([low, OneNamespace("a")])
    assert complete(
        [ExceptNamespaces(("a",)), *(HashRange(part.field, part.low, part.high, "a") for part in (low, high))]
    )
    assert not complete([ExceptNamespaces(("a",)), HashRange("uid", 0, MIDDLE, "a")])
    names = [HashRange("namespace", 0, MIDDLE), HashRange("namespace", MIDDLE, HASH_END)]
    assert complete(names)
    assert not complete(names[:1])
    assert complete([names[0], HashRange("uid", 0, MIDDLE), HashRange("uid", MIDDLE, HASH_END)])


@pytest.mark.parametrize(
    ("cut", "text"),
    [
        (WHOLE, "whole"),
        (WHOLE.carve("b").carve("a"), "a, b and the rest"),
        (WHOLE.split_rest("namespace", even_bounds(3)), "3 ranges of namespace"),
        (
            WHOLE.split_namespace("a", even_bounds(2)).split_rest("uid", even_bounds(4)),
            "a (2 ranges of uid) and the rest in 4 ranges of uid",
        ),
    ],
)
def test_cuts_are_said_to_people(cut, text):
    assert str(cut) == text


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cut((CarvedNamespace("a"), CarvedNamespace("a"))),
        lambda: CarvedNamespace(""),
        lambda: CarvedNamespace("a", (0,)),
        lambda: CarvedNamespace("a", (HASH_END,)),
        lambda: WHOLE.split_rest("uid", (2, 1)),
        lambda: WHOLE.split_rest("uid", (1, 1)),
        lambda: WHOLE.split_rest("name", (1,)),
        lambda: even_bounds(0),
    ],
)
def test_what_is_no_cut_is_refused(make):
    with pytest.raises(ValueError, match=r"name|cut points|ranges"):
        make()
