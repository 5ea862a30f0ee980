"""What a reflector needs of a store: the writing side of one partition.

The store (`store.objects.PartitionStore`) knows nothing of reflectors and lists; the reflector knows nothing
of bodies and indexes. There is one writer for each partition, and it never awaits between two calls it means
to be seen together.
"""

from __future__ import annotations

from typing import Protocol

from ..model.observations import Observation
from ..model.versions import Version
from ..store.marks import Moment


class PartitionWriter(Protocol):
    """Takes what following a partition yields. Checks the cover itself: what does not belong is dropped."""

    @property
    def synced(self) -> bool:
        """True from the first complete list on."""

    @property
    def frontier(self) -> Version:
        """The newest version up to which everything has been seen; `UNKNOWN` before the first list."""

    def begin(self) -> None:
        """Opens a fresh generation beside the one that is being read. An unfinished one is forgotten."""

    def put(self, observation: Observation) -> None:
        """An object of the fresh generation. The last word on a key counts, and may be that it was deleted:
        a streaming list may carry changes made while it runs.
        """

    def finish(self, version: Version) -> None:
        """The fresh generation is complete at `version` and replaces the old one in one step: readers see the
        difference as changes, never an empty moment.
        """

    def abandon(self) -> None:
        """The fresh generation will not be completed; the old one stays as it is."""

    def apply(self, observation: Observation) -> None:
        """One change, in the order of the server. What is not newer than what is held is ignored."""

    def advance(self, version: Version) -> None:
        """Everything up to `version` has been seen (a bookmark)."""


class ProvablePartition(PartitionWriter, Protocol):
    """What a proof of the frontier needs beyond that."""

    @property
    def listing(self) -> bool:
        """A list is under way: between `begin` and `finish` or `abandon`."""

    @property
    def turn(self) -> int:
        """Grows when a list begins and when it is complete."""

    @property
    def moment(self) -> Moment:
        """Now, as `told` wants it."""

    def told(self, version: Version, asked: Moment) -> None:
        """A consistent list that was asked for at `asked` says that the server is at `version`."""

    def proven(self, version: Version) -> None:
        """Everything up to `version` has been seen."""
