"""Settings of informers. Plain frozen values."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ...coordinator.settings import DiscoverySettings
from ...shards.settings import Count, Positive, StoreSettings, WatchSettings


class InformerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of all informers of one factory."""

    watch: WatchSettings = WatchSettings()
    store: StoreSettings = StoreSettings()
    """How objects are held. An informer keeps no history, so `history_s` and `history_bytes` have no effect."""
    discovery: DiscoverySettings = DiscoverySettings()
    lists_at_once: Count = 8
    """Lists of one factory at the same time. One list decodes on one core; more of them only wait for each other."""
    hung_s: Positive = 30.0
    """A handler that has been running for so long is reported."""
    slow_s: Positive = 1.0
    """A call of a handler that took so long is counted as slow."""
    drain_s: Annotated[float, Meta(ge=0)] = 5.0
    """For so long, when an informer is closed, its handlers may go on with what they were not told yet."""
    return_first_s: Positive = 1.0
    """Pause before a resource that vanished is looked for; pauses double up to `return_max_s`, and vary by a half."""
    return_max_s: Positive = 30.0

    def __post_init__(self) -> None:
        """Raises ValueError where two settings contradict each other."""
        if self.return_first_s > self.return_max_s:
            raise ValueError(
                f"return_first_s is {self.return_first_s:g}: expected at most return_max_s, {self.return_max_s:g}"
            )
