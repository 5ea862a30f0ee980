"""The validators of `support.guarantees` themselves: good histories pass, each kind of bad one is found."""

import pytest
from support import guarantees
from support.guarantees import GuaranteeBroken, Past, Sighting


@pytest.fixture
def past():
    made = Past()
    for key, version, uid in [
        ("n/a", 1, "u1"),
        ("n/b", 2, "u2"),
        ("n/a", 3, "u1"),
        ("n/b", 4, None),
        ("n/b", 6, "u3"),
    ]:
        made.happened(key, version, uid)
    return made


def everywhere(namespace, uid):
    return True


def seen(frontier, **versions):
    return Sighting(float(frontier), frontier, {f"n/{name}": version for name, version in versions.items()})


def broken(promise):
    return pytest.raises(GuaranteeBroken, match=f"^{promise}: ")


def test_the_past_knows_every_state(past):
    assert past.at("n/a", 0) is None
    assert past.at("n/a", 2) == (1, "u1")
    assert past.at("n/b", 5) is None
    assert past.all_at(3, everywhere) == {"n/a": 3, "n/b": 2}
    assert past.all_at(6, lambda _, uid: uid == "u3") == {"n/b": 6}


def test_complete():
    guarantees.complete({"n/a": 3}, {"n/a": 3}, where="p")
    for held in ({}, {"n/a": 2}, {"n/a": 3, "n/b": 1}):
        with broken("Complete"):
            guarantees.complete(held, {"n/a": 3}, where="p")


def test_subsequence(past):
    guarantees.subsequence(
        [seen(2, a=1, b=2), seen(3, a=3, b=2), seen(5, a=3), seen(6, a=3, b=6)], past, where="p"
    )
    bad = {
        "an object went back": [seen(3, a=3), seen(4, a=1)],
        "the frontier went back": [seen(4, a=3), seen(3, a=3)],
        "a state that never was": [seen(3, a=2)],
        "a deleted object came back as it was": [seen(3, b=2), seen(4), seen(5, b=2)],
    }
    for sightings in bad.values():
        with broken("Subsequence"):
            guarantees.subsequence(sightings, past, where="p")


def test_snapshot(past):
    guarantees.snapshot(seen(5, a=3), past, everywhere, where="p")
    for sighting in (seen(5, a=3, b=2), seen(5, a=1), seen(5), seen(6, a=3)):
        with broken("Snapshot pages"):
            guarantees.snapshot(sighting, past, everywhere, where="p")


def test_snapshot_pages():
    guarantees.snapshot_pages([(5, ["n/a", "n/b"]), (5, ["n/c"])], where="p")
    for pages in ([(5, ["n/a"]), (6, ["n/b"])], [(5, ["n/a"]), (5, ["n/a"])], [(5, ["n/b", "n/a"])]):
        with broken("Snapshot pages"):
            guarantees.snapshot_pages(pages, where="p")


def test_no_double():
    guarantees.no_double({"p": ["n/a"], "q": ["n/b"]})
    with broken("No double"):
        guarantees.no_double({"p": ["n/a"], "q": ["n/b", "n/a"]})


def test_no_gap():
    guarantees.no_gap([("n/a", 1, False), ("n/b", 2, False), ("n/b", 4, True)], {"n/a": 1}, where="w")
    bad = {
        "the last change is missing": [("n/a", 1, False)],
        "a deletion is missing": [("n/a", 3, False), ("n/b", 2, False)],
        "an event came twice": [("n/a", 3, False), ("n/a", 3, False)],
    }
    for events in bad.values():
        with broken("No gap"):
            guarantees.no_gap(events, {"n/a": 3}, where="w")


def test_honest():
    guarantees.honest(seen(5), 5, where="p")
    with broken("Honest"):
        guarantees.honest(seen(6), 5, where="p")
