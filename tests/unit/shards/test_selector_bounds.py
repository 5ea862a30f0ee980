"""Long selectors: what they cost for an object, what is refused, and what is remembered of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.shards.model import shard_selectors
from shoal.shards.model.errors import BadRequest, BadShardSelector
from shoal.shards.model.selector_tests import REQUIREMENTS_MAX, SELECTOR_CHARS_MAX, LabelTests
from shoal.shards.model.selectors import FieldSelector, LabelSelector
from shoal.shards.model.shard_selectors import RANGES_MAX, ShardSelector, parse_shard_selector
from shoal.shards.model.versions import parse_version
from shoal.shards.store import snapshot

OPERATORS = ("=", "!=", " in (a,b)", " notin (a,b)", ">", "<")
LABELS = st.dictionaries(st.sampled_from("klmnopqrst"), st.sampled_from(["a", "b", "c", "1", "2", "3"]))


@st.composite
def label_terms(draw):
    key = draw(st.sampled_from("klmnopqrst"))
    match draw(st.sampled_from((*OPERATORS, "exists", "absent"))):
        case "exists":
            return key
        case "absent":
            return f"!{key}"
        case (">" | "<") as operator:
            return f"{key}{operator}{draw(st.integers(0, 4))}"
        case ("=" | "!=") as operator:
            return f"{key}{operator}{draw(st.sampled_from('abc123'))}"
        case operator:
            return f"{key}{operator}"


def test_a_requirement_said_many_times_is_one_test_of_an_object():
    fields = FieldSelector.parse(",".join(["metadata.name!=b"] * 5_000))
    assert len(fields.requirements) == len(fields.tests) == 1
    labels = LabelSelector.parse(",".join(["app!=b"] * 5_000))
    assert len(labels.requirements) == len(labels.tests) == 1
    assert str(labels) == "app!=b"


def test_many_values_of_one_field_or_label_are_one_test():
    fields = FieldSelector.parse(",".join(f"metadata.name!=b{at}" for at in range(5_000)))
    assert len(fields.tests) == 1
    assert not fields.tests[0].meets("b4999")
    assert fields.tests[0].meets("b5000")
    labels = LabelSelector.parse(",".join(f"app!=b{at}" for at in range(5_000)))
    assert len(labels.tests) == 1
    assert not labels.matches({"app": "b4999"})
    assert labels.matches({})


def test_of_many_labels_only_those_an_object_has_are_looked_at():
    class Counting:
        looked = 0

        def __init__(self, key):
            self.key = key

        def matches(self, labels):
            Counting.looked += 1
            return True

    tests = LabelTests(tuple(Counting(f"k{at}") for at in range(1_000)))
    Counting.looked = 0
    assert tests.meet({"k7": "", "other": ""})
    assert Counting.looked == 1


@given(terms=st.lists(label_terms(), max_size=30), labels=LABELS)
def test_what_is_put_together_selects_what_its_parts_select(terms, labels):
    selector = LabelSelector.parse(",".join(terms))
    assert selector.matches(labels) == all(LabelSelector.parse(term).matches(labels) for term in terms)
    assert LabelSelector.parse(str(selector)) == selector
    assert all(test.matches(labels) for test in selector.tests) == selector.matches(labels)


@given(
    terms=st.lists(st.tuples(st.sampled_from("fg"), st.sampled_from(["=", "!="]), st.sampled_from("ab"))),
    values=st.fixed_dictionaries({"f": st.sampled_from("abc"), "g": st.sampled_from("abc")}),
)
def test_fields_put_together_select_what_their_parts_select(terms, values):
    selector = FieldSelector.parse(",".join(map("".join, terms)))
    assert selector.matches(values.__getitem__) == all(
        (values[field] == value) is (operator == "=") for field, operator, value in terms
    )


def test_more_labels_than_anybody_compares_are_refused():
    most = ",".join(f"k{at}!=b" for at in range(REQUIREMENTS_MAX))
    assert len(LabelSelector.parse(most).tests) == REQUIREMENTS_MAX
    with pytest.raises(BadRequest, match=r"more than 1000 requirements on different labels"):
        LabelSelector.parse(f"{most},one-more")
    with pytest.raises(BadRequest, match=r"more than 5000 in all"):
        LabelSelector.parse(",".join(["a=b"] * 5_001))


@pytest.mark.parametrize("parse", [LabelSelector.parse, FieldSelector.parse])
def test_longer_selectors_than_are_read_are_refused(parse):
    with pytest.raises(BadRequest, match=r"is 131073 characters long: at most 131072"):
        parse("a" * (SELECTOR_CHARS_MAX + 1))


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "=" + "a" * 100_000, "a=" + "b" * 100_000, "!" + "x" * 100_000]
)
@pytest.mark.parametrize("parse", [LabelSelector.parse, lambda text: FieldSelector.parse(text, "f".__eq__)])
def test_messages_repeat_little_of_a_long_selector(parse, text):
    with pytest.raises(BadRequest) as caught:
        parse(text)
    assert len(caught.value.message) < 4_000


def ranges(count):
    term = "shardRange(object.metadata.uid, '0x{:016x}', '0x{:016x}')"
    return " || ".join(term.format(3 * at, 3 * at + 1) for at in range(count))


def test_a_shard_selector_has_so_many_ranges_and_no_more():
    assert len(parse_shard_selector(ranges(RANGES_MAX)).ranges) == RANGES_MAX
    with pytest.raises(BadShardSelector, match="at most 1000 are allowed here"):
        parse_shard_selector(ranges(RANGES_MAX + 1))
    with pytest.raises(BadShardSelector, match="characters long"):
        parse_shard_selector(" " * (SELECTOR_CHARS_MAX + 1))


@given(
    bounds=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), min_size=1, max_size=12),
    value=st.integers(0, 60),
)
def test_united_ranges_hold_what_the_ranges_hold(bounds, value):
    given_ranges = tuple((low, low + size) for low, size in bounds)
    selector = ShardSelector("object.metadata.uid", given_ranges)
    assert selector.holds(value) == any(low <= value < high for low, high in given_ranges)
    ends = [bound for one in selector.united for bound in one]
    assert ends == sorted(set(ends))


def test_long_texts_are_not_remembered():
    remembered = (snapshot._remembered_labels, snapshot._remembered_fields, shard_selectors._short)
    for cache in remembered:
        cache.cache_clear()
    for at in range(3):
        snapshot.parse_labels(f"k{at} in ({'a,' * 2_000}b)")
        snapshot.parse_fields(f"metadata.name!={'a' * 3_000}{at}", ())
        parse_shard_selector(f"{ranges(100)}{' ' * at}")
    assert [cache.cache_info().currsize for cache in remembered] == [0, 0, 0]
    assert shard_selectors._long.cache_info().maxsize <= 16
    snapshot.parse_labels("app=web")
    snapshot.parse_fields("metadata.name=web", ())
    parse_shard_selector(ranges(1))
    assert [cache.cache_info().currsize for cache in remembered] == [1, 1, 1]


@pytest.mark.parametrize("text", ["9" * 5_000, "1" * 21, "0" * 5_000])
def test_a_version_of_more_digits_than_any_revision_is_none(text):
    with pytest.raises(ValueError, match="is not a resource version"):
        parse_version(text)
