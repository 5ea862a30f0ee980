"""Counters of all watches of a gateway: plain numbers that whoever exports them reads when asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class WatchStatistics:
    """What has happened since the gateway began; `feeds_open` is what there is now."""

    events: int = 0
    """Lines written to watchers as they came, after their initial events or replays; one for each watcher."""
    feeds_open: int = 0
    """Partitions followed."""
    feeds_reopened: int = 0
    """Feeds that were lost and found again."""
    overtakings: int = 0
    """Overtakings that shards acknowledged."""
    proofs: int = 0
    """Times a shard had to prove a frontier because names of its partition move to others, and the feed was silent."""
    expired: int = 0
    """Watches told 410: the version they began with, or their place in a feed, is forgotten."""
    lost: int = 0
    """Watches ended because a shard they need was away for too long."""
    slow: int = 0
    """Watches whose client was too far behind, or gone, when an event was to be written."""
    overrun: int = 0
    """Replays begun again because too much happened while the past was told."""
