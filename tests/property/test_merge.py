"""However objects are divided and cut into pages, the merged list is the sorted one, page by page."""

from hypothesis import given
from hypothesis import strategies as st

from shoal.cluster.query.merge import Merge
from shoal.shards.model.queries import PageAnswer

name = st.text(alphabet="ab-/.0z", min_size=1, max_size=6)


@st.composite
def divided(draw):
    """Keys, each in one of a few parts, and the size of the pages of each part."""
    parts = draw(st.integers(1, 5))
    keys = draw(st.lists(name, unique=True, max_size=40))
    owners = {key: draw(st.integers(0, parts - 1)) for key in keys}
    sizes = [draw(st.integers(1, 7)) for _ in range(parts)]
    return [sorted(key for key in keys if owners[key] == part) for part in range(parts)], sizes


def pages(keys, size):
    cuts = [keys[start : start + size] for start in range(0, len(keys), size)] or [[]]
    sent = 0
    for at, cut in enumerate(cuts):
        sent += len(cut)
        yield PageAnswer(
            version=at + 1,
            keys=list(cut),
            bodies=[key.encode() for key in cut],
            more=at + 1 < len(cuts),
            remaining=len(keys) - sent,
        )


@given(divided(), st.one_of(st.none(), st.integers(1, 9)))
def test_a_merged_list_is_the_sorted_list(division, limit):
    parts, sizes = division
    sources = [pages(keys, size) for keys, size in zip(parts, sizes, strict=True)]
    merge = Merge(len(parts))
    total = sum(map(len, parts))
    keys, bodies = [], []
    while True:
        for part in merge.hungry:
            merge.feed(part, next(sources[part]))
        batch = merge.take(limit)
        assert limit is None or len(batch.keys) <= limit
        keys.extend(batch.keys)
        bodies.extend(batch.bodies)
        assert merge.remaining == total - len(keys)
        if not merge.hungry and not merge.remaining:
            break
    assert keys == sorted(key for part in parts for key in part)
    assert bodies == [key.encode() for key in keys]


@given(divided())
def test_every_round_gets_on_and_buffers_a_page_of_each_part_at_most(division):
    parts, sizes = division
    sources = [pages(keys, size) for keys, size in zip(parts, sizes, strict=True)]
    merge = Merge(len(parts))
    rounds = 0
    while merge.hungry:
        for part in merge.hungry:
            merge.feed(part, next(sources[part]))
        merge.take()
        assert all(part.buffered <= size for part, size in zip(merge._parts, sizes, strict=True))
        rounds += 1
        assert rounds <= sum(len(keys) + 1 for keys in parts)


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 99), max_size=8), min_size=2, max_size=4
    ),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 5)),
)
def test_an_object_in_several_parts_is_shown_once_and_newest(parts, size, limit):
    def body(version):
        return b'{"metadata":{"resourceVersion":"%d"}}' % version

    def pages_of(part):
        for page in pages(sorted(part), size):
            page.bodies[:] = [body(part[key]) for key in page.keys]
            yield page

    sources = [pages_of(part) for part in parts]
    merge = Merge(len(parts))
    shown = {}
    while True:
        for part in merge.hungry:
            merge.feed(part, next(sources[part]))
        batch = merge.take(limit)
        assert not shown.keys() & set(batch.keys)
        assert list(batch.keys) == sorted(set(batch.keys))
        shown.update(zip(batch.keys, batch.bodies, strict=True))
        if not merge.hungry and not merge.remaining:
            break
    assert list(shown) == sorted(shown)
    newest = {key: max(part.get(key, 0) for part in parts) for part in parts for key in part}
    assert shown == {key: body(version) for key, version in newest.items()}
