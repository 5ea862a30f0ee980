"""``shoal down``: ends what ``shoal up`` left running, on this machine or on a Ray cluster."""

from __future__ import annotations

import asyncio

import click
import msgspec
import psutil

from ...shards.model.errors import ShoalError
from .. import ray_environment
from ..gateway.server import parse_listen
from ..settings import ShoalSettings
from .running import running

TIMEOUT_S = 30.0


@click.command(short_help="End a running Shoal.")
@click.option("--ray-address", help="End what runs on this Ray cluster (auto, HOST:PORT).")
@click.option(
    "--listen", metavar="HOST:PORT", help="End only the one that listens there; default: all of this machine."
)
def down(*, ray_address: str | None, listen: str | None) -> None:
    """End a running Shoal: those that this user started on this machine, or the one on a Ray cluster."""
    if ray_address is not None:
        if listen is not None:
            raise click.UsageError("--ray-address goes without --listen: a Ray cluster has one Shoal")
        _on_ray(ray_address)
        return
    found = running(parse_listen(listen)[1] if listen is not None else None)
    if not found:
        where = f" at {listen}" if listen else ""
        raise ShoalError(
            f"no Shoal of this user runs on this machine{where}; one on a Ray cluster is ended with --ray-address"
        )
    for known in found:
        _end(known.process)
        click.echo(f"ended {known.url}")


def _end(process: psutil.Process | None) -> None:
    if process is None:
        return
    try:
        process.terminate()
        process.wait(TIMEOUT_S)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        raise ShoalError(
            f"process {process.pid} did not end within {TIMEOUT_S:.0f} s; `kill -9 {process.pid}` ends it with "
            "all its processes"
        ) from None


def _on_ray(address: str) -> None:
    ray_environment.prepare(starts_cluster=False)
    from ..bootstrap import ray_cluster, take_down

    settings = ShoalSettings()
    settings = msgspec.structs.replace(settings, ray=msgspec.structs.replace(settings.ray, address=address))
    with ray_cluster(settings):
        if not asyncio.run(take_down()):
            raise ShoalError(f"no Shoal runs on the Ray cluster at {address}")
    click.echo(f"ended Shoal on the Ray cluster at {address}")
