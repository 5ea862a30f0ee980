"""What frames mean: the kinds of frames, the verbs a shard can be asked, and the msgpack of both. Pure.

=========  =======  ==================================================================================
kind       from     means
=========  =======  ==================================================================================
HELLO      gateway  a nonce; the first frame of a connection
CHALLENGE  shard    a nonce, who the shard is, and its proof
PROOF      gateway  its proof, and how many bytes of one stream it holds at the most
WELCOME    shard    the connection is open
BEAT       both     nothing; says that the sender is alive
GOODBYE    both     why the sender closes the connection, for people
a verb     gateway  a request; `argument`: the milliseconds it may take
CANCEL     gateway  nobody waits for this request any more; the shard ends it as any other
CREDIT     gateway  `argument` more bytes of this stream were taken
ANSWER     shard    the answer; ends the request
ITEM       shard    one page or batch of a stream
END        shard    the stream has ended, or the request was cancelled
FAILURE    shard    the error (`failures`); ends the request
=========  =======  ==================================================================================

Every request is ended by exactly one ANSWER, END or FAILURE, cancelled or not.

The asking side is called the gateway. It may be a shard as well, which receives a partition from another (`EXPORT`).
Whoever is asked a verb it does not know closes the connection; so verbs may be added under the same name of the
protocol where, as here, only those ask them whose connection carries nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from ..model.queries import (
    ChangesPage,
    ChangesQuery,
    CountQuery,
    FeedBatch,
    FeedQuery,
    GetAnswer,
    GetQuery,
    OvertakeQuery,
    PageAnswer,
    PageQuery,
    PartitionCount,
)
from ..model.transfers import ExportPiece, ExportQuery
from ..model.versions import Version
from .frames import WireError

HELLO: Final = 1
CHALLENGE: Final = 2
PROOF: Final = 3
WELCOME: Final = 4
BEAT: Final = 5
GOODBYE: Final = 6
CANCEL: Final = 7
CREDIT: Final = 8
ANSWER: Final = 9
ITEM: Final = 10
END: Final = 11
FAILURE: Final = 12

HANDSHAKE_BYTES_MAX = 1 << 10
"""Payload of a frame of the handshake."""
REQUEST_BYTES_MAX = 1 << 20
"""Payload of a request. Its longest parts are selectors, which came in a URL."""

Nonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
Proof = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """See HELLO."""

    protocol: str
    nonce: Nonce


class Challenge(msgspec.Struct, frozen=True, array_like=True):
    """See CHALLENGE."""

    shard: str
    incarnation: str
    nonce: Nonce
    proof: Proof


class Proved(msgspec.Struct, frozen=True, array_like=True):
    """See PROOF."""

    proof: Proof
    window_bytes: Annotated[int, Meta(ge=1, le=1 << 32)]


class Verb:
    """Something a shard can be asked: the name of the method of `ShardHandle`, and its values."""

    __slots__ = ("answers", "kind", "name", "queries", "streamed")

    def __init__(self, kind: int, name: str, query: Any, answer: Any, *, streamed: bool = False) -> None:
        self.kind = kind
        self.name = name
        self.streamed = streamed
        """Answered by items instead of one answer."""
        self.queries = msgspec.msgpack.Decoder(query)
        self.answers = msgspec.msgpack.Decoder(answer)

    def __repr__(self) -> str:
        return f"<Verb {self.name}>"


GET: Final = Verb(16, "get", GetQuery, GetAnswer)
PAGE: Final = Verb(17, "page", PageQuery, PageAnswer)
COUNT: Final = Verb(18, "count", CountQuery, PartitionCount)
OVERTAKE: Final = Verb(19, "overtake", OvertakeQuery, Version)
STREAM: Final = Verb(32, "stream", PageQuery, PageAnswer, streamed=True)
CHANGES: Final = Verb(33, "changes", ChangesQuery, ChangesPage, streamed=True)
FEED: Final = Verb(34, "feed", FeedQuery, FeedBatch, streamed=True)
EXPORT: Final = Verb(35, "export", ExportQuery, ExportPiece, streamed=True)

VERBS: Final = {verb.kind: verb for verb in (GET, PAGE, COUNT, OVERTAKE, STREAM, CHANGES, FEED, EXPORT)}

encode: Final = msgspec.msgpack.Encoder().encode
"""The payload that says a value."""


def decode(decoder: msgspec.msgpack.Decoder[Any], payload: bytes | memoryview, what: str) -> Any:
    """The value a payload says.

    Raises:
        WireError: it is not msgpack, or not of the expected form.
    """
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"{what} that cannot be read: {error}") from error


HELLOS: Final = msgspec.msgpack.Decoder(Hello)
CHALLENGES: Final = msgspec.msgpack.Decoder(Challenge)
PROOFS: Final = msgspec.msgpack.Decoder(Proved)
