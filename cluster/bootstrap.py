"""Bring-up and tear-down of an installation on Ray: coordinator, shards, gateways, all as named actors.

Bringing up what is already running finds it instead of starting it twice (names are unique in Ray's namespace
``shoal``). A Ray cluster that is started here belongs to this process: Ray's own processes and all actors end with
it, however it ends. On a Ray cluster that was there before, the actors are detached and go on until `take_down`.

`ray_environment.prepare` has to be called before this module is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import ray
import ray.exceptions
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..coordinator.handle import CoordinatorHandle, CoordinatorPermits
from ..coordinator.handle_ray import RayCoordinatorHandle, start_coordinator
from ..shards.api.kubeconfig import Access
from ..shards.handle_ray import NAMESPACE, RayShardProvider, answered, shard_directory
from ..shards.model.errors import NotReady, SettingsError, ShoalError
from ..shards.model.partitions import Epoch
from .gateway.actor import GATEWAY_PREFIX, GatewayActor, GatewayPlan, gateway_names
from .gateway.server import bind, parse_listen
from .gateway.status import InstallationStatus
from .settings import GatewaySettings, ShoalSettings

log = logging.getLogger("shoal.cluster.bootstrap")

START_TIMEOUT_S = 60.0
"""Actors start in about a second each; a Ray cluster without room for them never starts them at all."""

CONNECT_TIMEOUT_S = 5.0
STATUS_TIMEOUT_S = 5.0
"""A gateway gathers its status within 2 s, or says who is missing."""
STOP_TIMEOUT_S = 8.0
"""For a gateway to end its watches properly and let answers under way finish."""

_RemoteGateway: Any = ray.remote(GatewayActor)


@dataclass(frozen=True, slots=True)
class Installation:
    """A running installation."""

    url: str
    """Of the gateway, without a slash at the end."""
    coordinator: CoordinatorHandle
    gateways: Mapping[str, Any]
    """Actors by name."""
    found: bool = False
    """It was running before; it follows what it followed, with the settings it was started with."""

    async def status(self) -> InstallationStatus:
        """What it reports about itself, asked over Ray: whoever starts it need not be somebody to its gateways.

        Raises:
            ShoalError: no gateway answers.
        """
        problem = ShoalError("there is no gateway")
        for name, gateway in self.gateways.items():
            try:
                async with asyncio.timeout(STATUS_TIMEOUT_S):
                    status: InstallationStatus = await answered(gateway.status.remote(), name)
                    return status
            except TimeoutError:
                problem = NotReady(f"{name} did not answer within {STATUS_TIMEOUT_S:g} s")
            except ShoalError as error:
                problem = error
        raise problem


@contextlib.contextmanager
def ray_cluster(settings: ShoalSettings) -> Iterator[None]:
    """Connects to the Ray cluster of the settings, or starts one on this machine that ends with the context.

    Not a coroutine, and to be called from the main thread: the kernel ends the processes that Ray starts when the
    *thread* that started them ends, and until it returns signals end this process at once, as they should.

    Raises:
        SettingsError: no Ray cluster answers at the address.
        ShoalError: Ray does not start on this machine.
    """
    try:
        with _interrupted_at_once():
            _connect(settings)
        yield
    except SystemExit as ended:
        # Ray's own answer to SIGTERM while it starts; shells expect another number.
        raise SystemExit(128 + signal.SIGTERM if ended.code == signal.SIGTERM else ended.code) from None
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """Has Ctrl-C end this process without an exception: Ray forks and calls back while it starts, and a
    KeyboardInterrupt that is raised in a callback is lost. What Ray has started by then dies with this process, or by
    its guard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h\n")  # a spinner had hidden the cursor
            sys.stderr.flush()
        os._exit(128 + number)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _connect(settings: ShoalSettings) -> None:
    quiet: dict[str, Any] = {
        "namespace": NAMESPACE,
        "job_config": _job(),
        # Warnings stay in Ray's log folder: what is wrong is also in the status, and in order there.
        "log_to_driver": settings.log.level in ("debug", "info"),
        "logging_level": logging.DEBUG if settings.log.level == "debug" else logging.ERROR,
    }
    address = settings.ray.address
    if address is not None:
        _check_ray_address(address)
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"no Ray cluster answers at {address!r} (ray.address, --ray-address): {' '.join(str(error).split())}; "
                "if it asks for a token, RAY_AUTH_MODE and RAY_AUTH_TOKEN have to be set here as well"
            ) from error
        return
    wanted = (
        settings.shards * settings.ray.shard_cpus
        + (1 + settings.gateway.gateways) * settings.ray.service_cpus
    )
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=max(os.cpu_count() or 1, int(wanted) + 1),
            object_store_memory=settings.ray.object_store_bytes,
            **quiet,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ShoalError(f"Ray cannot be started on this machine: {' '.join(str(error).split())}") from error


