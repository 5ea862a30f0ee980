"""Settings of one shard: how it connects, follows and holds. Plain frozen values; nothing is read from outside.

`cluster.settings` composes them with the other rooms' and reads the YAML file. Every field is read somewhere:
``tests/unit/test_house_rules.py`` checks that.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[float, Meta(gt=0, le=1e9)]
Count = Annotated[int, Meta(ge=1)]


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The connection to the API server."""

    connect_timeout_s: Positive = 10.0
    """Seconds for TCP and TLS together."""
    request_timeout_s: Positive = 60.0
    """Seconds without a byte before a request that is not a watch is given up."""
    connections: Count = 512
    """Connections to the API server at the same time from one process; each watch takes one."""


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The list-watch loop. Defaults are client-go's (``tools/cache/reflector.go``) unless the field says otherwise."""

    streaming_list: Literal["auto", "never"] = "auto"
    """``auto`` tries the streaming list first and falls back to pages for good where the server refuses it."""
    page_limit: Count = 500
    """Objects a page of a LIST."""
    timeout_min_s: Positive = 300.0
    """A watch asks for a timeout between this and twice this, so that watches do not end together."""
    grace_s: Positive = 5.0
    """A stream that outlives the timeout it asked for by this is dead and is reopened."""
    list_silence_s: Positive = 60.0
    """Seconds without a byte before a list that is not complete, of either form, is given up. kube-apiserver itself
    gives up a LIST after 60 s (``--request-timeout``)."""
    backoff_first_s: Positive = 0.8
    backoff_max_s: Positive = 30.0
    backoff_reset_s: Positive = 120.0
    """Healthy for this long: the next failure starts at `backoff_first_s` again."""
    refused_retry_s: Positive = 60.0
    """After 401 or 403. Slow, because only a person can change the answer."""
    line_bytes_max: Count = 64 << 20
    """A longer line is garbage. etcd refuses objects over 1.5 MiB by default; aggregated servers may not."""

    def __post_init__(self) -> None:
        """Raises ValueError where two settings contradict each other."""
        if self.backoff_first_s > self.backoff_max_s:
            raise ValueError(
                f"watch.backoff_first_s is {self.backoff_first_s:g}: expected at most watch.backoff_max_s, "
                f"{self.backoff_max_s:g}"
            )


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a partition keeps and how."""

    history_s: Positive = 300.0
    """Seconds an event stays in history; kube-apiserver keeps etcd's as long (``--etcd-compaction-interval``)."""
    history_bytes: Count = 16 << 20
    """Compressed bytes of history a partition; whichever bound is met first evicts."""
    dictionary_bytes: Count = 64 << 10
    """Size of the zstd dictionary trained per resource."""
    dictionary_samples: Count = 300
    """Objects collected before a dictionary is trained; smaller partitions are compressed without one."""
    compression_level: Annotated[int, Meta(ge=1, le=19)] = 1
    keep_managed_fields: bool = False


class ShardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything one shard needs to know."""

    api: ApiSettings = ApiSettings()
    watch: WatchSettings = WatchSettings()
    store: StoreSettings = StoreSettings()
