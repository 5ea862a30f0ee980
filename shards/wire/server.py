"""The shard's end of the direct connections: a listening socket, and a bound on strangers.

What is asked is answered by a `Served`, in practice `shards.shard.Shard`; while there is none every partition is
`NotServed`. A peer that has not proved yet who it is, in TLS or in the handshake after it, is one of
`unauthenticated_max`, has `handshake_timeout_s` for both together, and is not told why it is turned away. When they are
that many, the next takes the place of the one that has been silent for longest, never the other way round: strangers
who hold their places do not lock a gateway out, because it proves itself within some turns of the loop. What is said
afterwards is up to `shard_link`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import secrets
import socket
import ssl
from collections.abc import Callable

from ..model.partitions import Epoch, ShardId
from ..settings import WireSettings
from .authentication import SECRET_BYTES, Endpoint, Secret
from .shard_link import FeedEncoder, Served, ShardLink
from .tls import own_binding, server_context

log = logging.getLogger("shoal.shards.wire.server")

BACKLOG = 128
ACCEPT_RETRY_S = 0.2
REFUSALS_LOGGED_S = 10.0
"""Refused connections are logged this often at most: who floods the port must not flood the log."""


class WireServer:
    """Serves one incarnation of a shard on one socket."""

    def __init__(
        self, shard_id: ShardId, incarnation: str, served: Callable[[], Served | None], settings: WireSettings
    ) -> None:
        self.shard_id = shard_id
        self.incarnation = incarnation
        self.settings = settings
        self.secret = Secret(secrets.token_bytes(SECRET_BYTES))
        self.served = served
        self.feeds = FeedEncoder()
        self.binding = b""
        self.links: set[ShardLink] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._tls: ssl.SSLContext | None = None
        self._knocking: dict[ShardLink, socket.socket] = {}
        """Accepted, and not connected yet: under TLS that takes its time."""
        self._letting_in: set[asyncio.Task[None]] = set()
        """Connecting them, and those that are dropped, until they are gone."""
        self._numbers = itertools.count(1)
        self._closed = False
        self._epoch = Epoch(0)
        self._refused = 0
        self._refusal_logged = float("-inf")

    async def start(self, host: str, port: int = 0) -> Endpoint:
        """Listens on an address of this node.

        Raises:
            SettingsError: the TLS files cannot be used.
            OSError: the address cannot be listened on.
        """
        self.binding = own_binding(self.settings)
        self._tls = server_context(self.settings)
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
        )
        listener.settimeout(0.0)
        self._accepting = asyncio.get_running_loop().create_task(
            self._accept(listener), name=f"{self.shard_id} accept"
        )
        self._accepting.add_done_callback(lambda _: listener.close())
        return Endpoint(
            shard=self.shard_id,
            incarnation=self.incarnation,
            host=host,
            port=listener.getsockname()[1],
            secret=self.secret,
            settings=self.settings,
        )

    async def aclose(self) -> None:
        """Stops listening, and closes every connection with what is in flight on it."""
        self._closed = True
        if self._accepting is None:
            return
        self._accepting.cancel()
        tasks = [self._accepting, *self._letting_in]
        tasks += [task for link in self.links for task in link.tasks]
        for link in (*self._knocking, *self.links):
            self._drop(link, "the shard is stopped")
        await asyncio.wait(tasks)

    def epoch(self) -> Epoch:
        """The newest epoch the shard has heard of."""
        shard = self.served()
        if shard is not None and shard.epoch > self._epoch:
            self._epoch = shard.epoch
        return self._epoch

    @property
    def unauthenticated(self) -> int:
        """Connections that have not proved yet who they are."""
        return len(self._strangers())

    def _strangers(self) -> list[ShardLink]:
        return [*self._knocking, *(link for link in self.links if not link.side.open)]

    # -- connections ------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        """Lets peers in for ever. Accepts itself, because a server of asyncio's begins TLS with any number at once."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listener)
            except OSError as error:
                # Too many open files, or a peer that is gone again: neither ends the server.
                log.warning("cannot accept", extra={"shard": self.shard_id, "problem": str(error)})
                await asyncio.sleep(ACCEPT_RETRY_S)
                continue
            self._make_room()
            link = ShardLink(self)
            link.peer, link.number = peer, next(self._numbers)
            self._knocking[link] = sock
            task = loop.create_task(self._let_in(link, sock), name="let in")
            self._letting_in.add(task)
            task.add_done_callback(functools.partial(self._let_in_or_not, link, sock))
            # Who was let in is heard before many more are: accepting does not wait while there is somebody to accept.
            await asyncio.sleep(0)

    def _make_room(self) -> None:
        """Drops strangers so that there may be one more: first who has not greeted, and the oldest of them."""
        strangers = self._strangers()
        while len(strangers) >= self.settings.unauthenticated_max:
            link = min(strangers, key=lambda stranger: (stranger.side.greeted, stranger.number))
            strangers.remove(link)
            self._drop(link, "too many connections that have not proved who they are", rude=True)

    def _drop(self, link: ShardLink, why: str, *, rude: bool = False) -> None:
        link.close(why, rude=rude)
        sock = self._knocking.pop(link, None)
        if sock is not None:
            # The task sees an end and ends; cancelled, uvloop leaves connections behind whose TLS has begun.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    async def _let_in(self, link: ShardLink, sock: socket.socket) -> None:
        """Makes a connection of an accepted socket, speaking TLS first if need be."""
        timeout_s = self.settings.handshake_timeout_s if self._tls is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: link, sock, ssl=self._tls, ssl_handshake_timeout=timeout_s
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            if link.reason is None:
                self._refuse(link.peer, f"no connection: {error}")

    def _let_in_or_not(self, link: ShardLink, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._letting_in.discard(task)
        self._knocking.pop(link, None)
        if task.cancelled():
            sock.close()  # it may have been cancelled before it began
        elif task.exception() is not None:
            log.error("connection failed", exc_info=task.exception(), extra={"shard": self.shard_id})

    def came(self, link: ShardLink) -> str:
        """As `Host.came`."""
        self._knocking.pop(link, None)
        self.links.add(link)
        return "the shard is stopped" if self._closed else ""

    def left(self, link: ShardLink, reason: str) -> None:
        """As `Host.left`."""
        self.links.discard(link)
        if link.side.open:
            extra = {"shard": self.shard_id, "peer": str(link.peer), "reason": reason}
            log.info("gateway disconnected", extra=extra)
        else:
            self._refuse(link.peer, reason)

    def _refuse(self, peer: object, reason: str) -> None:
        """Notes a connection that was closed before it was open."""
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._refusal_logged >= REFUSALS_LOGGED_S:
            self._refusal_logged = now
            extra = {"shard": self.shard_id, "peer": str(peer), "reason": reason, "refused": self._refused}
            log.warning("refused a connection", extra=extra)
