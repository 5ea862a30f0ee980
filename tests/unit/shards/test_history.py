"""The window of the past: floor, gaps, eviction by age and bytes, states taken back."""

from __future__ import annotations

import pytest

from shoal.shards.model.errors import Expired
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.bodies import Generation
from shoal.shards.store.entries import Entry, LabelSet
from shoal.shards.store.history import EVENT_BYTES, REMEMBERED_STATES, History

PLAIN = Generation(0, b"", 1)
A, B = Key("a"), Key("b")


def entry(key: Key, version: int) -> Entry:
    return Entry(key, f"uid-{key}", Version(version), LabelSet(b""), (), b"x" * 100, PLAIN)


def history(*, seconds: float = 100.0, size: int = 1 << 20) -> History:
    made = History(StoreSettings(history_s=seconds, history_bytes=size))
    made.restart(Version(10))
    return made


def test_a_state_is_the_newest_one_with_later_events_taken_back() -> None:
    window = history()
    a11, a13 = entry(A, 11), entry(A, 13)
    window.append(Version(11), A, None, a11, 0.0)
    window.append(Version(12), B, None, entry(B, 12), 0.0)
    window.append(Version(13), A, a11, a13, 0.0)
    window.append(Version(14), A, a13, None, 0.0)
    assert window.changes_since(Version(14)) == {}
    assert window.changes_since(Version(13)) == {A: a13}
    assert window.changes_since(Version(12)) == {A: a11}
    assert window.changes_since(Version(11)) == {A: a11, B: None}
    assert window.changes_since(Version(10)) == {A: None, B: None}


def test_a_state_asked_for_again_takes_in_what_happened_since() -> None:
    window = history()
    a11, b13 = entry(A, 11), entry(B, 13)
    window.append(Version(11), A, None, a11, 0.0)
    assert dict(window.changes_since(Version(11))) == {}
    window.append(Version(12), A, a11, entry(A, 12), 0.0)
    window.append(Version(13), B, None, b13, 0.0)
    assert dict(window.changes_since(Version(11))) == {A: a11, B: None}
    window.append(Version(14), B, b13, None, 0.0)
    assert dict(window.changes_since(Version(11))) == {A: a11, B: None}
    assert dict(window.changes_since(Version(13))) == {B: b13}


def test_a_correction_at_the_version_itself_belongs_to_its_state() -> None:
    window = history()
    window.append(Version(11), A, None, entry(A, 11), 0.0)
    assert dict(window.changes_since(Version(11))) == {}
    window.append(Version(11), B, None, entry(B, 9), 0.0)
    assert dict(window.changes_since(Version(11))) == {}
    assert dict(window.changes_since(Version(10))) == {A: None, B: None}


def test_older_than_the_floor_is_expired_in_kube_apiservers_words() -> None:
    with pytest.raises(Expired, match=r"^The resourceVersion for the provided list is too old\.$") as caught:
        history().changes_since(Version(9))
    assert caught.value.code == 410


def test_events_leave_by_age_and_the_floor_rises() -> None:
    window = history(seconds=100.0)
    for second in range(0, 300, 10):
        window.append(Version(11 + second), A, None, None, float(second))
    assert 9 <= len(window) <= 11
    assert window.oldest_version == next(iter(window)).version - 10
    window.changes_since(window.oldest_version)
    with pytest.raises(Expired):
        window.changes_since(Version(window.oldest_version - 1))


def test_events_leave_by_bytes() -> None:
    window = history(size=10 * (EVENT_BYTES + 100))
    for version in range(11, 100):
        window.append(Version(version), A, entry(A, version - 1), entry(A, version), 0.0)
        assert window.bytes <= 10 * (EVENT_BYTES + 100)
    assert len(window) in (9, 10)
    assert window.bytes == len(window) * (EVENT_BYTES + 100)
    assert window.oldest_version == 99 - len(window)


def test_a_window_too_small_for_one_event_holds_none() -> None:
    window = history(size=1)
    window.append(Version(11), A, None, entry(A, 11), 0.0)
    assert (len(window), window.bytes, window.oldest_version) == (0, 0, 11)
    assert window.changes_since(Version(11)) == {}


def test_events_of_one_version_leave_together() -> None:
    window = history(seconds=100.0)
    window.append(Version(11), A, None, None, 0.0)
    window.append(Version(11), B, None, None, 50.0)
    window.append(Version(12), A, None, None, 120.0)
    assert [event.version for event in window] == [12]


def test_versions_nobody_observed_are_expired_and_older_ones_are_not() -> None:
    window = history()
    a11 = entry(A, 11)
    window.append(Version(11), A, None, a11, 0.0)
    window.gap(Version(12), Version(20))
    window.append(Version(20), A, a11, entry(A, 20), 0.0)
    assert window.changes_since(Version(12)) == {A: a11}
    for version in (13, 19):
        with pytest.raises(Expired):
            window.changes_since(Version(version))
    assert window.changes_since(Version(20)) == {}


def test_gaps_are_forgotten_with_their_events() -> None:
    window = history(seconds=10.0)
    window.gap(Version(12), Version(20))
    window.append(Version(20), A, None, None, 0.0)
    window.append(Version(21), A, None, None, 100.0)
    window.append(Version(22), A, None, None, 200.0)
    assert not window._gaps


def test_past_states_kept_ready_are_bounded_and_leave_with_the_floor() -> None:
    window = history(seconds=10.0)
    for version in range(11, 40):
        window.append(Version(version), A, None, None, 0.0)
        window.changes_since(Version(version))
    assert len(window._states) == REMEMBERED_STATES
    window.append(Version(50), A, None, None, 100.0)
    assert not [version for version in window._states if version < window.oldest_version]


