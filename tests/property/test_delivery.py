"""The coalescing queue of a handler, against a model: what each object went through."""

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.cluster.informers.delivery import Change, DeliveryQueue, End
from shoal.shards.store.entries import Entry, LabelSet

KEYS = ("a/x", "a/y", "b/x")
NO_LABELS = LabelSet(b"")

operations = st.lists(
    st.tuples(
        st.sampled_from(("change", "change", "change", "delete", "replace", "resync", "take", "take")),
        st.sampled_from(KEYS),
        st.booleans(),
    ),
    max_size=120,
)


class World:
    """The store's side: what is there now, and every state that ever was, by object."""

    def __init__(self) -> None:
        self.held: dict[str, Entry] = {}
        self.past: dict[str, list[Entry | None]] = {key: [None] for key in KEYS}
        self.version = 0
        self.uids = 0
        self.offered = 0

    def entry(self, key: str, uid: str) -> Entry:
        self.version += 1
        return Entry(key, uid, self.version, NO_LABELS, (), b"", None)

    def happens(self, what: str, key: str, flag: bool) -> Change | None:
        before = self.held.get(key)
        end = None
        match what:
            case "change":
                if before is None:
                    self.uids += 1
                after = self.entry(key, f"u{self.uids}" if before is None else before.uid)
            case "delete" if before is not None:
                self.version += 1
                after, end = None, End(self.version, flag)
            case "replace" if before is not None:
                self.uids += 1
                after, end = self.entry(key, f"u{self.uids}"), End(0, known=False)
            case "resync" if before is not None:
                after = before
            case _:
                return None
        if after is None:
            del self.held[key]
        else:
            self.held[key] = after
        self.past[key].append(after)
        self.offered += 1
        initial = before is None and flag
        return Change(key, before, after, float(self.version), initial, end)


class Told:
    """The handler's side: checks each change it takes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.state: dict[str, Entry] = {}
        self.position = dict.fromkeys(KEYS, 0)
        self.taken = self.initial = 0

    def take(self, change: Change) -> None:
        self.taken += 1
        key, before, after = change.key, change.before, change.after
        assert before is self.state.get(key), "each change begins where the one before it ended"
        if before is not None and after is not None:
            assert before.uid == after.uid, "another object is told as a delete and an add"
            assert change.end is None
            assert before.version <= after.version
        if after is None:
            assert before is not None
            assert change.end is not None
            last = change.end.last or before
            assert last.uid == before.uid
            assert last.version >= before.version
            assert any(last is state for state in self.world.past[key])
            if change.end.known:
                assert change.end.version > last.version
            self.state.pop(key)
        else:
            past = self.world.past[key]
            place = next(at for at in range(self.position[key], len(past)) if past[at] is after)
            self.position[key] = place
            self.state[key] = after
        self.initial += change.initial


@settings(max_examples=400, deadline=None)
@given(limit=st.integers(1, 6), done=operations)
def test_a_handler_is_told_a_subsequence_of_what_happened_and_ends_in_the_state_there_is(limit, done):
    world, queue = World(), DeliveryQueue(limit)
    told = Told(world)
    initial_offered = 0

    def take() -> bool:
        change = queue.take()
        if change is None:
            return False
        told.take(change)
        queue.done(change)
        return True

    for what, key, flag in done:
        if what == "take":
            take()
            continue
        change = world.happens(what, key, flag)
        if change is not None:
            initial_offered += change.initial
            queue.offer(change)
        assert len(queue) <= limit + len(KEYS) + 1, "bounded by the limit and the number of objects"
        assert 0 <= queue.initial_pending <= initial_offered
        assert (queue.oldest_at is None) == (len(queue) == 0)
    while take():
        pass
    assert told.state == world.held
    assert queue.initial_pending == 0
    assert not queue.merging
    assert len(queue) == 0
    assert told.initial <= initial_offered


@settings(max_examples=200, deadline=None)
@given(done=operations)
def test_a_queue_that_is_never_full_tells_every_single_change(done):
    world, queue = World(), DeliveryQueue(1000)
    told = Told(world)
    replaced = 0
    for what, key, flag in done:
        change = world.happens(what, key, flag) if what != "take" else None
        if change is not None:
            replaced += change.end is not None and change.after is not None
            queue.offer(change)
    while (change := queue.take()) is not None:
        told.take(change)
    assert told.taken == world.offered + replaced
    assert queue.coalesced == 0
    assert told.state == world.held
