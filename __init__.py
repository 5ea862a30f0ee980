"""Shoal: a multiprocess, sharded informer cluster for Kubernetes, running on Ray.

    >>> async def main():
    ...     async with shoal.connect(gateway_url) as client:  # of a running Shoal
    ...         pods = await client.lister("v1/pods").list("shop", label_selector="app=web")
    ...         return [pod.spec.nodeName for pod in pods]
    >>> asyncio.run(main())
    ['node-0', 'node-1']

    >>> async def main():
    ...     async with shoal.local(url=api_server_url) as client:  # of an API server; by default the kubeconfig's
    ...         nodes = client.informer("v1/nodes")
    ...         nodes.add_handler(on_add=lambda node, is_initial: None)
    ...         await nodes.synced()
    ...         return len(nodes.lister)
    >>> asyncio.run(main())
    2

    >>> with shoal.sync.connect(gateway_url) as client:  # for programs that block
    ...     print(client.lister("v1/pods").count())
    3

The names below are imported when they are first used: importing `shoal` costs nothing, and leaves Ray, which reads the
environment while it is imported, for whoever prepares that first (`cluster.ray_environment`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cluster.client import sync as sync
    from .cluster.client.answers import Count as Count
    from .cluster.client.answers import Freshness as Freshness
    from .cluster.client.answers import Groups as Groups
    from .cluster.client.answers import ObjectList as ObjectList
    from .cluster.client.connect import Client as Client
    from .cluster.client.connect import connect as connect
    from .cluster.client.connect import local as local
    from .cluster.client.lister import Lister as Lister
    from .cluster.client.writing import Writer as Writer
    from .cluster.controller.controller import Controller as Controller
    from .cluster.controller.election import ElectionTimes as ElectionTimes
    from .cluster.controller.errors import LeadershipLost as LeadershipLost
    from .cluster.controller.errors import NotSynced as NotSynced
    from .cluster.controller.errors import TerminalError as TerminalError
    from .cluster.controller.leader import LeaderElector as LeaderElector
    from .cluster.controller.parking import Parked as Parked
    from .cluster.controller.ports import Result as Result
    from .cluster.controller.sources import Source as Source
    from .cluster.controller.sources import owner_of as owner_of
    from .cluster.controller.tracing import OpenTelemetryTracing as OpenTelemetryTracing
    from .cluster.informers.discovered import Appeared as Appeared
    from .cluster.informers.discovered import Vanished as Vanished
    from .cluster.informers.factory import InformerFactory as InformerFactory
    from .cluster.informers.handlers import EventHandler as EventHandler
    from .cluster.informers.informer import Informer as Informer
    from .cluster.informers.objects import KubeObject as KubeObject
    from .cluster.observability.health import Health as Health
    from .cluster.observability.health import HealthBounds as HealthBounds
    from .cluster.observability.registering import metrics as metrics
    from .cluster.observability.serving import serve_health as serve_health
    from .cluster.workqueue.limiters import BucketLimiter as BucketLimiter
    from .cluster.workqueue.limiters import ExponentialLimiter as ExponentialLimiter
    from .cluster.workqueue.limiters import FastSlowLimiter as FastSlowLimiter
    from .cluster.workqueue.limiters import MaxOfLimiter as MaxOfLimiter
    from .cluster.workqueue.limiters import RateLimiter as RateLimiter
    from .cluster.workqueue.limiters import WithMaxWaitLimiter as WithMaxWaitLimiter
    from .cluster.workqueue.limiters import default_limiter as default_limiter
    from .cluster.workqueue.queue import ShutDown as ShutDown
    from .cluster.workqueue.queue import WorkQueue as WorkQueue
    from .shards.api.requests import ApiRequest as ApiRequest
    from .shards.logs import configure_logging as configure_logging
    from .shards.model import errors as errors

__version__ = "0.1.0"

_NAMES = {
    "ApiRequest": "shards.api.requests",
    "Appeared": "cluster.informers.discovered",
    "BucketLimiter": "cluster.workqueue.limiters",
    "Client": "cluster.client.connect",
    "Controller": "cluster.controller.controller",
    "Count": "cluster.client.answers",
    "ElectionTimes": "cluster.controller.election",
    "EventHandler": "cluster.informers.handlers",
    "ExponentialLimiter": "cluster.workqueue.limiters",
    "FastSlowLimiter": "cluster.workqueue.limiters",
    "Freshness": "cluster.client.answers",
    "Groups": "cluster.client.answers",
    "Health": "cluster.observability.health",
    "HealthBounds": "cluster.observability.health",
    "Informer": "cluster.informers.informer",
    "InformerFactory": "cluster.informers.factory",
    "KubeObject": "cluster.informers.objects",
    "LeaderElector": "cluster.controller.leader",
    "LeadershipLost": "cluster.controller.errors",
    "Lister": "cluster.client.lister",
    "MaxOfLimiter": "cluster.workqueue.limiters",
    "NotSynced": "cluster.controller.errors",
    "ObjectList": "cluster.client.answers",
    "OpenTelemetryTracing": "cluster.controller.tracing",
    "Parked": "cluster.controller.parking",
    "RateLimiter": "cluster.workqueue.limiters",
    "Result": "cluster.controller.ports",
    "ShutDown": "cluster.workqueue.queue",
    "Source": "cluster.controller.sources",
    "TerminalError": "cluster.controller.errors",
    "Vanished": "cluster.informers.discovered",
    "WithMaxWaitLimiter": "cluster.workqueue.limiters",
    "WorkQueue": "cluster.workqueue.queue",
    "Writer": "cluster.client.writing",
    "configure_logging": "shards.logs",
    "connect": "cluster.client.connect",
    "default_limiter": "cluster.workqueue.limiters",
    "local": "cluster.client.connect",
    "metrics": "cluster.observability.registering",
    "owner_of": "cluster.controller.sources",
    "serve_health": "cluster.observability.serving",
}
_MODULES = {"errors": "shards.model.errors", "sync": "cluster.client.sync"}

__all__ = ["__version__", *_NAMES, *_MODULES]  # noqa: PLE0604 - all of them are texts


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        found: Any = import_module(f".{_MODULES[name]}", __name__)
    elif name in _NAMES:
        found = getattr(import_module(f".{_NAMES[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})
