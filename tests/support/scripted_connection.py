"""An `ApiConnection` that plays a script: what each request is answered, piece by piece, in the loop's time.

Every request takes the next answer; one that finds none fails the test. What was asked, and when, is
recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import msgspec

from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import Garbage


class Never:
    """A piece that never comes: the stream falls silent."""


@dataclass
class Answer:
    """A status and the pieces of a body: bytes, seconds to wait, an error to raise, or `Never`."""

    pieces: list[object] = field(default_factory=list)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    head_after_s: float = 0.0

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            match piece:
                case bytes():
                    yield piece
                case int() | float():
                    await asyncio.sleep(piece)
                case BaseException():
                    raise piece
                case _:
                    await asyncio.sleep(1e6)

    async def read(self, limit: int = 1 << 30) -> bytes:
        body = b"".join([chunk async for chunk in self.chunks()])
        if len(body) > limit:
            raise Garbage("too long")
        return body


@dataclass
class Asked:
    """A request, the time it was made, and the time it was left."""

    at: float
    request: ApiRequest
    left_at: float | None = None

    @property
    def query(self) -> dict[str, str]:
        return dict(self.request.query)


class ScriptedConnection:
    """Answers by the script; `asked` says what was asked for."""

    def __init__(self, *script: Answer | Exception, told: Sequence[int | Answer] = ()) -> None:
        """`told`: the versions the server says it is at, or its answers, when it is asked for one object only because
        of that; without more of them, one that is never older. These requests are not in `asked`.
        """
        self.script = list(script)
        self.told = list(told)
        self.probes: list[float] = []
        """When they were made."""
        self.probed: list[dict[str, str]] = []
        """Their queries."""
        self.asked: list[Asked] = []
        self.closed = False

    @property
    def times(self) -> list[float]:
        """When each request was made."""
        return [round(asked.at, 3) for asked in self.asked]

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[Answer]:
        loop = asyncio.get_running_loop()
        if ("limit", "1") in request.query:
            self.probes.append(round(loop.time(), 3))
            self.probed.append(dict(request.query))
            told = self.told.pop(0) if self.told else 1 << 40
            yield told if isinstance(told, Answer) else listed(told)
            return
        asked = Asked(loop.time(), request)
        self.asked.append(asked)
        assert dict(parse_qsl(request.target.partition("?")[2])) == asked.query
        if not self.script:
            await asyncio.sleep(1e6)
        answer = self.script.pop(0)
        try:
            if isinstance(answer, Exception):
                raise answer
            await asyncio.sleep(answer.head_after_s)
            yield answer
        finally:
            asked.left_at = loop.time()

    async def aclose(self) -> None:
        self.closed = True


def encode(document: object) -> bytes:
    """Compact JSON, as the API server writes it."""
    return msgspec.json.encode(document)


def config_map(name: str, version: int, namespace: str = "alpha", **labels: str) -> dict[str, object]:
    """A small object in the API server's order of members."""
    metadata: dict[str, object] = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{namespace}-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-11-20T09:01:04Z",
    }
    if labels:
        metadata["labels"] = labels
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"version": str(version)}}


def line(kind: str, document: object) -> bytes:
    """One line of a watch."""
    return encode({"type": kind, "object": document}) + b"\n"


def bookmark(version: int, *, end: bool = False) -> bytes:
    """A BOOKMARK line, with or without the mark that ends the initial events."""
    metadata: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
    if end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return line("BOOKMARK", {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata})


def status(code: int, message: str = "no", **more: object) -> dict[str, object]:
    """A Status document."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        **more,
        "code": code,
    }


def declined(code: int, message: str = "no", **headers: str) -> Answer:
    """An answer that is a Status; header names with underscores for hyphens."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer([encode(status(code, message))], code, names)


def listed(version: int, *objects: dict[str, object], more: str = "") -> Answer:
    """A page of a LIST; items of built-in kinds come without kind and apiVersion."""
    items = [
        {name: part for name, part in one.items() if name not in ("kind", "apiVersion")} for one in objects
    ]
    metadata = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    return Answer(
        [encode({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items})]
    )


def streamed(version: int, *objects: dict[str, object], then: tuple[object, ...] = (Never,)) -> Answer:
    """A streaming list with its end, and what follows on the same stream."""
    return Answer([*(line("ADDED", one) for one in objects), bookmark(version, end=True), *then])
