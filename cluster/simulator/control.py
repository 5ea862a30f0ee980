"""``/simulator/``: faults and churn, controlled from another process. JSON in, JSON out; no access control.

At ``/simulator/faults``:

- ``POST`` one fault, or a list of them, in the form of `faults.Fault`: answers their numbers.
- ``GET``: what is armed and how often each kind has happened.
- ``DELETE``: disarms everything; ``DELETE /simulator/faults/NUMBER`` one.

At ``/simulator/churn``: ``GET`` answers the rate and what was changed so far, ``PUT {"rate": 100}`` sets it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from ...shards.model.errors import BadRequest, MethodNotAllowed, NotFound
from ..serving.documents import encode
from .churn import Churn
from .faults import Fault, Faults
from .requests import JSON, Exchange
from .storage import Storage


class Control:
    """Serves the control endpoint."""

    ROOT: ClassVar[str] = "/simulator/"

    def __init__(self, faults: Faults, storage: Storage) -> None:
        self._faults = faults
        self._storage = storage
        self.churn: Churn | None = None
        """Set by whoever runs a churn beside the server."""

    async def serve(self, exchange: Exchange) -> None:
        """Answers one request below `ROOT`.

        Raises:
            BadRequest: not a fault; the message says which field is wrong.
            NotFound: another path.
            MethodNotAllowed: another method.
        """
        parts = [part for part in exchange.path.split("/") if part]
        match exchange.method, parts[1:]:
            case "POST", ["faults"]:
                numbers = [self._faults.arm(fault) for fault in _read(await exchange.body())]
                await exchange.answer(201, JSON, encode({"armed": numbers}))
            case "GET", ["faults"]:
                armed = {
                    str(number): msgspec.to_builtins(fault) for number, fault in self._faults.armed.items()
                }
                document = {
                    "armed": armed,
                    "injected": dict(self._faults.injected),
                    "revision": self._storage.revision,
                }
                await exchange.answer(200, JSON, encode(document))
            case "DELETE", ["faults"]:
                self._faults.disarm()
                await exchange.answer(200, JSON, encode({}))
            case "DELETE", ["faults", number] if number.isdecimal():
                self._faults.disarm(int(number))
                await exchange.answer(200, JSON, encode({}))
            case (("GET" | "PUT"), ["churn"]) if self.churn is not None:
                if exchange.method == "PUT":
                    self.churn.rate = _read_rate(await exchange.body())
                document = {"rate": self.churn.rate, "done": dict(self.churn.done), "total": self.churn.total}
                await exchange.answer(200, JSON, encode(document))
            case _, ["faults"]:
                raise MethodNotAllowed("faults are armed by POST, listed by GET and disarmed by DELETE")
            case _:
                raise NotFound(f"there is no {exchange.path}; faults are at {self.ROOT}faults")


def _read(body: bytes) -> list[Fault]:
    try:
        found = msgspec.json.decode(body, type=Fault | list[Fault])
    except msgspec.MsgspecError as error:
        raise BadRequest(f"not a fault: {error}") from error
    return found if isinstance(found, list) else [found]


class _Rate(msgspec.Struct, forbid_unknown_fields=True):
    rate: Annotated[float, msgspec.Meta(ge=0)]


def _read_rate(body: bytes) -> float:
    try:
        return msgspec.json.decode(body, type=_Rate).rate
    except msgspec.MsgspecError as error:
        raise BadRequest(f'not a rate of changes: {error}; expected {{"rate": 100}}') from error
