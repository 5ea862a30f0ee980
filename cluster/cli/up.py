"""``shoal up`` and ``shoal down``: following a real cluster.

In the foreground the command owns the Ray cluster it starts and takes everything down when it ends. ``--detach``
leaves that foreground command running in a session of its own and returns once it answers; with ``--ray-address`` no
process has to stay behind, because the actors live in that Ray cluster. What runs on this machine is noted in a
small file, one for each port, so that ``shoal down`` finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec
import psutil
from rich.console import Console

from ...shards.api.kubeconfig import Access, in_cluster, load_kubeconfig
from ...shards.model.errors import SettingsError, ShoalError
from .. import ray_environment
from ..settings import DEFAULT_LISTEN, ShoalSettings, load_settings
from .follow import follow, until_interrupted

NOTES = Path(click.get_app_dir("shoal")) / "run"
"""One JSON file for each port that a ``shoal up`` of this user listens on."""

DOWN_TIMEOUT_S = 30.0


@click.command()
@click.option("--kubeconfig", envvar="KUBECONFIG", help="Path of the kubeconfig; also $KUBECONFIG.")
@click.option("--context", help="Context of the kubeconfig; default: its current one.")
@click.option("--in-cluster", "pod", is_flag=True, help="Use the service account of the pod.")
@click.option("--ray-address", help="A running Ray cluster (auto, HOST:PORT); default: one is started here.")
@click.option("--shards", type=click.IntRange(min=1), help="Shards to run.")
@click.option("--config", "config", type=click.Path(), help="Settings file (YAML); flags override it.")
@click.option("--listen", metavar="HOST:PORT", help=f"Where to answer; default {DEFAULT_LISTEN}; port 0: a free one.")
@click.option("--detach", is_flag=True, help="Return once it answers; end it with `shoal down`.")
def up(*, detach: bool, **options: Any) -> None:
    """Follow a cluster and answer for it."""
    settings = _settings(**options)
    access = _access(settings)
    if detach and settings.ray.address is None:
        _detach(settings)
        return
    ray_environment.prepare(starts_cluster=settings.ray.address is None)
    from ..bootstrap import bring_up, ray_cluster, take_down

    console = Console(stderr=True, highlight=False)
    with contextlib.ExitStack() as stack:
        with console.status("starting Ray" if settings.ray.address is None else "connecting to Ray"):
            stack.enter_context(ray_cluster(settings))

        async def main() -> None:
            try:
                installation = await bring_up(settings, access)
                with _noted(installation.url, settings):
                    console.print(f"Shoal answers at [bold]{installation.url}[/bold]: kubectl --server {installation.url} get pods -A")
                    await follow(installation.url, console, stay=not detach)
            except BaseException:
                if not detach:
                    await take_down()
                raise

        until_interrupted(main())


def _settings(
    *,
    kubeconfig: str | None,
    context: str | None,
    pod: bool,
    ray_address: str | None,
    shards: int | None,
    config: str | None,
    listen: str | None,
) -> ShoalSettings:
    settings = load_settings(config)
    replace = msgspec.structs.replace
    if pod and (kubeconfig or context) and not os.environ.get("KUBECONFIG"):
        raise SettingsError("--in-cluster goes neither with --kubeconfig nor with --context")
    source = settings.source
    if kubeconfig and not pod:
        source = replace(source, kubeconfig=kubeconfig)
    if context:
        source = replace(source, context=context)
    if pod:
        source = replace(source, in_cluster=True, kubeconfig=None, context=None)
    return replace(
        settings,
        source=source,
        shards=shards or settings.shards,
        ray=replace(settings.ray, address=ray_address or settings.ray.address),
        gateway=replace(settings.gateway, listen=listen or settings.gateway.listen),
    )


def _access(settings: ShoalSettings) -> Access:
    source = settings.source
    if source.in_cluster:
        return in_cluster()
    return load_kubeconfig(source.kubeconfig, source.context)


# -- what runs on this machine --------------------------------------------------------------------------------


def _note(port: int) -> Path:
    return NOTES / f"{port}.json"


@contextlib.contextmanager
def _noted(url: str, settings: ShoalSettings) -> Iterator[None]:
    """Notes this process for ``shoal down`` while it runs; a folder that cannot be written costs only that."""
    if settings.ray.address is not None:
        yield
        return
    note = _note(urlsplit(url).port or 0)
    process = psutil.Process()
    try:
        NOTES.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"pid": process.pid, "started": process.create_time(), "url": url}))
    except OSError as error:
        click.echo(f"`shoal down` will not find this process: {error}", err=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)


def _detach(settings: ShoalSettings) -> None:
    """Starts the same command without ``--detach`` in a session of its own, and waits until it is noted."""
    NOTES.mkdir(parents=True, exist_ok=True)
    log_path = NOTES / f"up-{settings.gateway.listen.rpartition(chr(58))[2]}.log"
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
    while (code := child.poll()) is None:
        for note in NOTES.glob("*.json"):
            known = _read_note(note)
            if known is not None and known["pid"] == child.pid:
                click.echo(f"Shoal answers at {known['url']}; log: {log_path}; `shoal down` ends it.")
                return
        time.sleep(0.2)
    problem = log_path.read_text(errors="replace").strip().removeprefix("error: ")
    raise ShoalError(problem or f"shoal up ended with code {code}; see {log_path}")


def _read_note(note: Path) -> dict[str, Any] | None:
    """A note whose process still runs; stale ones are removed."""
    try:
        known: dict[str, Any] = json.loads(note.read_text())
        process = psutil.Process(known["pid"])
        if abs(process.create_time() - known["started"]) < 1.0:
            return known
    except (OSError, ValueError, KeyError, psutil.Error):
        pass
    with contextlib.suppress(OSError):
        note.unlink(missing_ok=True)
    return None


@click.command()
@click.option("--ray-address", help="End what runs on this Ray cluster.")
@click.option("--listen", metavar="HOST:PORT", help="End only the one that listens there; default: all of this machine.")
def down(*, ray_address: str | None, listen: str | None) -> None:
    """End a running Shoal."""
    if ray_address is not None:
        _down_on_ray(ray_address)
        return
    notes = [_note(int(listen.rpartition(":")[2]))] if listen else sorted(NOTES.glob("*.json"))
    running = [known for note in notes if (known := _read_note(note)) is not None]
    if not running:
        raise ShoalError(
            "no Shoal of this user runs on this machine" + (f" at {listen}" if listen else "")
            + "; one on a Ray cluster is ended with --ray-address"
        )
    for known in running:
        process = psutil.Process(known["pid"])
        process.terminate()
        try:
            process.wait(DOWN_TIMEOUT_S)
        except psutil.TimeoutExpired:
            raise ShoalError(
                f"process {process.pid} did not end within {DOWN_TIMEOUT_S:.0f} s; kill it: kill -9 {process.pid}"
            ) from None
        click.echo(f"ended {known['url']}")


def _down_on_ray(address: str) -> None:
    ray_environment.prepare(starts_cluster=False)
    from ..bootstrap import ray_cluster, take_down

    settings = ShoalSettings()
    settings = msgspec.structs.replace(settings, ray=msgspec.structs.replace(settings.ray, address=address))
    with ray_cluster(settings):
        if not asyncio.run(take_down()):
            raise ShoalError(f"no Shoal runs on the Ray cluster at {address}")
    click.echo(f"ended Shoal on {address}")
