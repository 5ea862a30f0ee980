"""An API server that replays: pods only, a list, then MODIFIED events as fast as they are taken.

Answers are prepared beforehand, so that it costs little beside the process that is measured. Like kube-apiserver it
sends each watch event as one HTTP chunk of its own. Not an API server otherwise: `shoal apiserver` is.

    python tests/bench/replay.py --pods 20000 --events 60000 --port 0

Prints its URL. Lists wait for ``POST /sync``, events for ``POST /go``; ``GET /progress`` says how many events were
handed to the kernel, and the process's CPU seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from urllib.parse import parse_qs, urlsplit

import uvloop

from shoal.cluster.simulator.population import pod_bodies

_VERSION = re.compile(rb'"resourceVersion":"(\d+)"')
PODS = {
    "resource": "pods",
    "responseKind": {"group": "", "version": "v1", "kind": "Pod"},
    "scope": "Namespaced",
    "singularResource": "pod",
    "verbs": ["get", "list", "watch"],
}


class Replay:
    """The pods, cut at their resourceVersion so that a newer one is three slices."""

    def __init__(self, pods: int, events: int) -> None:
        self.parts: list[tuple[bytes, bytes]] = []
        for body in pod_bodies(pods):
            found = _VERSION.search(body)
            assert found is not None
            self.parts.append((body[: found.start(1)], body[found.end(1) :]))
        self.events = events
        self.sync = asyncio.Event()
        self.go = asyncio.Event()
        self.sent = 0

    def pod(self, at: int, version: int) -> bytes:
        before, after = self.parts[at]
        return b"%b%d%b" % (before, version, after)

    @property
    def version(self) -> int:
        return 1000 + len(self.parts)


def chunk(line: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(line), line)


async def answer(replay: Replay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            method, target = head.split(b" ", 2)[:2]
            url = urlsplit(target.decode())
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            if url.path == "/api/v1/pods" and query.get("watch") in ("1", "true"):
                await watch(replay, writer, query)
                return
            if url.path == "/api/v1/pods":
                await replay.sync.wait()
            status, body = plain(replay, method.decode(), url.path, query)
            writer.write(
                b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
                % (status, content_type(url.path), len(body))
            )
            writer.write(body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def content_type(path: str) -> bytes:
    if path in ("/api", "/apis"):
        return b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    return b"application/json"


def plain(replay: Replay, method: str, path: str, query: dict[str, str]) -> tuple[bytes, bytes]:
    discovery = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
    match path:
        case "/sync" | "/go" if method == "POST":
            (replay.sync if path == "/sync" else replay.go).set()
            return b"200 OK", b"{}"
        case "/progress":
            return b"200 OK", json.dumps({"sent": replay.sent, "cpu_seconds": time.process_time()}).encode()
        case "/version":
            return b"200 OK", b'{"major":"1","minor":"36","gitVersion":"v1.36.2"}'
        case "/api":
            core = {
                "metadata": {"name": ""},
                "versions": [{"version": "v1", "resources": [PODS], "freshness": "Current"}],
            }
            return b"200 OK", json.dumps({**discovery, "items": [core]}).encode()
        case "/apis":
            return b"200 OK", json.dumps({**discovery, "items": []}).encode()
        case "/api/v1/pods":
            return b"200 OK", page(replay, query)
        case _:
            return b"404 Not Found", b"404 page not found\n"


def page(replay: Replay, query: dict[str, str]) -> bytes:
    start = int(query.get("continue") or 0)
    limit = int(query.get("limit") or len(replay.parts))
    end = min(start + limit, len(replay.parts))
    more = (
        b',"continue":"%d","remainingItemCount":%d' % (end, len(replay.parts) - end)
        if end < len(replay.parts)
        else b""
    )
    prefix = len(b'"kind":"Pod","apiVersion":"v1",')
    items = b",".join(b"{" + replay.pod(at, 1000 + at)[1 + prefix :] for at in range(start, end))
    return b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"%d"%b},"items":[%b]}\n' % (
        replay.version,
        more,
        items,
    )


async def watch(replay: Replay, writer: asyncio.StreamWriter, query: dict[str, str]) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    if query.get("sendInitialEvents") == "true":
        await replay.sync.wait()
        for at in range(len(replay.parts)):
            writer.write(chunk(b'{"type":"ADDED","object":%b}\n' % replay.pod(at, 1000 + at)))
            if at % 16 == 0:
                await writer.drain()
        end = (
            b'{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":'
            b'{"resourceVersion":"%d","annotations":{"k8s.io/initial-events-end":"true"}}}}\n'
        )
        writer.write(chunk(end % replay.version))
        await writer.drain()
    await replay.go.wait()
    for at in range(replay.events):
        pod = replay.pod(at % len(replay.parts), replay.version + 1 + at)
        writer.write(chunk(b'{"type":"MODIFIED","object":%b}\n' % pod))
        replay.sent = at + 1
        if at % 16 == 0:
            await writer.drain()
    await writer.drain()
    await asyncio.sleep(3600)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    replay = Replay(options.pods, options.events)
    server = await asyncio.start_server(lambda r, w: answer(replay, r, w), "127.0.0.1", options.port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
