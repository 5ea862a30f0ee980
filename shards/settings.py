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
    """After 401 or 403 again and again: pauses double from `backoff_first_s` up to this. The first are short, because
    a server that starts, or a token that is just being replaced, is refused for a moment; then slow, because only a
    person can change the answer."""
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
    settling_s: Annotated[float, Meta(ge=0)] = 15.0
    """For so long after a partition was listed, another shard may still let versions be shown that nobody here knows:
    a watch of several partitions that resumes is told again what arrived in that time."""


class FeedSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The feeds from a shard to gateways."""

    queue_events: Count = 50_000
    """A reader with more events than this waiting for it is cut off."""
    queue_bytes: Count = 64 << 20
    """And one with more bytes, compressed as they are held."""
    batch_events: Count = 500
    """Events sent in one piece."""
    batch_bytes: Count = 256 << 10
    """And their bytes, compressed, unless a single one is larger."""


class WireSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The direct connections on which gateways ask shards. Both sides of one keep to the settings of its shard."""

    frame_bytes_max: Annotated[int, Meta(ge=1 << 20, le=2 << 30)] = 128 << 20
    """The longest answer that is sent or taken. One object has to fit: see `WatchSettings.line_bytes_max`."""
    requests_max: Count = 1024
    """Queries of one answer in flight on one connection; more wait at the gateway."""
    streams_max: Count = 8192
    """Lists, replays and feeds open on one connection. A gateway keeps one feed for each partition that is watched."""
    window_bytes: Annotated[int, Meta(ge=64 << 10, le=1 << 30)] = 8 << 20
    """Bytes of one list or feed on their way; the next page is not read from the store before some were taken."""
    write_buffer_bytes: Annotated[int, Meta(ge=64 << 10, le=1 << 30)] = 4 << 20
    """A connection with more bytes than this to be written starts no further answer until they are fewer."""
    answer_timeout_s: Positive = 30.0
    """A shard gives a query up after this, and what the query itself allows for waiting; so does the gateway."""
    stream_idle_s: Positive = 60.0
    """A list nobody takes a page of for this long is ended, because the state it pages through stays in memory."""
    handshake_timeout_s: Positive = 5.0
    """For connecting and for proving to each other who one is. A shard waits 1 s of it for a gateway's greeting."""
    unauthenticated_max: Count = 64
    """Connections that have not proved yet who they are; with one more, a shard closes the one silent for longest."""
    keepalive_s: Annotated[float, Meta(ge=0.5, le=3600)] = 5.0
    """A peer that nothing was heard of for this long is gone. Each side says something three times as often."""
    tls_certificate: str | None = None
    """Path of a PEM file: the certificate (chain) of shards and gateways. Readable on every Ray node, as are the two
    below. None for all three: no TLS; peers still prove that the control plane made them known to each other."""
    tls_key: str | None = None
    """Path of the certificate's key, without a passphrase."""
    tls_ca: str | None = None
    """Path of the authorities that the other side's certificate has to be of. Names in certificates are not compared:
    shards come and go under addresses nobody knows beforehand; who one is, is proved by the secret of the shard."""

    def __post_init__(self) -> None:
        """Raises ValueError where TLS is set by half."""
        paths = {"tls_certificate": self.tls_certificate, "tls_key": self.tls_key, "tls_ca": self.tls_ca}
        missing = [name for name, path in paths.items() if not path]
        if 0 < len(missing) < len(paths):
            raise ValueError(
                f"wire.{missing[0]} is missing: expected all of wire.{', wire.'.join(paths)}, or none"
            )


class TransferSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How partitions pass from shard to shard without being listed."""

    piece_bytes: Annotated[int, Meta(ge=64 << 10, le=64 << 20)] = 1 << 20
    """Bytes of what a shard sends of a partition at a time; between two pieces it does everything else."""
    piece_timeout_s: Positive = 10.0
    """A source of which no piece came for so long is given up, and with it the attempt."""
    receive_timeout_s: Positive = 120.0
    """An attempt to receive one partition takes no longer than this. The API server must remember that far back, or the
    partition is listed after all."""
    receptions_max: Count = 4
    """Partitions a shard receives at once; more wait for their turn."""
    exports_max: Count = 8
    """Partitions a shard sends at once; who asks for one more is told to come back."""
    catch_up_timeout_s: Positive = 5.0
    """How long a shard that takes over a partition tries to get as far as its predecessor was."""
    thaw_s: Positive = 15.0
    """A shard that handed a partition over and was told nothing since follows it again after this. Whoever moves
    partitions has to be done, or to have given up, by then."""


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The comparison of what is held with the API server, in the background: one partition of a shard at a time."""

    period_s: Annotated[float, Meta(ge=0, le=1e9)] = 1800.0
    """Each partition is compared about this often, at times that differ by chance; 0: never."""
    objects_per_s: Count = 2000
    """A shard compares no more than this, on average over a page..."""
    bytes_per_s: Annotated[int, Meta(ge=64 << 10)] = 8 << 20
    """... and asks for no more than this. Metadata of a pod are some 2 KB, most of it managedFields. A partition that
    takes longer than its history reaches back (``store.history_s``, ``store.history_bytes``) cannot be compared to its
    end."""


class SnapshotSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a shard writes of its partitions, so that one that is started again need not list the API server."""

    location: str | None = None
    """A folder, or what fsspec takes (``s3://bucket/folder``; needs the extra ``snapshots``). Reachable on every Ray
    node under this name; a folder that is not shared serves shards that are started again on the same node. None: no
    snapshots."""
    every_s: Positive = 300.0
    """Between two snapshots of a partition, if enough of it changed meanwhile."""
    max_age_s: Positive = 3600.0
    """An older one is not used: the API server has forgotten what came since, and a list is due anyhow."""
    bytes_per_s: Annotated[int, Meta(ge=64 << 10)] = 32 << 20
    """A shard writes no faster than this."""
    secrets: bool = False
    """Secrets that are followed with their values (``follow.secrets: include``) are written too, uncovered."""


class ShardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything one shard needs to know."""

    api: ApiSettings = ApiSettings()
    watch: WatchSettings = WatchSettings()
    store: StoreSettings = StoreSettings()
    feeds: FeedSettings = FeedSettings()
    wire: WireSettings = WireSettings()
    transfer: TransferSettings = TransferSettings()
    audits: AuditSettings = AuditSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    lease_s: Positive | None = None
    """How long versions may be shown by the shard's leave without its coordinator (`shards.leasing`): shorter than that
    coordinator's ``liveness.dead_after_s``. None: for ever, where nobody gives shards up."""
