"""``shoal up``: following a real cluster.

In the foreground the command owns the Ray cluster it starts and takes everything down when it ends. ``--detach``
leaves that foreground command running in a session of its own and returns once it answers; with ``--ray-address`` no
process has to stay behind, because the actors live in that Ray cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource
from rich.console import Console

from ...shards.api.kubeconfig import Access, in_cluster, load_kubeconfig
from ...shards.logs import configure_logging
from ...shards.model.errors import SettingsError, ShoalError
from .. import ray_environment
from ..gateway.pages import REVIEWS
from ..gateway.server import bind, check, parse_listen
from ..gateway.settings import TlsSettings
from ..settings import DEFAULT_LISTEN, GatewaySettings, ShoalSettings, load_settings
from . import running
from .connecting import Target
from .follow import follow, until_interrupted
from .guard import guarded
from .output import console as make_console
from .server import Server

DETACHED_POLL_S = 0.2
DETACHED_END_S = 30.0
READY_SOON_S = 10.0
"""How long a detached command waits for the initial sync once it answers."""


@click.command(short_help="Follow a cluster and answer for it.")
@click.option(
    "--kubeconfig", envvar="KUBECONFIG", help="Path of the kubeconfig; also $KUBECONFIG, then ~/.kube/config."
)
@click.option("--context", help="Context of the kubeconfig; default: its current one.")
@click.option("--in-cluster", "pod", is_flag=True, help="Use the service account of the pod.")
@click.option("--ray-address", help="A running Ray cluster (auto, HOST:PORT); default: one is started here.")
@click.option("--shards", type=click.IntRange(min=1, max=1024), help="Shards to run; default 2.")
@click.option("--config", "config", type=click.Path(), help="Settings file (YAML); flags override it.")
@click.option(
    "--listen", metavar="HOST:PORT", help=f"Where to answer; default {DEFAULT_LISTEN}; port 0: a free one."
)
@click.option("--detach", is_flag=True, help="Return once it answers; end it with `shoal down`.")
@click.pass_context
def up(ctx: click.Context, /, *, detach: bool, **options: Any) -> None:
    """Follow a cluster and answer for it, until Ctrl-C or, with --detach, `shoal down`.

    The answer is the Kubernetes API, read-only: `kubectl --server http://127.0.0.1:7480 get pods -A`. Without
    --ray-address Ray is started on this machine and ends with the command. An API server that is away is waited for.
    """
    typed = ctx.get_parameter_source("kubeconfig") == ParameterSource.COMMANDLINE
    settings = _settings(**options, kubeconfig_typed=typed)
    configure_logging(settings.log.level)
    access = _access(settings)
    check(settings.gateway)
    if settings.ray.address is None:
        # Here, where it costs nothing yet; bring-up binds again.
        bind(*parse_listen(settings.gateway.listen), settings.gateway).close()
        if detach:
            _detach(settings)
            return
    _up(settings, access, detach=detach)


def _up(settings: ShoalSettings, access: Access, *, detach: bool) -> None:
    ray_environment.prepare(starts_cluster=settings.ray.address is None)
    console = make_console(stderr=True)
    with contextlib.ExitStack() as stack:
        if settings.ray.address is None:
            stack.enter_context(guarded())
        with console.status("starting Ray" if settings.ray.address is None else "connecting to Ray"):
            from ..bootstrap import ray_cluster

            stack.enter_context(ray_cluster(settings))
        until_interrupted(_run(settings, access, console, detach=detach))


async def _run(settings: ShoalSettings, access: Access, console: Console, *, detach: bool) -> None:
    from ..bootstrap import bring_up, take_down

    stays = False
    try:
        with console.status("starting actors"):
            installation = await bring_up(settings, access)
        # What was there before is not this command's to end, and neither is what is to stay.
        stays = detach or installation.found
        if installation.found:
            console.print("found a running Shoal; it goes on with the settings it was started with")
        _announce(installation.url, settings.gateway)
        sys.stdout.flush()
        with contextlib.ExitStack() as stack:
            if settings.ray.address is None:
                stack.enter_context(running.noted(installation.url))
            await follow(installation, console, stay=not detach)
    finally:
        # A Ray cluster of our own ends as a whole. Asking it anything first could take a minute: whoever ended this
        # command by its process group has ended Ray's control service a moment before.
        if not stays and settings.ray.address is not None:
            await take_down()


def _settings(
    *,
    kubeconfig: str | None,
    kubeconfig_typed: bool,
    context: str | None,
    pod: bool,
    ray_address: str | None,
    shards: int | None,
    config: str | None,
    listen: str | None,
) -> ShoalSettings:
    """The file's settings with the flags over them. $KUBECONFIG counts only where neither says where to look."""
    settings = load_settings(config)
    replace = msgspec.structs.replace
    source = settings.source
    if pod:
        if kubeconfig_typed or context:
            raise SettingsError("--in-cluster goes neither with --kubeconfig nor with --context")
        source = replace(source, in_cluster=True, kubeconfig=None, context=None)
    elif kubeconfig_typed or (kubeconfig and not source.in_cluster and source.kubeconfig is None):
        source = replace(source, kubeconfig=kubeconfig, in_cluster=False)
    if context:
        source = replace(source, context=context, in_cluster=False)
    return replace(
        settings,
        source=source,
        shards=shards or settings.shards,
        ray=replace(settings.ray, address=ray_address or settings.ray.address),
        gateway=replace(
            settings.gateway, listen=listen or settings.gateway.listen, tls=_anchored(settings.gateway.tls)
        ),
    )


