"""What is held of a partition against a list of the API server, page by page. Pure.

What it keeps true: each page is compared with the state that is held *at the version of that page*, over the range of
keys it stands for: from the end of the page before it to its own last key. So nothing is compared twice or left out,
pages of one list may be of different versions (a list that goes on after its token expired), and of the resource there
is never more than a page beside what is held anyway.

Objects are compared by key, uid and version. There is no digest in between: hashing an object takes longer than
comparing it, and says less. Contents that differ under one version are not found.

Pages come in the order of keys. A server that has another order is told by the first page that does not fit
(`Unordered`).

Not decided here: when and how fast the list is asked for, and what follows (`shards.auditing`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple, TypeAlias

from ..model.observations import Listed
from ..model.refs import Key
from .entries import Entry
from .snapshot import AFTER_ALL, Snapshot

Kind: TypeAlias = Literal["missing", "surplus", "different"]
"""
========= =====================================================================================================
missing   the API server has the object, and it is not held
surplus   it is held, and the API server does not have it
different it is held with another uid, or in another version
========= =====================================================================================================
"""
KINDS: Final[tuple[Kind, ...]] = ("missing", "surplus", "different")

NAMED_MAX: Final = 20
"""So many differences are named by their keys; the rest is counted. A partition that differs much differs in all."""


class Difference(NamedTuple):
    """One object that is held in another way than the API server has it."""

    kind: Kind
    key: Key


class Unordered(Exception):  # noqa: N818 - a fact about the server, for whoever compares
    """Pages of a list are not in the order of keys."""


class Comparison:
    """One list against what is held. `admits` says which objects of the list are the partition's."""

    def __init__(self, admits: Callable[[str, str], bool]) -> None:
        self.compared = 0
        """Objects of the list so far."""
        self.counts: Counter[Kind] = Counter()
        self.named: list[Difference] = []
        """The first `NAMED_MAX`."""
        self._admits = admits
        self._after = ""

    def page(self, listed: Iterable[Listed], state: Snapshot, *, last: bool) -> None:
        """Takes one page, and what is held at its version. `last`: it stands for all keys that are left.

        Raises:
            Unordered: it begins before the page before it ended.
        """
        found = sorted(listed)
        self.compared += len(found)
        if found and self._after and found[0].key <= self._after:
            raise Unordered
        # "\0" is the smallest character: what follows is the next key after the last one compared.
        low = f"{self._after}\0" if self._after else ""
        high = AFTER_ALL if last else f"{found[-1].key}\0" if found else low
        if found:
            self._after = found[-1].key
        held = state.ordered(low, high)
        entry = next(held, None)
        for one in found:
            if not self._admits(one.namespace, one.uid):
                # Not the partition's. If an object of that name is held all the same, it is surplus.
                continue
            while entry is not None and entry.key < one.key:
                self._differs("surplus", entry.key)
                entry = next(held, None)
            if entry is None or entry.key != one.key:
                self._differs("missing", one.key)
                continue
            if not _same(entry, one):
                self._differs("different", one.key)
            entry = next(held, None)
        while entry is not None:
            self._differs("surplus", entry.key)
            entry = next(held, None)

    def _differs(self, kind: Kind, key: Key) -> None:
        self.counts[kind] += 1
        if len(self.named) < NAMED_MAX:
            self.named.append(Difference(kind, key))


def compare_one(listed: Iterable[Listed], entry: Entry | None, key: Key) -> Kind | None:
    """How one object is held in another way than a list shows it that was asked for it alone; None: it is not."""
    shown = next((one for one in listed if one.key == key), None)
    if shown is None:
        return None if entry is None else "surplus"
    if entry is None:
        return "missing"
    return None if _same(entry, shown) else "different"


def _same(entry: Entry, one: Listed) -> bool:
    return entry.version == one.version and entry.uid == one.uid


class AuditCounts:
    """What the audits of one partition have found since it was adopted. Single writer; read from other threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.outcomes: Counter[str] = Counter()
        """Audits by outcome, see `shards.auditing`."""
        self.divergence: Counter[str] = Counter()
        """Objects found to be held in another way than the API server has them, by `Kind`."""
        self.compared = 0
        """Objects of lists compared so far."""
        self._clock = clock
        self._ended_at: float | None = None

    def ended(self, outcome: str, *, conclusive: bool) -> None:
        """An audit is over."""
        self.outcomes[outcome] += 1
        if conclusive:
            self._ended_at = self._clock()

    @property
    def age_s(self) -> float | None:
        """Seconds since everything was last compared; None: not yet."""
        return None if self._ended_at is None else max(0.0, self._clock() - self._ended_at)
