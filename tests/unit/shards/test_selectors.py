"""Grammar and error texts of k8s.io/apimachinery's label and field selectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.shards.model.errors import BadRequest
from shoal.shards.model.selectors import FieldSelector, LabelSelector

LABELS = {"app": "web", "tier": "front", "n": "7", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", True),
        ("app", True),
        ("missing", False),
        ("!app", False),
        ("!missing", True),
        ("app=web", True),
        ("app==web", True),
        ("app=db", False),
        ("app!=db", True),
        ("app!=web", False),
        ("missing!=web", True),
        ("missing=web", False),
        ("app in (web,db)", True),
        ("app in (db)", False),
        ("missing in (db)", False),
        ("app notin (db)", True),
        ("app notin (web, db)", False),
        ("missing notin (db)", True),
        ("n>6", True),
        ("n<7", False),
        ("app>6", False),
        ("empty=", True),
        ("empty in (,)", True),
        ("app=web,tier=front,!missing", True),
        ("app=web,tier=back", False),
        (" app = web , tier in ( front , back ) ", True),
        ("in in (in,notin)", False),
        ("in,notin", False),
    ],
)
def test_what_a_label_selector_selects(selector, selected):
    assert LabelSelector.parse(selector).matches(LABELS) is selected


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("app===x!", "unable to parse requirement: found '=', expected: identifier"),
        (",app", "found ',', expected: !, identifier, or 'end of string'"),
        ("app,", "found '', expected: identifier after ','"),
        ("app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"),
        ("app=web db", "found 'db', expected: ',' or 'end of string'"),
        ("app in web", "unable to parse requirement: found 'web' expected: '('"),
        ("app in (web", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("app in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        (
            "app in ()",
            "unable to parse requirement: values: Invalid value: []: "
            "for 'in', 'notin' operators, values set can't be empty",
        ),
        (
            "app>x",
            'unable to parse requirement: values[0]: Invalid value: "x": '
            "for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ],
)
def test_a_label_selector_that_cannot_be_parsed_says_why(selector, message):
    with pytest.raises(BadRequest) as caught:
        LabelSelector.parse(selector)
    assert str(caught.value) == message


@pytest.mark.parametrize("key", ["-app", "a b/c", "UPPER.case/x/y", "x" * 64, "/app", "app/", "Ex.com/app"])
def test_a_key_that_is_no_label_key_is_refused(key):
    with pytest.raises(BadRequest, match="unable to parse requirement|found"):
        LabelSelector.parse(f"{key}=x")


WORDS = st.from_regex(r"[a-z0-9]([-a-z0-9_.]{0,10}[a-z0-9])?", fullmatch=True)


@given(
    st.lists(
        st.one_of(
            st.tuples(WORDS, st.sampled_from(["=", "==", "!="]), WORDS).map("".join),
            st.tuples(WORDS, st.sampled_from(["in", "notin"]), st.lists(WORDS, min_size=1, max_size=3)).map(
                lambda parts: f"{parts[0]} {parts[1]} ({','.join(parts[2])})"
            ),
            WORDS,
            WORDS.map("!{}".format),
        ),
        max_size=4,
    ).map(",".join),
    st.dictionaries(WORDS, WORDS, max_size=4),
)
def test_a_rendered_label_selector_means_the_same(text, labels):
    selector = LabelSelector.parse(text)
    again = LabelSelector.parse(str(selector))
    assert again == selector
    assert again.matches(labels) == selector.matches(labels)


def test_field_selectors_compare_and_are_anded():
    selector = FieldSelector.parse("metadata.namespace!=a,status.phase=Running")
    values = {"metadata.namespace": "b", "status.phase": "Running"}
    assert selector.matches(values.__getitem__)
    assert not selector.matches({**values, "metadata.namespace": "a"}.__getitem__)
    assert selector.exact("status.phase") == "Running"
    assert selector.exact("metadata.namespace") is None


def test_a_field_value_may_be_escaped():
    selector = FieldSelector.parse(r"spec.x=a\,b\=c\\d")
    assert selector.exact("spec.x") == "a,b=c\\d"
    assert FieldSelector.parse(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        (r"a=b\x", r"invalid field selector: invalid escape sequence: \x"),
        ("a=b=c", "invalid field selector: unescaped character in value: ="),
        ("spec.unknown=1", "field label not supported: spec.unknown"),
    ],
)
def test_a_field_selector_that_cannot_be_used_says_why(text, message):
    with pytest.raises(BadRequest) as caught:
        FieldSelector.parse(text, lambda field: field != "spec.unknown")
    assert str(caught.value) == message