def _check_ray_address(address: str) -> None:
    """Makes sure that somebody listens there: Ray itself would try for most of a minute, and say so on the way.

    Raises:
        SettingsError: it is of no form we can use, or nobody listens.
    """
    where = "(ray.address, --ray-address)"
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(
            f"Ray address {address!r} {where}: expected `auto` or HOST:PORT of a cluster's head, such as "
            "10.0.0.5:6379; Ray Client (ray://) is not supported"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise SettingsError(
            f"no Ray cluster answers at {address!r} {where}: {error.strerror or error}"
        ) from error


class _NoFolders(list[str]):
    """Where workers are to look for modules: nowhere but where they are installed.

    Ray would add the folder the command is run in, and a folder there that happens to be called ``shoal`` would
    be taken for the package.
    """

    def extend(self, values: Iterable[str]) -> None:
        """Takes nothing."""


def _job() -> JobConfig:
    job = JobConfig()
    job._py_driver_sys_path = _NoFolders()  # noqa: SLF001 - Ray has no option for it
    return job


async def bring_up(settings: ShoalSettings, access: Access) -> Installation:
    """Starts (or finds) coordinator, shards and gateway. Returns when the gateway answers; syncing goes on.

    Raises:
        SettingsError: the port is in use, the address is not a loopback one, or Ray has no room for the actors.
    """
    found = _named_gateways()
    host, port = parse_listen(settings.gateway.listen) if found else _free_listen(settings.gateway)
    provider = RayShardProvider(
        access,
        functools.partial(CoordinatorPermits, RayCoordinatorHandle()),
        settings.shard_settings,
        cpus=settings.ray.shard_cpus,
        memory_bytes=settings.ray.shard_memory_bytes or settings.scaling.memory_bytes,
        log_level=settings.log.level,
    )
    coordinator = start_coordinator(
        access,
        provider,
        shard_count=settings.shards,
        cpus=settings.ray.service_cpus,
        api=settings.api,
        settings=settings.coordinator_settings,
        log_level=settings.log.level,
    )
    plan = GatewayPlan(
        access=access,
        settings=msgspec.structs.replace(settings.gateway, listen=_listen_text(host, port)),
        api=settings.api,
        log_level=settings.log.level,
    )
    names = found or gateway_names(settings.gateway.gateways)
    gateways = _start_gateways(names, plan, settings)
    urls = await _serving(gateways, settings)
    return Installation(url=urls[0], coordinator=coordinator, gateways=gateways, found=bool(found))


def _start_gateways(names: Sequence[str], plan: GatewayPlan, settings: ShoalSettings) -> dict[str, Any]:
    """Starts (or finds) gateways, by name."""
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": 100,
        "num_cpus": settings.ray.service_cpus,
        "enable_task_events": False,
        # They share one address, so they have to be where the command runs, whose node that is.
        "scheduling_strategy": NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        ),
    }
    return {name: _RemoteGateway.options(name=name, **options).remote(plan) for name in names}


async def _serving(gateways: Mapping[str, Any], settings: ShoalSettings) -> list[str]:
    """Where each gateway answers, once it does: one address for all that are started together.

    Raises:
        SettingsError: Ray has no room for them, or they cannot listen.
    """
    answers = [answered(gateway.url.remote(), name) for name, gateway in gateways.items()]
    try:
        return await asyncio.wait_for(asyncio.gather(*answers), START_TIMEOUT_S)
    except TimeoutError:
        why = await _problem(gateways) or (
            f"has the Ray cluster {len(gateways) * settings.ray.service_cpus:g} CPUs free on this node? "
            f"({_resources()})"
        )
        raise SettingsError(f"the gateway did not start within {START_TIMEOUT_S:.0f} s: {why}") from None


async def _problem(gateways: Mapping[str, Any]) -> str:
    """What keeps gateways that run from serving: files may be other ones, or not readable, for Ray's processes."""
    for name, gateway in gateways.items():
        with contextlib.suppress(ShoalError, TimeoutError):
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                problem: str = await answered(gateway.problem.remote(), name)
                if problem:
                    return problem
    return ""


def _free_listen(gateway: GatewaySettings) -> tuple[str, int]:
    """Splits HOST:PORT and makes sure that it can be listened on, so that the error is told here and now.

    Port 0 becomes a number here: a gateway that is restarted has to come back where its clients know it. Nobody else
    may listen there, not even somebody who would share the address.
    """
    host, port = parse_listen(gateway.listen)
    with bind(host, port, gateway) as listener:
        return host, int(listener.getsockname()[1])


def _listen_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _named_actors() -> set[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in named if actor["namespace"] == NAMESPACE}


def _named_gateways() -> list[str]:
    return sorted(name for name in _named_actors() if name.startswith(GATEWAY_PREFIX))


def _resources() -> str:
    cluster: Any = ray  # Ray does not annotate these two
    free, all_ = cluster.available_resources(), cluster.cluster_resources()
    return f"free in the whole cluster: {free.get('CPU', 0):g} CPUs of {all_.get('CPU', 0):g}"


async def take_down() -> bool:
    """Ends all actors of the installation on the connected Ray cluster; False if there were none."""
    coordinator = RayCoordinatorHandle()
    shards: tuple[str, ...] = ()
    with contextlib.suppress(ShoalError, TimeoutError):
        shards = (await asyncio.wait_for(coordinator.routes(Epoch(-1), 0.0), 5.0)).shards
    ours = await asyncio.to_thread(_named_actors)
    gateways = sorted(name for name in ours if name.startswith(GATEWAY_PREFIX))
    found = bool(gateways)
    await asyncio.gather(*map(_end_gateway, gateways))
    with contextlib.suppress(NotReady):
        await coordinator.stop()
        found = True
    for shard in sorted(set(shards) | {name for name in ours if name.startswith("shard-")}):
        with contextlib.suppress(NotReady):
            await shard_directory(shard).stop()  # type: ignore[arg-type]
            found = True
    return found


async def _end_gateway(name: str) -> None:
    """Lets a gateway end its watches properly, which is what tells their clients to go elsewhere, and ends it."""
    with contextlib.suppress(ValueError):  # it is not there any more
        gateway = ray.get_actor(name, namespace=NAMESPACE)
        with contextlib.suppress(ShoalError, TimeoutError):
            await asyncio.wait_for(answered(gateway.stop.remote(), name), STOP_TIMEOUT_S)
        ray.kill(gateway, no_restart=True)
