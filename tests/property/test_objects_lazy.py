"""Lazy objects against the standard library's parser, for any JSON document, read in any order."""

import json
import pickle

from hypothesis import given
from hypothesis import strategies as st

from shoal.cluster.informers.nodes import FieldList, FieldMap
from shoal.cluster.informers.objects import KubeObject

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXTS, below, max_size=4)
)
DOCUMENTS = st.dictionaries(
    TEXTS | st.sampled_from(["metadata", "spec", "status", "items"]), VALUES, max_size=5
)
LAYOUTS = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])


def walk(node, plain, choose):
    """Compares a node with the plain value, entering its members in an order of `choose`."""
    if isinstance(plain, dict):
        assert isinstance(node, FieldMap)
        assert list(node) == list(plain)
        assert len(node) == len(plain)
        for name in choose(list(plain)):
            assert name in node
            walk(node[name], plain[name], choose)
            if name and not name.startswith("_") and not hasattr(type(node), name):
                assert getattr(node, name) is node[name]
            if not isinstance(node[name], FieldMap | FieldList):
                assert node.get(name) == plain[name]
    elif isinstance(plain, list):
        assert isinstance(node, FieldList)
        assert len(node) == len(plain)
        for at in choose(list(range(len(plain)))):
            walk(node[at], plain[at], choose)
            assert node[at - len(plain)] is node[at]
    else:
        assert type(node) is type(plain)
        assert node == plain


@given(DOCUMENTS, LAYOUTS, st.randoms(use_true_random=False))
def test_every_value_reads_as_json_parses_it(document, layout, random):
    text = json.dumps(document, **layout).encode()
    plain = json.loads(text)
    node = KubeObject(lambda: text)

    def choose(names):
        return random.sample(names, random.randint(0, len(names)))

    walk(node, plain, choose)
    assert pickle.loads(pickle.dumps(KubeObject(text))).to_dict() == plain
    for part in node.values():
        assert pickle.loads(pickle.dumps(part)) == part
    assert node.to_dict() == plain
    # Half-read nodes parse to the same as unread ones.
    assert {
        name: each.to_dict() if isinstance(each, FieldMap) else each for name, each in node.items()
    } == plain
    walk(node, plain, list)
