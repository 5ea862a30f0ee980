"""`shoal.sync`: `connect` and `local` for programs that block. They take what the asynchronous ones take.

>>> with shoal.sync.local(url=api_server_url) as client:
...     print(client.lister("v1/namespaces").get("shop").status.phase)
Active
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from . import connect as _connect
from .blocking import (
    BlockingClient,
    BlockingInformer,
    BlockingInformers,
    BlockingLister,
    BlockingLocalLister,
    BlockingWriter,
)
from .connect import Client

__all__ = [
    "BlockingClient",
    "BlockingInformer",
    "BlockingInformers",
    "BlockingLister",
    "BlockingLocalLister",
    "BlockingWriter",
    "connect",
    "local",
]

P = ParamSpec("P")


def _blocking(make: Callable[P, Client]) -> Callable[P, BlockingClient]:
    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> BlockingClient:
        return BlockingClient(functools.partial(make, *args, **kwargs))

    return made


connect = _blocking(_connect.connect)
local = _blocking(_connect.local)