def test_restart_forgets() -> None:
    window = history()
    window.append(Version(11), A, entry(A, 10), None, 0.0)
    window.changes_since(Version(10))
    window.restart(Version(5))
    assert (len(window), window.bytes, window.oldest_version) == (0, 0, 5)
    assert window.changes_since(Version(5)) == {}


# -- unsettled events ----------------------------------------------------------------------------------------


def unsettled(*, seconds: float = 300.0, size: int = 1 << 20) -> History:
    window = history(seconds=seconds, size=size)
    window.settled_at = 15.0
    window.append(Version(17), A, entry(A, 5), None, 1.0, frontier=Version(10))
    return window


def versions(window: History, since: int) -> list[int]:
    return [event.version for event in window.window(Version(since))]


def test_an_unsettled_event_stays_until_the_frontier_has_passed_what_may_have_been_shown() -> None:
    """Whoever was shown 20 elsewhere, before anybody here was told so, is repeated it or has to list again."""
    window = unsettled()
    assert versions(window, 20) == [17]
    window.evict(400.0, Version(17), Version(20))
    assert versions(window, 20) == [17], "or a list at the newest version could not be watched from"
    window.evict(500.0, Version(21), Version(25))
    assert len(window) == 0
    with pytest.raises(Expired):
        window.window(Version(20))
    assert versions(window, 21) == []


def test_what_a_settled_server_said_bounds_what_unsettled_events_make_expire() -> None:
    window = unsettled()
    window.settle(Version(18))
    assert versions(window, 18) == [17]
    assert versions(window, 19) == [], "what was shown later was shown with everything that had come by then"
    window.evict(400.0, Version(30), Version(40))
    with pytest.raises(Expired):
        window.window(Version(18))
    assert versions(window, 19) == []


def test_unsettled_events_that_leave_for_want_of_room_make_all_expire_that_may_have_been_shown() -> None:
    window = unsettled(size=1)
    assert len(window) == 0
    window.append(Version(18), B, None, entry(B, 18), 2.0, frontier=Version(17), mark=Version(19))
    with pytest.raises(Expired):
        window.window(Version(19))
    # At the end of that time it is known what was shown in it.
    window.append(Version(24), B, None, entry(B, 24), 20.0, frontier=Version(18), mark=Version(22))
    with pytest.raises(Expired):
        window.window(Version(24))
    window.append(Version(26), B, None, entry(B, 26), 21.0, frontier=Version(24), mark=Version(22))
    assert versions(window, 26) == []


def test_late_events_that_keep_the_newest_version_from_expiring_may_take_more_than_their_bytes() -> None:
    """A burst of them made every version expire, and where nothing else was written, for ever."""
    size = EVENT_BYTES + 100
    window = history(size=2 * size)
    for version in range(11, 17):
        window.append(Version(version), A, entry(A, version - 1), entry(A, version), 0.0, mark=Version(20))
    assert versions(window, 20) == [11, 12, 13, 14, 15, 16]
    for version in range(17, 20):
        window.append(Version(version), A, entry(A, version - 1), entry(A, version), 0.0, mark=Version(20))
    assert len(window) <= 8, "not without bound"
    window.append(Version(21), A, entry(A, 19), entry(A, 21), 0.0, frontier=Version(19), mark=Version(20))
    window.evict(1.0, Version(21), Version(20))
    assert len(window) <= 2
    assert versions(window, 21) == []


# -- where a watch may begin ---------------------------------------------------------------------------------


def resumable(window: History, now: float, frontier: int) -> int:
    return window.resumable(now, Version(frontier))


def test_a_watch_may_begin_where_a_fresh_window_does() -> None:
    window = history(seconds=100.0)
    assert resumable(window, 0.0, 10) == 10
    window.append(Version(11), A, None, entry(A, 11), 0.0)
    assert resumable(window, 50.0, 11) == 10
    window.gap(Version(11), Version(20))
    assert resumable(window, 50.0, 20) == 20


def test_of_a_window_that_is_about_to_lose_events_it_may_begin_in_the_middle() -> None:
    aged = history(seconds=100.0)
    full = history(size=2 * 11 * (EVENT_BYTES + 100))
    for version in range(11, 31):
        aged.append(Version(version), A, None, entry(A, version), 0.0)
        full.append(Version(version), A, entry(A, version - 1), entry(A, version), 0.0)
    assert resumable(aged, 50.0, 30) == 10
    assert resumable(aged, 51.0, 30) == 21
    assert resumable(full, 0.0, 30) == 21


def test_nobody_is_sent_where_a_late_event_is_about_to_make_versions_expire() -> None:
    window = history(seconds=100.0)
    window.append(Version(11), A, None, entry(A, 11), 0.0, frontier=Version(10), mark=Version(25))
    for version in range(12, 41):
        window.append(Version(version), B, None, entry(B, version), 60.0, frontier=Version(version - 1))
    sent_to = resumable(window, 60.0, 40)
    assert sent_to == 26
    window.evict(120.0, Version(40))
    assert versions(window, sent_to)[0] == 27


def test_nobody_is_sent_where_unsettled_events_are_about_to_make_versions_expire() -> None:
    window = unsettled()
    for version in range(18, 41):
        window.append(Version(version), B, None, entry(B, version), 200.0, frontier=Version(version - 1))
    window.evict(200.0, Version(40), Version(40))
    sent_to = resumable(window, 200.0, 40)
    assert sent_to == 40
    window.append(Version(41), B, None, entry(B, 41), 310.0, frontier=Version(40))
    assert versions(window, 41) == []
