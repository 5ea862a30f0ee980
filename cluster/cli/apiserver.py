"""``shoal apiserver``: the embedded API server in a process of its own, for development, tests and demonstrations."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop
import yaml

from ...shards.model.errors import SettingsError
from ..gateway.server import parse_listen
from ..serving.identity import MASTERS
from ..simulator.churn import Churn
from ..simulator.cluster_file import read_cluster
from ..simulator.filling import DirectWrites, fill
from ..simulator.population import population
from ..simulator.server import ApiServer, Tls, build_app
from ..simulator.settings import SimulatorSettings, User
from ..simulator.write_kubeconfig import write_kubeconfig
from .follow import interruptible


@click.command(short_help="Run an embedded API server, for trials and tests.")
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0: a free one.",
)
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path), help="Write a kubeconfig for this server here."
)
@click.option(
    "--pods", type=click.IntRange(min=0), default=0, help="Make so many pods and what belongs around them."
)
@click.option(
    "--cluster-file",
    metavar="FILE",
    help="Load objects from FILE (JSON lines, zstd); `recorded` is a medium cluster that comes with Shoal.",
)
@click.option("--rate", type=click.FloatRange(min=0), default=0.0, help="Changes a second to make.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of made-up objects and changes.")
@click.option("--shard-selector", is_flag=True, help="Server-side sharded list and watch (KEP-5866).")
@click.option("--no-streaming-list", is_flag=True, help="Refuse sendInitialEvents, as servers before 1.34.")
@click.option("--legacy-discovery", is_flag=True, help="No aggregated discovery, as servers before 1.27.")
@click.option("--token", help="Ask for this bearer token; default: everybody may do everything.")
@click.option(
    "--users",
    metavar="FILE",
    help="Users with tokens and rules (YAML list of name, token, groups, rules: verbs, groups, resources, namespaces); "
    "under --rbac without rules.",
)
@click.option(
    "--rbac",
    is_flag=True,
    help="Roles and bindings decide, as in a real cluster; whoever has --token or is in the group system:masters may "
    "do everything.",
)
@click.option("--tls-cert-file", type=click.Path(path_type=Path), help="Serve HTTPS with this certificate.")
@click.option("--tls-private-key-file", type=click.Path(path_type=Path), help="Key of the certificate.")
@click.option(
    "--client-ca-file", type=click.Path(path_type=Path), help="Ask for client certificates of this authority."
)
@click.option("--with-parent", is_flag=True, hidden=True, help="End when standard input does.")
def apiserver(*, with_parent: bool, **options: Any) -> None:
    """Run an embedded API server: kubectl and every other client work against it.

    It says where it listens once it does: in words on a terminal, else as one line of JSON. Faults are armed at
    /simulator/faults, the rate of changes is set at /simulator/churn.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(interruptible(_until_alone(_serve(**options)) if with_parent else _serve(**options)))


async def _until_alone(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main` until standard input ends, which it does with the process at its other end, however that ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    serving = asyncio.create_task(main, name="serve")
    listening = asyncio.create_task(reader.read(), name="parent")
    try:
        await asyncio.wait((serving, listening), return_when=asyncio.FIRST_COMPLETED)
    finally:
        serving.cancel()
        listening.cancel()
        transport.close()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def _serve(
    *,
    listen: str,
    kubeconfig: Path | None,
    pods: int,
    cluster_file: str | None,
    rate: float,
    seed: int,
    shard_selector: bool,
    no_streaming_list: bool,
    legacy_discovery: bool,
    token: str | None,
    users: str | None,
    rbac: bool,
    tls_cert_file: Path | None,
    tls_private_key_file: Path | None,
    client_ca_file: Path | None,
) -> None:
    host, port = parse_listen(listen)
    tls = _tls(tls_cert_file, tls_private_key_file, client_ca_file, optional=rbac)
    known = (*(_administrator(token) if token else ()), *(_users(users, rbac=rbac) if users else ()))
    if rbac and not known and client_ca_file is None:
        raise SettingsError("--rbac without --token, --users or --client-ca-file lets nobody do anything")
    settings = SimulatorSettings(
        seed=seed,
        shard_selector=shard_selector,
        watch_list=not no_streaming_list,
        aggregated_discovery=not legacy_discovery,
        users=known,
        rbac=rbac,
    )
    app = build_app(settings)
    objects = 0
    if cluster_file:
        objects += fill(app.verbs, read_cluster(None if cluster_file == "recorded" else cluster_file))
    if pods:
        objects += fill(
            app.verbs,
            ((made.resource, made.body) for made in population(pods, seed=seed, now=datetime.now(UTC))),
        )
    # The population lives as long as the process: the collector need not look at it again and again.
    gc.freeze()
    churn = Churn(DirectWrites(app.verbs), rate=rate, seed=seed)
    app.control.churn = churn
    authority = tls.certificate.read_bytes() if tls else None
    async with ApiServer(app, host=host, port=port, tls=tls) as server, asyncio.TaskGroup() as group:
        if kubeconfig is not None:
            own = known[0].token if known else None
            write_kubeconfig(kubeconfig, server.url, ca_certificate=authority, token=own)
        ready = {"url": server.url, "objects": objects, "kubeconfig": str(kubeconfig or "")}
        if sys.stdout.isatty():
            click.echo(f"API server at {server.url} with {objects} objects; Ctrl-C ends it.")
        else:
            click.echo(msgspec.json.encode(ready))
        sys.stdout.flush()
        await group.create_task(churn.run(), name="churn")


def _administrator(token: str) -> tuple[User, ...]:
    """The one with ``--token``, who may do everything, by rules or by roles."""
    return (User(name="shoal", token=token, groups=(MASTERS,)),)


def _users(path: str, *, rbac: bool) -> list[User]:
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        users = msgspec.convert(document, list[User])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise SettingsError(f"users file {path}: {error}") from error
    ruled = [entry["name"] for entry in document if "rules" in entry]
    if rbac and ruled:
        raise SettingsError(
            f"users file {path}: the rules of {', '.join(ruled)} do not count with --rbac: leave them out, and create "
            "roles and bindings"
        )
    return users


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None, *, optional: bool) -> Tls | None:
    if certificate is None and key is None:
        if client_ca is not None:
            raise SettingsError("--client-ca-file goes with --tls-cert-file and --tls-private-key-file")
        return None
    if certificate is None or key is None:
        raise SettingsError("--tls-cert-file and --tls-private-key-file go together")
    for file in (certificate, key, client_ca):
        if file is not None and not file.is_file():
            raise SettingsError(f"there is no file {file}")
    return Tls(certificate, key, client_ca, optional=optional)