def _anchored(tls: TlsSettings) -> TlsSettings:
    """Files by names that mean the same to other processes."""

    def anchored(file: str | None) -> str | None:
        return str(Path(file).expanduser().absolute()) if file else None

    return TlsSettings(
        certificate=anchored(tls.certificate), key=anchored(tls.key), client_ca=anchored(tls.client_ca)
    )


def _announce(url: str, gateway: GatewaySettings) -> None:
    """Says where it answers, and how to ask."""
    who = gateway.authentication
    options = f"--server {url}"
    if gateway.tls.certificate is not None:
        options += " --certificate-authority FILE"
    if who.tokens:
        options += " --token TOKEN"
    elif who.certificates:
        options += " --client-certificate FILE --client-key FILE"
    click.echo(f"Shoal answers at {url}: kubectl {options} get pods -A")
    if who.tokens and gateway.tls.certificate is None:
        click.echo(
            "warning: kubectl and client-go send a token over HTTPS only; gateway.tls makes it that", err=True
        )


def _access(settings: ShoalSettings) -> Access:
    source = settings.source
    if source.in_cluster:
        return in_cluster()
    return load_kubeconfig(source.kubeconfig, source.context)


# -- in a session of its own ----------------------------------------------------------------------------------


def _detach(settings: ShoalSettings) -> None:
    """Starts the same command without ``--detach`` in a session of its own, and waits until it is noted."""
    port = parse_listen(settings.gateway.listen)[1]
    log_path = running.folder() / f"up-{port or f'any-{os.getpid()}'}.log"
    try:
        with log_path.open("wb") as log:
            # Arguments are passed on as they came: whatever they mean, they mean the same there.
            arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
            child = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-P", "-m", "shoal", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise ShoalError(f"shoal up cannot be left running: {error}") from error
    # Whoever is tired of waiting does not want it to go on by itself.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with make_console(stderr=True).status("starting Ray"):
            url = _answer_of(child, log_path)
            problem = asyncio.run(_ready_soon(url))
    except BaseException:
        _end(child)
        raise
    _announce(url, settings.gateway)
    if problem:
        click.echo(f"waiting: {problem}", err=True)
    click.echo(f"log: {log_path}; `shoal down` ends it", err=True)


def _answer_of(child: subprocess.Popen[bytes], log_path: Path) -> str:
    """Where the child answers. Raises ShoalError with what it said if it ends."""
    while (code := child.poll()) is None:
        for known in running.running():
            if known.pid == child.pid:
                return known.url
        time.sleep(DETACHED_POLL_S)
    said = log_path.read_text(errors="replace").strip()
    errors = [line.removeprefix("error: ") for line in said.splitlines() if line.startswith("error: ")]
    raise ShoalError(
        "; ".join(errors) or f"shoal up ended with code {code}; {log_path} says: {said or 'nothing'}"
    )


async def _ready_soon(url: str) -> str:
    """Gives the initial sync of a small cluster its time, so that the next command of a script finds everything.

    Not for ever: a large cluster takes longer, and an API server that is away has nothing to sync. Health is told to
    everybody, and nothing secret is sent: so it does not matter who signed the certificate. Returns why nobody can be
    let in, if that is so, which syncing more does not change.
    """
    problem = ""
    with contextlib.suppress(TimeoutError):
        async with Server(Target(url, insecure=True)) as server, asyncio.timeout(READY_SOON_S):
            while True:
                ready, lacking = await _readiness(server)
                problem = lacking.pop(REVIEWS, "")
                if ready or (problem and not lacking):
                    break
                await asyncio.sleep(DETACHED_POLL_S)
    return problem


async def _readiness(server: Server) -> tuple[bool, dict[str, str]]:
    """Whether it is ready, and what fails: checks by name."""
    try:
        ready, text = await server.readiness()
    except ShoalError:
        return False, {"answer": ""}
    failed = (line.removeprefix("[-]").partition(" ") for line in text.splitlines() if line.startswith("[-]"))
    return ready, {name: problem for name, _, problem in failed}


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(DETACHED_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
