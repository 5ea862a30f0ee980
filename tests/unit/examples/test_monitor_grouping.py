"""When people are told: holding, gathering, repeating, and the ends of findings."""

import pytest
from gateway_monitor.findings import Changed, Finding, Opened, Resolved, Subject
from gateway_monitor.grouping import Group, Grouper, Notification, merged

HOLD = {"route_down": 10.0}


def finding(name="web", *, check="field_changed", severity="warning", since=0.0, **more):
    return Finding(
        check=check, subject=Subject("x", more.pop("namespace", "shop"), name), severity=severity,
        summary=more.pop("summary", f"{name} is bad"), since=since, **more,
    )  # fmt: skip


@pytest.fixture
def grouper():
    return Grouper(group_wait_s=5, repeat_s=100, hold_s=HOLD)


def told(notifications):
    return [
        (str(one.group), [f.subject.name for f in one.firing], [r.finding.subject.name for r in one.resolved])
        for one in notifications
    ]


def test_findings_of_a_severity_and_namespace_are_told_together(grouper):
    grouper.offer([Opened(finding("a"))], 0)
    grouper.offer([Opened(finding("b")), Opened(finding("c", severity="critical"))], 3)
    grouper.offer([Opened(finding("d", namespace="other"))], 3)
    assert grouper.due(4.9) == []
    assert grouper.next_at == 5
    assert told(grouper.due(5)) == [("warning in shop", ["a", "b"], [])]
    assert told(grouper.due(8)) == [("critical in shop", ["c"], []), ("warning in other", ["d"], [])]
    assert {one.subject.name for one in grouper.told} == {"a", "b", "c", "d"}


def test_what_is_over_before_anybody_was_told_is_never_told(grouper):
    one = finding(check="route_down", since=0)
    grouper.offer([Opened(one)], 0)
    assert grouper.due(14) == []
    grouper.offer([Resolved(one, 14)], 14)
    assert grouper.next_at is None
    assert grouper.due(1000) == []


def test_what_is_held_is_told_when_it_has_lasted(grouper):
    grouper.offer([Opened(finding(check="route_down")), Opened(finding("b"))], 0)
    assert told(grouper.due(5)) == [("warning in shop", ["b"], [])]
    assert told(grouper.due(15)) == [("warning in shop", ["web"], [])]


def test_an_end_is_told_and_then_forgotten(grouper):
    one = finding()
    grouper.offer([Opened(one)], 0)
    grouper.due(5)
    grouper.offer([Resolved(one, 20)], 20)
    assert grouper.told == []
    assert told(grouper.due(25)) == [("warning in shop", [], ["web"])]
    assert grouper.next_at is None


def test_over_and_back_before_the_end_was_told_has_not_happened(grouper):
    one = finding()
    grouper.offer([Opened(one)], 0)
    grouper.due(5)
    grouper.offer([Resolved(one, 20)], 20)
    grouper.offer([Opened(one)], 22)
    assert grouper.due(30) == []
    assert told(grouper.due(122)) == [("warning in shop", ["web"], [])]


def test_it_is_repeated_and_not_before(grouper):
    grouper.offer([Opened(finding())], 0)
    [first] = grouper.due(5)
    assert not first.repeated
    assert grouper.due(104) == []
    [again] = grouper.due(105)
    assert again.repeated
    assert grouper.due(204) == []


def test_another_text_is_told_and_other_details_are_not(grouper):
    one = finding()
    grouper.offer([Opened(one)], 0)
    grouper.due(5)
    grouper.offer([Changed(finding(details=("pod 1",)))], 10)
    assert grouper.due(60) == []
    grouper.offer([Changed(finding(summary="worse", details=("pod 1",)))], 60)
    [changed] = grouper.due(65)
    assert changed.firing[0].summary == "worse"
    assert not changed.repeated


def test_another_severity_leaves_one_group_and_comes_into_another(grouper):
    grouper.offer([Opened(finding())], 0)
    grouper.due(5)
    grouper.offer([Changed(finding(severity="critical"))], 10)
    assert told(grouper.due(15)) == [("critical in shop", ["web"], []), ("warning in shop", [], ["web"])]
    grouper.offer([Resolved(finding(severity="critical"), 20)], 20)
    assert told(grouper.due(25)) == [("critical in shop", [], ["web"])]
    assert grouper.next_at is None


def test_an_end_that_nobody_heard_the_beginning_of(grouper):
    grouper.offer([Resolved(finding(), 1)], 1)
    assert grouper.due(100) == []


GROUP = Group("warning", "shop")


def note(firing=(), resolved=(), *, repeated=False):
    return Notification(
        GROUP,
        tuple(finding(name) for name in firing),
        tuple(Resolved(finding(name), 9) for name in resolved),
        repeated,
    )


@pytest.mark.parametrize(
    ("earlier", "later", "result"),
    [
        (note(["a"]), note(["b"]), (["a", "b"], [])),
        (note(["a"]), note([], ["a"]), ([], [])),
        (note([], ["a"]), note(["a"]), (["a"], [])),
        (note(["a"]), note([], ["b"]), (["a"], ["b"])),
    ],
)
def test_two_notifications_become_one(earlier, later, result):
    assert told([merged(earlier, later)]) == [("warning in shop", *result)]


def test_what_has_something_new_in_it_is_no_repetition():
    assert merged(note(["a"], repeated=True), note(["a"], repeated=True)).repeated
    assert not merged(note(["a"], repeated=True), note(["b"])).repeated
