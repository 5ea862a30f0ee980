"""What ends a reconcile, a term or a controller."""

from __future__ import annotations

from ...shards.model.errors import ShoalError, TimedOut


class TerminalError(Exception):
    """Raised by a reconcile: trying again is no use until the object changes. The item is parked at once.

    It counts as well as the cause of another error (``raise … from``) and in an exception group.
    """


def is_terminal(error: BaseException | None) -> bool:
    """Whether it is a `TerminalError`, or has one among its causes (``raise … from``) or in its group.

    What merely happened to be handled when it was raised (``__context__``) does not count.
    """
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, TerminalError):
            return True
        # Causes may form a circle.
        seen.add(id(one))
        left.append(one.__cause__)
        if isinstance(one, BaseExceptionGroup):
            left.extend(one.exceptions)
    return False


class LeadershipLost(ShoalError):  # noqa: N818 - the name says it
    """Somebody else leads, or may do so any moment; what was done as the leader was cancelled."""


class NotSynced(TimedOut):
    """Sources did not have everything in time, so that no worker was started; the message names them."""
