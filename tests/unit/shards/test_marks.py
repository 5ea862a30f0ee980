"""What is remembered of versions that readers of other partitions were shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.shards.model.versions import UNKNOWN, Version
from shoal.shards.store.marks import Marks


def marks(*versions: int) -> Marks:
    made = Marks()
    for version in versions:
        made.note(Version(version))
    return made


def test_the_newest_counts() -> None:
    assert marks().newest == UNKNOWN
    assert marks(5, 9, 7).newest == 9


def test_a_newer_server_refutes_nothing() -> None:
    made = marks(5, 9)
    assert not made.refute(made.noted, Version(9))
    assert made.newest == 9


def test_what_was_there_when_the_server_was_asked_is_not_newer_than_it_says() -> None:
    made = marks(600, 100_000)
    assert made.refute(made.noted, Version(650))
    assert made.newest == 650


def test_what_came_meanwhile_still_counts() -> None:
    made = marks(100_000)
    asked = made.noted
    made.note(Version(700))
    assert made.refute(asked, Version(650))
    assert made.newest == 700
    late = marks(100_000)
    asked = late.noted
    late.note(Version(100_001))
    assert not late.refute(asked, Version(650)), "it may be true: the server was asked before"
    assert late.newest == 100_001


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(0, 30), st.integers(1, 50))
def test_against_all_marks_ever_noted(versions: list[int], asked: int, said: int) -> None:
    made = marks(*versions)
    made.refute(asked, Version(said))
    clamped = [min(version, said) if at < asked else version for at, version in enumerate(versions)]
    # Never less than is true, and the list's own version at the most where something was refuted.
    least = max(clamped, default=0)
    assert made.newest >= least
    assert made.newest <= max(least, said if any(version > said for version in versions[:asked]) else 0)


def test_few_are_kept() -> None:
    made = marks(*range(1, 10_000), 3, 5, *range(10, 9_000))
    assert len(made._kept) == 2
