"""Merging by example; `tests/property/test_merge.py` compares with sorting."""

import json

from shoal.cluster.query.merge import Batch, Merge, version_of
from shoal.shards.model.queries import PageAnswer


def page(*keys, version=1, more=False, remaining=None):
    left = remaining if remaining is not None else int(more)
    return PageAnswer(
        version=version,
        keys=list(keys),
        bodies=[f"<{key}>".encode() for key in keys],
        more=more,
        remaining=left,
    )


def test_one_part_passes_through_untouched():
    merge = Merge(1)
    only = page("a/1", "a/2", version=9)
    merge.feed(0, only)
    batch = merge.take()
    assert batch.keys is only.keys
    assert batch.bodies is only.bodies
    assert merge.hungry == ()


def test_nothing_is_given_out_before_every_part_was_heard():
    merge = Merge(2)
    merge.feed(0, page("a"))
    assert merge.hungry == (1,)
    assert merge.take() == Batch((), ())


def test_what_a_part_may_still_precede_is_held_back():
    merge = Merge(2)
    merge.feed(0, page("a", "c", more=True))
    merge.feed(1, page("b", "d", "e"))
    assert list(merge.take().keys) == ["a", "b", "c"]
    assert merge.hungry == (0,)
    merge.feed(0, page("d2"))
    assert list(merge.take().keys) == ["d", "d2", "e"]
    assert merge.hungry == ()
    assert merge.remaining == 0


def test_keys_sort_as_the_api_server_sorts_them():
    merge = Merge(2)
    merge.feed(0, page("a-b/x"))
    merge.feed(1, page("a/x"))
    assert list(merge.take().keys) == ["a-b/x", "a/x"]


def test_a_limit_leaves_the_rest_for_later():
    merge = Merge(2)
    merge.feed(0, page("a", "c", "e"))
    merge.feed(1, page("b", "d", more=True, remaining=4))
    assert list(merge.take(3).keys) == ["a", "b", "c"]
    assert merge.remaining == 6
    assert list(merge.take(3).keys) == ["d"]
    assert merge.hungry == (1,)
    assert merge.take(0) == Batch((), ())


def test_a_part_that_is_dropped_is_waited_for_no_longer():
    merge = Merge(2)
    merge.feed(0, page("a/1", "a/3", more=True))
    merge.feed(1, page("a/2", "a/4", "a/5"))
    assert list(merge.take().keys) == ["a/1", "a/2", "a/3"]
    assert merge.hungry == (0,)
    merge.drop(0)
    assert (merge.hungry, merge.remaining) == ((), 2)
    assert list(merge.take().keys) == ["a/4", "a/5"]


def test_of_an_object_in_two_parts_the_newer_is_shown_once():
    def body(version):
        return json.dumps({"metadata": {"name": "x", "resourceVersion": str(version)}}).encode()

    for versions in ((3, 8), (8, 3)):
        merge = Merge(2)
        for part, version in enumerate(versions):
            merge.feed(
                part,
                PageAnswer(
                    version=9, keys=["n/x", "n/y"], bodies=[body(version), b"y"], more=False, remaining=0
                ),
            )
            merge._parts[part].keys[1:] = [f"n/y{part}"]
        batch = merge.take()
        assert list(batch.keys) == ["n/x", "n/y0", "n/y1"]
        assert version_of(batch.bodies[0]) == 8
