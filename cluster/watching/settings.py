"""Settings of watches as the gateway serves them. Plain frozen values; `cluster.settings` composes them."""

from __future__ import annotations

import msgspec

from ...shards.settings import Positive


class WatchServingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long watches live, and what they wait for."""

    timeout_min_s: Positive = 1800.0
    """A watch that names no ``timeoutSeconds`` ends between this and twice this; kube-apiserver's
    ``--min-request-timeout``."""
    bookmark_s: Positive = 60.0
    """Who asks for bookmarks gets one at least this often."""
    linger_s: Positive = 30.0
    """Feeds of a resource stay open for so long after its last watcher has left."""
    patience_s: Positive = 10.0
    """A partition whose shard is silent or away for longer than this ends the watches that need it. They end in order:
    clients come back and meet a replacement, or a 503."""
