"""Where the gateway of a running Shoal is, asked of the Ray cluster it runs on.

The one module of the client that imports Ray, and only when it is asked. A program that is connected to the cluster
already is asked through that connection; otherwise one is made for the question and ended after it. Ray's calls block,
so they run in a thread.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final

from ...shards.model.errors import NotReady
from .. import ray_environment

if TYPE_CHECKING:
    from types import ModuleType

ANSWER_S: Final = 10.0
"""For gateways to say where they are, once Ray answers. One that does not serve yet does not answer."""
_connecting: Final = threading.Lock()
"""A process has one connection to Ray: two questions at the same time would end each other's."""


async def find_gateway(address: str) -> str:
    """The URL of a gateway, as it is reached from where it runs: one that listens on a loopback address is of use on
    its own machine alone.

    Args:
        address: Of the Ray cluster: ``auto``, or ``HOST:PORT`` of its head. Of no effect in a program that is connected
            to a Ray cluster already.

    Raises:
        SettingsError: no Ray cluster answers there.
        NotReady: no Shoal runs on it, or none of its gateways serves yet.
    """
    ray_environment.prepare(starts_cluster=False)
    return await asyncio.to_thread(_find, address)


def _find(address: str) -> str:
    import ray

    from ..bootstrap import ray_cluster
    from ..settings import RaySettings, ShoalSettings

    with _connecting:
        if ray.is_initialized():
            return _ask(ray, "the Ray cluster that this program is connected to")
        with ray_cluster(ShoalSettings(ray=RaySettings(address=address))):
            return _ask(ray, f"the Ray cluster at {address}")


def _ask(ray: ModuleType, where: str) -> str:
    from ...shards.handle_ray import NAMESPACE
    from ..gateway.actor import GATEWAY_PREFIX

    named = ray.util.list_named_actors(all_namespaces=True)
    names = sorted(
        actor["name"]
        for actor in named
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(GATEWAY_PREFIX)
    )
    if not names:
        raise NotReady(f"no Shoal runs on {where}: it has no gateway", retry_after_s=1)
    calls: dict[Any, str] = {}
    for name in names:
        try:
            calls[ray.get_actor(name, namespace=NAMESPACE).url.remote()] = name
        except ValueError:  # Ray's word for an actor that has gone meanwhile
            continue
    waiting = list(calls)
    problem = f"within {ANSWER_S:g} s"
    while waiting:
        answered, waiting = ray.wait(waiting, num_returns=1, timeout=ANSWER_S)
        if not answered:
            break
        try:
            return str(ray.get(answered[0]))
        except ray.exceptions.RayError as error:
            problem = f"({calls[answered[0]]}: {type(error).__name__})"
    raise NotReady(f"no gateway of the Shoal on {where} says where it serves {problem}", retry_after_s=1)
