"""All settings of an installation: the rooms' own, composed, read once from a YAML file.

Flags of the command line override the file; nothing else is read from outside. Values are frozen and passed in.
A setting that is unknown or of the wrong kind is refused with its path and what was expected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from ..coordinator.settings import (
    CoordinatorSettings,
    CutSettings,
    DiscoverySettings,
    FollowSettings,
    LivenessSettings,
    PermitSettings,
    PlacementSettings,
    ScalingSettings,
)
from ..shards.logs import Level
from ..shards.model.errors import SettingsError
from ..shards.settings import (
    ApiSettings,
    AuditSettings,
    FeedSettings,
    ShardSettings,
    SnapshotSettings,
    StoreSettings,
    TransferSettings,
    WatchSettings,
    WireSettings,
)
from .gateway.settings import AuthenticationSettings, AuthorizationSettings, ForwardingSettings, TlsSettings
from .watching.settings import WatchServingSettings

DEFAULT_LISTEN = "127.0.0.1:7480"


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The API server that is followed, and who we are to it."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; None: ``$KUBECONFIG``, else ``~/.kube/config``. Must be readable on every Ray node."""
    context: str | None = None
    """Context of the kubeconfig; None: its current one."""
    in_cluster: bool = False
    """Use the service account of the pod instead of a kubeconfig."""

    def __post_init__(self) -> None:
        if self.in_cluster and (self.kubeconfig is not None or self.context is not None):
            raise ValueError("source.in_cluster goes neither with source.kubeconfig nor with source.context")


class RaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Ray cluster the actors run on."""

    address: str | None = None
    """Address of a running Ray cluster (``auto``, ``host:port``); None: one is started on this machine and ends
    with the command."""
    shard_cpus: Annotated[float, Meta(gt=0)] = 1.0
    """CPUs Ray sets aside for a shard; one shard uses one core at most."""
    shard_memory_bytes: Annotated[int, Meta(gt=0)] | None = None
    """Memory Ray sets aside for a shard (admission only, not enforced by Ray); None: ``scaling.memory_bytes``."""
    service_cpus: Annotated[float, Meta(gt=0)] = 0.25
    """CPUs for the coordinator and for each gateway. Never 0: Ray would place them anywhere, the head included."""
    object_store_bytes: Annotated[int, Meta(ge=80 << 20)] = 256 << 20
    """Object store of a Ray cluster started here. Ray's own minimum is 75 MiB."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one gateway process takes upon itself; more is answered 429 with Retry-After. Health is always answered."""

    requests: Annotated[int, Meta(ge=1)] = 1024
    """Requests answered at once, watches and health not counted. kube-apiserver: 400 that read."""
    unidentified: Annotated[int, Meta(ge=1)] = 256
    """Requests of which the API server is being asked whose they are. Others, of whoever is known, go on meanwhile."""
    requests_per_user: Annotated[int, Meta(ge=1)] = 256
    """Of one user. Without authentication all are one."""
    watches: Annotated[int, Meta(ge=1)] = 20_000
    """Watches open at once."""
    watches_per_user: Annotated[int, Meta(ge=1)] = 10_000
    """Of one user."""
    lists: Annotated[int, Meta(ge=1)] = 32
    """Lists sent at once, each of which may buffer some 16 MB; more wait for 10 s at most."""
    lists_per_user: Annotated[int, Meta(ge=1)] = 24
    """Of one user, so that nobody's lists wait for somebody's slow reading alone."""
    connections: Annotated[int, Meta(ge=1)] = 30_000
    """Connections, TLS handshakes included. One more takes the place of the one that has been idle longest, those first
    that never asked anything; while none is idle, only health is answered on it, and a quarter more are closed unread.
    The process needs as many open files: a gateway takes what the system lets it have, and warns of less."""
    header_bytes: Annotated[int, Meta(ge=4096)] = 512 << 10
    """Request line, URL included, and headers of one request; more is answered 431. kube-apiserver allows 1 MiB; a
    continue token and a selector, each as long as it may be, take some 300 KiB."""
    header_s: Annotated[float, Meta(gt=0)] = 32.0
    """A connection whose TLS handshake is not done, or whose request has not arrived, by then is closed, as by
    kube-apiserver."""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Shoal answers."""

    listen: Annotated[str, Meta(pattern=r"^.+:\d+$")] = DEFAULT_LISTEN
    """``HOST:PORT``; port 0 takes a free one. Anything but loopback needs ``gateway.tls`` and tokens or client
    certificates in ``gateway.authentication``."""
    shard_timeout_s: Annotated[float, Meta(gt=0)] = 10.0
    """A shard that does not answer a query within this is missing, and the query answers 503."""
    tls: TlsSettings = TlsSettings()
    authentication: AuthenticationSettings = AuthenticationSettings()
    authorization: AuthorizationSettings = AuthorizationSettings()
    writes: Literal["refuse", "forward"] = "refuse"
    """``refuse``: 405, Shoal only reads. ``forward``: to the API server with the caller's own credentials."""
    forwarding: ForwardingSettings = ForwardingSettings()
    gateways: Annotated[int, Meta(ge=1, le=64)] = 1
    """Gateway processes that share the address; the kernel divides the connections among them. Each keeps its own
    limits, and its own feed from every shard that somebody watches through it. All of them run on the node where
    ``shoal up`` is run, also on a Ray cluster of several nodes; shards are placed anywhere."""
    watch_buffer_bytes: Annotated[int, Meta(ge=64 << 10)] = 64 << 20
    """A watch with more bytes than this waiting for its client, beyond what the connection holds, is cut off; so is one
    whose client takes nothing for 15 s, or whose lines have waited for 30 s. Watches that say the same share the bytes
    that wait, so a burst to a thousand of them is held once."""
    watching: WatchServingSettings = WatchServingSettings()
    limits: LimitSettings = LimitSettings()

    def __post_init__(self) -> None:
        """Raises ValueError where two settings contradict each other."""
        who = self.authentication
        if who.certificates and self.tls.client_ca is None:
            raise ValueError("gateway.authentication.certificates needs gateway.tls.client_ca")
        if self.tls.client_ca is not None and not who.certificates:
            raise ValueError(
                "gateway.tls.client_ca: client certificates are looked at only with gateway.authentication.certificates"
            )
        if self.writes == "forward" and who.certificates and not (who.tokens or who.anonymous):
            raise ValueError(
                "gateway.writes: forward passes on nothing of users known by a client certificate, which only they can "
                "show; it needs gateway.authentication.tokens"
            )


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logs of all processes."""

    level: Level = "warning"
    """Coordinator, shards and gateway log into Ray's log folder; with ``info`` and ``debug`` the command that started
    them shows it too, with ``debug`` together with what Ray itself has to say."""


class ShoalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    source: SourceSettings = SourceSettings()
    shards: Annotated[int, Meta(ge=1, le=1024)] = 2
    """Shards to run; with ``scaling.min_shards`` and ``scaling.max_shards``, to begin with."""
    follow: FollowSettings = FollowSettings()
    api: ApiSettings = ApiSettings()
    watch: WatchSettings = WatchSettings()
    store: StoreSettings = StoreSettings()
    feeds: FeedSettings = FeedSettings()
    wire: WireSettings = WireSettings()
    transfer: TransferSettings = TransferSettings()
    audits: AuditSettings = AuditSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    placement: PlacementSettings = PlacementSettings()
    scaling: ScalingSettings = ScalingSettings()
    cutting: CutSettings = CutSettings()
    permits: PermitSettings = PermitSettings()
    liveness: LivenessSettings = LivenessSettings()
    ray: RaySettings = RaySettings()
    gateway: GatewaySettings = GatewaySettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        """Raises ValueError where settings of different rooms contradict each other."""
        set_aside, needed = self.ray.shard_memory_bytes, 2 * self.scaling.process_bytes
        if self.scaling.memory_bytes is None and set_aside is not None and set_aside < needed:
            raise ValueError(
                f"ray.shard_memory_bytes is {set_aside}: expected at least twice scaling.process_bytes, "
                f"{self.scaling.process_bytes}, which a shard takes that holds nothing"
            )

    @property
    def shard_settings(self) -> ShardSettings:
        """What a shard is given."""
        return ShardSettings(
            api=self.api,
            watch=self.watch,
            store=self.store,
            feeds=self.feeds,
            wire=self.wire,
            transfer=self.transfer,
            audits=self.audits,
            snapshots=self.snapshots,
            lease_s=self.liveness.lease,
        )

    @property
    def coordinator_settings(self) -> CoordinatorSettings:
        """What the coordinator is given."""
        return CoordinatorSettings(
            follow=self.follow,
            placement=self.placement,
            scaling=self._scaling,
            cutting=self.cutting,
            permits=self.permits,
            discovery=self.discovery,
            liveness=self.liveness,
        )

    @property
    def _scaling(self) -> ScalingSettings:
        """What is said in one place for both: Ray sets aside what a shard may take."""
        if self.scaling.memory_bytes is None and self.ray.shard_memory_bytes is not None:
            return msgspec.structs.replace(self.scaling, memory_bytes=self.ray.shard_memory_bytes)
        return self.scaling


def load_settings(path: str | Path | None) -> ShoalSettings:
    """Reads a settings file; None gives the defaults.

    Raises:
        SettingsError: the file cannot be read, is not YAML, or holds an unknown or wrong setting.
    """
    if path is None:
        return ShoalSettings()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"settings file {path} is not YAML: {error}") from error
    return parse_settings({} if document is None else document, where=str(path))


def parse_settings(document: Any, *, where: str) -> ShoalSettings:
    """Makes settings of a parsed document; `where` names it in errors. Raises SettingsError."""
    try:
        return msgspec.convert(document, ShoalSettings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {_sentence(str(error))}") from error


def _sentence(problem: str) -> str:
    """Msgspec says ``Expected `int`, got `str` - at `$.gateway.listen` ``; people read ``gateway.listen: …``."""
    what, _, at = problem.partition(" - at `")
    path = at.rstrip("`").removeprefix("$").lstrip(".")
    if what.startswith("Object contains unknown field"):
        name = what.split("`")[1]
        return f"{path + '.' if path else ''}{name}: unknown setting; expected one of: {', '.join(_names_at(path))}"
    if path.startswith("key` in `"):
        return f"{path.removeprefix('key` in `').lstrip('$.') or 'the file'}: names of settings are text"
    if what.startswith("Invalid enum value"):
        return f"{path}: {what[:1].lower()}{what[1:]}; expected one of: {', '.join(_choices_at(path))}"
    if path and what.startswith(path):
        return what  # a check of the settings themselves, which names the path
    return f"{path or 'the file'}: {what[:1].lower()}{what[1:]}"


def _names_at(path: str) -> tuple[str, ...]:
    """Names of the settings below a path."""
    here: Any = ShoalSettings()
    for name in filter(None, path.split(".")):
        here = getattr(here, name, None)
    return tuple(field.name for field in msgspec.structs.fields(here)) if here is not None else ()


def _choices_at(path: str) -> tuple[str, ...]:
    """Values that a setting of a few values may have."""
    *outer, name = path.split(".")
    here: Any = ShoalSettings()
    for part in outer:
        here = getattr(here, part)
    return tuple(map(str, get_args(get_type_hints(type(here))[name])))
