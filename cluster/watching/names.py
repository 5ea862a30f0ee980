"""Names that change their partition: an object that is deleted and made again has another uid, and where partitions are
ranges of uid it may then be in a *sibling*. What a replay makes of that.

Of partitions that are watched together the order of versions is kept live, because one with siblings is cleared by its
frontier alone (`lanes`): the deletion is always told before the new object. A client that comes back is told the newest
state of each object in each partition, and there the deletion of the old object, at version 7, may come to a client
that has been shown the new one, at 9: in a list, which takes of two objects of one name the newer; or before it left,
if the deletion is one of those that a shard repeats (it was late, or came soon after the shard's first list). So a
change is left out if a sibling tells of the name at a newer version:

- in its own answers of the round; or
- at a version up to the position it was asked from, which its answers leave out. Only a change that is not newer than
  that position can be concerned; so where there are such, the sibling is also asked for what it had told from the
  oldest of them on. If its history does not reach back, it is asked for the name alone, whether it had it at that
  position.

*Nothing is lost by that.* In the first case the newer state is told in this round, or by the sibling again to a client
that leaves before. In the second one the client has been shown it. Siblings are asked with the watcher's selectors:
where the new object is not selected, the deletion of the old one is told.

Answers of several pages are asked for twice, first for their names alone: what is kept of each is a name and a version.

Limits: where a sibling's history is too short, and the name came and went there before it begins, a client may be told
again that the object is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations

import msgspec

from ...shards.model.covers import names_roam, share_names
from ...shards.model.errors import Expired
from ...shards.model.partitions import Cover, Partition, PartitionId
from ...shards.model.queries import Change, PageAnswer, PageQuery
from ...shards.model.refs import Key, ref_of
from ...shards.model.versions import UNKNOWN, Version
from ..query.gather import all_of
from ..query.merge import version_of
from .asking import WAIT_S, Asking, ChangesCursor
from .selection import Selector


def siblings_of(partitions: Collection[Partition]) -> dict[PartitionId, frozenset[PartitionId]]:
    """For each partition of a division whose names can move, those they can move to. No others are in it."""
    alike: dict[str, list[Partition]] = {}
    for partition in partitions:
        if names_roam(partition.cover):
            alike.setdefault(_namespaces(partition.cover), []).append(partition)
    groups = [set(group) for group in alike.values()]
    for one, other in combinations(alike.values(), 2):
        if share_names(one[0].cover, other[0].cover):
            groups.append({*one, *other})
    found: dict[PartitionId, set[PartitionId]] = {}
    for group in groups:
        names = {partition.id for partition in group}
        for name in names:
            found.setdefault(name, set()).update(names - {name})
    return {name: frozenset(others) for name, others in found.items()}


def _namespaces(cover: Cover) -> str:
    """Equal for ranges of uid of equal namespaces."""
    return str(cover).rpartition("uid:")[0]


class Superseded:
    """What is left out of one round, because a sibling tells of the same name at a newer version."""

    def __init__(
        self,
        asking: Asking,
        selector: Selector,
        siblings: Mapping[PartitionId, frozenset[PartitionId]],
        positions: Mapping[PartitionId, Version],
    ) -> None:
        """`positions`: where the round began; partitions that are not in it are not watched."""
        self._asking = asking
        self._selector = selector
        watched = positions.keys()
        self._siblings = {name: siblings[name] & watched for name in positions if name in siblings}
        self._positions = dict(positions)
        self._told: dict[Key, list[tuple[Version, PartitionId]]] = {}
        self._oldest: dict[PartitionId, Version] = {}
        """Of changes in the answers of each partition."""
        self._short: set[PartitionId] = set()
        """Partitions whose history does not reach back as far as it was asked for."""

    async def look(self, answers: Iterable[ChangesCursor]) -> None:
        """Notes the names in the answers of partitions with siblings, and where these can be newer elsewhere. The first
        pages are there; a partition's first answer is before its second one.

        Raises:
            Expired, NotServed, NotReady: as `ShardHandle.changes`.
        """
        concerned = [answer for answer in answers if self._siblings.get(answer.partition)]
        for answer in concerned:
            self._note(answer)
        await all_of([self._look_through(answer) for answer in concerned if answer.more])
        first: dict[PartitionId, ChangesCursor] = {}
        for answer in concerned:
            first.setdefault(answer.partition, answer)
        await all_of([self._look_back(answer, since) for answer, since in self._behind(first.values())])

    async def holds_back(self, change: Change, partition: PartitionId) -> bool:
        """Whether this change of `partition` is not to be told. Raises as `ShardHandle.page`."""
        siblings = self._siblings.get(partition)
        if not siblings:
            return False
        told = self._told.get(change.key, ())
        if any(version > change.version and other in siblings for version, other in told):
            return True
        doubtful = [name for name in siblings & self._short if self._positions[name] >= change.version]
        newer = await all_of([self._newest(name, change.key) for name in doubtful])
        return any(version > change.version for version in newer)

    def _note(self, answer: ChangesCursor) -> None:
        name = answer.partition
        for change in answer.page:
            self._told.setdefault(change.key, []).append((change.version, name))
            self._oldest[name] = min(self._oldest.get(name, change.version), change.version)

    async def _look_through(self, answer: ChangesCursor) -> None:
        """Asks for the same answer again, and notes the names on its other pages."""
        again = ChangesCursor(self._asking, msgspec.structs.replace(answer.query, until=answer.frontier))
        try:
            await again.next()
            while again.more:
                await again.next()
                self._note(again)
        finally:
            await again.aclose()

    def _behind(self, answers: Iterable[ChangesCursor]) -> list[tuple[ChangesCursor, Version]]:
        """Those that began later than changes of their siblings, each with the oldest of these."""
        found = []
        for answer in answers:
            versions = [
                self._oldest[name] for name in self._siblings[answer.partition] if name in self._oldest
            ]
            if versions and min(versions) <= self._positions[answer.partition]:
                found.append((answer, min(versions)))
        return found

    async def _look_back(self, answer: ChangesCursor, since: Version) -> None:
        """Notes what the partition had told of before the round, from `since` on."""
        until = self._positions[answer.partition]
        before = ChangesCursor(self._asking, msgspec.structs.replace(answer.query, since=since, until=until))
        try:
            while before.more:
                await before.next()
                self._note(before)
        except Expired:
            self._short.add(answer.partition)
        finally:
            await before.aclose()

    async def _newest(self, partition: PartitionId, key: Key) -> Version:
        """The version in which a partition had an object of this name at the position asked from, if the selectors let
        it be seen.
        """
        selector, ref = self._selector, ref_of(key)
        name = f"metadata.name={ref.name}"
        query = PageQuery(
            partition=partition,
            epoch=self._asking.routing.table.epoch,
            namespace=ref.namespace or None,
            labels=selector.labels,
            fields=f"{selector.fields},{name}" if selector.fields else name,
            shards=selector.shards,
            limit=1,
            at=self._positions[partition],
            wait_s=WAIT_S,
        )
        shard = self._asking.shard_of(partition)
        page: PageAnswer = await self._asking.ask(shard, lambda handle: handle.page(query))
        return version_of(page.bodies[0]) if page.bodies else UNKNOWN
