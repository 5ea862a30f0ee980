"""How many connections a server has, and which of them gives way when there are too many.

Whoever opens connections and asks nothing on them must not keep others out, health checks least of all: one more than
there may be takes the place of the connection that has been idle longest, first of those on which nothing was ever
asked, TLS handshakes among them, then of those kept open between requests. A connection whose request is being answered
never gives way. Belongs to one event loop; nothing here waits.

`open_files` sees to it that the process may have as many as it is meant to. Neighbours: `connection`, `handshake`.
"""

from __future__ import annotations

import logging
import resource
from collections import OrderedDict
from typing import Final, Protocol

log = logging.getLogger("shoal.cluster.crowd")

RESERVED_FILES: Final = 256
"""Open files of a process besides the connections of its clients: to shards, to the API server, of its runtime."""
CONNECTIONS_MIN: Final = 64
"""Allowed however few files there may be."""


class Member(Protocol):
    """A connection, or one to be."""

    def give_way(self) -> None:
        """Ends it at once."""


class Crowd:
    """The connections of one server. `most` of them are welcome; None: any number."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._all: set[Member] = set()
        self._fresh: OrderedDict[Member, None] = OrderedDict()
        self._kept: OrderedDict[Member, None] = OrderedDict()
        self.gave_way = 0
        """Connections that were ended for others."""

    def __len__(self) -> int:
        return len(self._all)

    def begins(self, member: Member) -> bool:
        """A connection on which nothing was asked yet; false if it is one too many, and none could give way."""
        fits = self._most is None or len(self._all) < self._most or self._one_gives_way()
        self._all.add(member)
        self._fresh[member] = None
        return fits

    def follows(self, member: Member, earlier: Member) -> bool:
        """`member` goes on where `earlier`, which was there, has ended; as `begins`."""
        self.ends(earlier)
        return self.begins(member)

    @property
    def unbearable(self) -> bool:
        """Whether there are so many more than welcome that nothing can be answered on another."""
        return self._most is not None and len(self._all) > self._most + max(16, self._most // 4)

    def busy(self, member: Member) -> None:
        """A request has arrived on it."""
        self._fresh.pop(member, None)
        self._kept.pop(member, None)

    def idle(self, member: Member) -> None:
        """All that was asked on it is answered."""
        if member in self._all:
            self._kept[member] = None

    def ends(self, member: Member) -> None:
        """It is over; safe to repeat."""
        self.busy(member)
        self._all.discard(member)

    def _one_gives_way(self) -> bool:
        idle = self._fresh or self._kept
        if not idle:
            return False
        member = next(iter(idle))
        self.ends(member)
        self.gave_way += 1
        member.give_way()
        return True


def open_files(connections: int) -> int:
    """Lets this process open the files that so many connections take, as far as the system does; says how many
    connections that makes, and warns if they are fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
        except (OSError, ValueError) as error:
            log.warning("the limit of open files cannot be raised", extra={"problem": str(error)})
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = max(CONNECTIONS_MIN, soft - RESERVED_FILES)
    if allowed < connections:
        log.warning(
            "fewer connections than gateway.limits.connections: raise the limit of open files (ulimit -n)",
            extra={"connections": allowed, "wanted": connections, "open_files": soft},
        )
    return min(connections, allowed)
