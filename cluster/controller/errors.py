"""What ends a reconcile, a term or a controller."""

from __future__ import annotations

from ...shards.model.errors import ShoalError, TimedOut


class TerminalError(Exception):
    """Raised by a reconcile: trying again is no use until the object changes. The item is parked at once."""


class LeadershipLost(ShoalError):  # noqa: N818 - the name says it
    """Somebody else leads, or may do so any moment; what was done as the leader was cancelled."""


class NotSynced(TimedOut):
    """Sources did not have everything in time, so that no worker was started; the message names them."""
