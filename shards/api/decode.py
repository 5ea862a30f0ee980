"""Lines of a watch and pages of a LIST, decoded to observations. The hot path: no object becomes a Python
dict.

What it keeps true: a body is the server's own JSON without ``metadata.managedFields`` and with kind and
apiVersion in front; parsing both gives equal documents. What does not decode is a `GarbageLine` (or raises
`Garbage` in a page) and leaves the next line alone. Nothing is remembered between two lines but the
unfinished tail.

How a line is read. kube-apiserver writes each object in one of two layouts (built-in kinds in the order of
the Go struct, custom ones with sorted keys), so the line is recognised by its first bytes and only the object
is scanned:

1.  ``"managedFields":[`` is found, then the first ``]`` after it (two memchr, 0.6 us for 9 KB).
2.  The text is glued together without the array, with a number in its place, and scanned *once* by
    msgspec into structs that name only identity, labels and selectable fields (2.7 us for 4 KB, where
    scanning managedFields as well takes 5.2 us and a full parse about 200 us).
3.  Where the number turns up as ``metadata.managedFields``, the array cut out was exactly that one, see
    `cut_managed_fields`.

Whatever does not fit (other key order, blanks, escapes in keys, the same key deeper in the object, redaction)
goes through `_rebuild`, which splits the object and its metadata member by member: slower, and right for any
valid JSON.

Neighbours: `api.client` gives the chunks, the reflector feeds the observations to a store. Field values and
their defaults come from `model.fields`. See `api.scan` for the structs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Raw

from ..model.depth import at_any_depth
from ..model.errors import Garbage
from ..model.observations import Bookmark, ErrorLine, GarbageLine, Item, ListPage, Observation
from ..model.refs import Key
from ..model.resources import ResourceType
from ..model.versions import Version, parse_version
from .redaction import redact
from .scan import ABSENT, IDENTITY, MARK, MARKED, FieldScan, cut_managed_fields

_EXCERPT_BYTES: Final = 200
_WITHHELD: Final = "(withheld)"
_INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
_EMPTY: Final = (b"null", b"{}")
_LINE_END: Final = b"\n"
_CLOSE: Final = ord("}")
_VERSION_DIGITS_MAX: Final = 20
"""Of 64 bits. Longer ones are left to the slow path, which refuses what is no version."""
_BROKEN_JSON: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""All that msgspec raises for bytes that are not JSON, not UTF-8, nested too deeply or of the wrong shape."""

_REASONS: Final = frozenset(
    ("Expired", "Gone", "Forbidden", "Unauthorized", "NotFound", "Timeout", "TooManyRequests", "InternalError",
     "ServerTimeout", "ServiceUnavailable", "BadRequest")
)  # fmt: skip
"""Reasons of a Status that are shown of resources whose values are withheld: any text might be a value."""

_OBJECT_LINES: Final = (
    (b'{"type":"MODIFIED","object":', False),
    (b'{"type":"ADDED","object":', False),
    (b'{"type":"DELETED","object":', True),
)


class _Line(msgspec.Struct, gc=False):
    """A watch event in any layout."""

    type: str
    object: Raw


class _BookmarkMetadata(msgspec.Struct, gc=False):
    resource_version: str = msgspec.field(name="resourceVersion")
    annotations: dict[str, str] | None = None


class _BookmarkObject(msgspec.Struct, gc=False):
    metadata: _BookmarkMetadata


class _ShardInfo(msgspec.Struct, gc=False):
    selector: str = ""


class _ListMetadata(msgspec.Struct, gc=False):
    resource_version: str = msgspec.field(name="resourceVersion")
    continue_token: str = msgspec.field(name="continue", default="")
    shard_info: _ShardInfo | None = msgspec.field(name="shardInfo", default=None)


class _List(msgspec.Struct, gc=False):
    metadata: _ListMetadata
    items: list[Raw] | None
    """null is what Go makes of an empty list that was never allocated."""


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_bookmark = msgspec.json.Decoder(_BookmarkObject).decode
_decode_status = msgspec.json.Decoder(dict[str, Any]).decode
_decode_list = msgspec.json.Decoder(_List).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


class Decoder:
    """Decodes what the API server sends for one resource. One decoder for each stream: it keeps the
    unfinished line.

    `fields` are the paths whose values `Observation.fields` holds, in that order.
    """

    def __init__(
        self,
        resource_type: ResourceType,
        *,
        keep_managed_fields: bool = False,
        redact: bool = False,
        line_bytes_max: int = 64 << 20,
    ) -> None:
        self.fields = resource_type.selectable_fields
        self._custom = resource_type.custom
        api_version, kind = resource_type.resource.api_version, resource_type.kind
        self._kind, self._api_version = _encode(kind), _encode(api_version)
        self._head = (
            b'{"apiVersion":%b,"kind":%b,' % (self._api_version, self._kind)
            if resource_type.custom
            else b'{"kind":%b,"apiVersion":%b,' % (self._kind, self._api_version)
        )
        self._keep_managed_fields = keep_managed_fields
        self._redact = redact
        self._line_bytes_max = line_bytes_max
        self._scan = FieldScan(resource_type, keep_managed_fields=keep_managed_fields)
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._skipping = False

    # -- the stream ------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Bytes held of a line that has not ended yet."""
        return self._tail_bytes

    def reset(self) -> None:
        """Forgets the unfinished line: the stream has ended."""
        self._tail.clear()
        self._tail_bytes = 0
        self._skipping = False

    def lines(self, chunk: bytes) -> list[Item]:
        """Decodes the lines that end in `chunk`; what follows the last line end waits for the next chunk.

        Never raises for what the server sent. Blank lines are no items.
        """
        items: list[Item] = []
        start = 0
        if self._tail or self._skipping:
            end = chunk.find(_LINE_END)
            if end < 0:
                self._wait_for_more(chunk, items)
                return items
            start = end + 1
            self._end_tail(chunk[:end], items)
        while (end := chunk.find(_LINE_END, start)) >= 0:
            self._line(chunk, start, end, items)
            start = end + 1
        if start < len(chunk):
            self._wait_for_more(chunk[start:], items)
        return items

    def _wait_for_more(self, part: bytes, items: list[Item]) -> None:
        # Parts are kept apart and joined once, at the line's end: 10 MB in 64 KB chunks is copied once, not
        # 160 times.
        if self._skipping:
            return
        self._tail.append(part)
        self._tail_bytes += len(part)
        if self._tail_bytes > self._line_bytes_max:
            items.append(self._too_long(self._tail[0]))
            self.reset()
            self._skipping = True

    def _end_tail(self, last: bytes, items: list[Item]) -> None:
        if self._skipping:
            self._skipping = False
            return
        self._tail.append(last)
        line = b"".join(self._tail)
        self.reset()
        self._line(line, 0, len(line), items)

    def _line(self, text: bytes, start: int, end: int, items: list[Item]) -> None:
        if end - start > self._line_bytes_max:
            items.append(self._too_long(text[start : start + _EXCERPT_BYTES]))
            return
        for prefix, deleted in _OBJECT_LINES:
            if text.startswith(prefix, start):
                at = start + len(prefix)
                if text.startswith(self._head, at) and text[end - 1] == _CLOSE:
                    found = self._observe(text, at, end - 1, b"", deleted=deleted)
                    if found is not None:
                        items.append(found)
                        return
                break
        line = text[start:end].strip()
        if line:
            items.append(self._any_line(line))

    def _any_line(self, line: bytes) -> Item:
        """A line in any layout, and all that are not about an object."""
        try:
            return at_any_depth(self._event, line)
        except (*_BROKEN_JSON, ValueError) as error:
            return self._garbage(line, str(error) or type(error).__name__)

    def _event(self, line: bytes) -> Item:
        event = _decode_line(line)
        raw = bytes(event.object)
        match event.type:
            case "ADDED" | "MODIFIED":
                return self._rebuild(raw, deleted=False)
            case "DELETED":
                return self._rebuild(raw, deleted=True)
            case "BOOKMARK":
                return _bookmark(raw)
            case "ERROR":
                return _error_line(raw, withheld=self._redact)
            case other:
                return self._garbage(line, f"unknown event type {other[:40]!r}")

    def _too_long(self, beginning: bytes) -> GarbageLine:
        return self._garbage(beginning, f"line is longer than {self._line_bytes_max} bytes")

    def _garbage(self, line: bytes, problem: str) -> GarbageLine:
        return GarbageLine(self._excerpt(line), _WITHHELD if self._redact else problem)

    def _excerpt(self, text: bytes) -> str:
        # It ends up in logs, where the values to be redacted must not.
        return _WITHHELD if self._redact else text[:_EXCERPT_BYTES].decode(errors="replace")

    # -- pages -----------------------------------------------------------------------------------------------

    def page(self, body: bytes | bytearray) -> ListPage:
        """Decodes the body of a LIST response. Its observations are an iterator: they are made one by one, so that a
        list that comes in one piece is never held a second time. `body` must not change meanwhile.

        Raises:
            Garbage: the body is not a list; the iterator as well, where an item has no name, uid or version.
        """
        try:
            page = at_any_depth(_decode_list, body)
            version = parse_version(page.metadata.resource_version)
        except (*_BROKEN_JSON, ValueError) as error:
            raise self._no_list(body, error) from error
        shard_info = page.metadata.shard_info
        return ListPage(
            observations=self._items(body, page.items or []),
            version=version,
            continue_token=page.metadata.continue_token,
            shard_selector=shard_info.selector if shard_info else "",
        )

    def _items(self, body: bytes | bytearray, items: list[Raw]) -> Iterator[Observation]:
        try:
            for raw in items:
                yield self._item(bytes(raw))
        except (*_BROKEN_JSON, ValueError) as error:
            raise self._no_list(body, error) from error

    def _no_list(self, body: bytes | bytearray, error: Exception) -> Garbage:
        problem = type(error).__name__ if self._redact else str(error)
        return Garbage(f"not a list of objects: {problem}: {self._excerpt(bytes(body[:_EXCERPT_BYTES]))!r}")

    def _item(self, raw: bytes) -> Observation:
        found = None
        if raw.startswith(self._head):
            found = self._observe(raw, 0, len(raw), b"", deleted=False)
        elif not self._custom and raw.startswith(b'{"metadata":{'):
            # Items of built-in kinds come without kind and apiVersion.
            found = self._observe(raw, 0, len(raw), self._head, deleted=False)
        return found or at_any_depth(self._rebuild_item, raw)

    def _rebuild_item(self, raw: bytes) -> Observation:
        return self._rebuild(raw, deleted=False)

    # -- one object ------------------------------------------------------------------------------------------

    def _observe(self, text: bytes, at: int, end: int, head: bytes, *, deleted: bool) -> Observation | None:
        """The object ``text[at:end]`` in one of the server's layouts; None if it needs `_rebuild`.

        `head`, if any, takes the place of the opening brace.
        """
        if self._redact:
            return None
        cut, rest = (-1, end) if self._keep_managed_fields else cut_managed_fields(text, at, end)
        if cut < 0:
            body = head + text[at + 1 : end] if head else text[at:end]
            scanned, expected = body, ABSENT
        else:
            front = head + text[at + 1 : cut] if head else text[at:cut]
            rear = text[rest:end]
            body = front + rear
            scanned, expected = b"".join((front, MARK, rear)), MARKED
        try:
            found = self._scan.read(scanned)
            fields = self._scan.texts(found)
            if not body.isascii():
                # msgspec does not look into texts it skips; one bad byte would spoil every list it is in.
                body.decode()
        except (*_BROKEN_JSON, AttributeError):
            # AttributeError: null where a struct is expected.
            return None
        name, namespace, uid, version, raw_labels, managed = found[:IDENTITY]
        if managed != expected or not (name and uid and version.isdecimal() and version.isascii()):
            return None
        if len(version) > _VERSION_DIGITS_MAX:
            return None
        labels = bytes(raw_labels)
        return Observation(
            deleted,
            Key(f"{namespace}/{name}" if namespace else name),
            namespace,
            uid,
            Version(int(version)),
            b"" if labels in _EMPTY else labels,
            fields,
            body,
        )

    def _rebuild(self, raw: bytes, *, deleted: bool) -> Observation:
        """The object in any layout, put together again from its members.

        Raises:
            ValueError, msgspec.DecodeError, UnicodeError, RecursionError: it is no object with name, uid and
            version.
        """
        members = _decode_members(raw)
        if "metadata" not in members:
            raise ValueError("object without metadata")
        metadata = _decode_members(members["metadata"])
        if not self._keep_managed_fields:
            metadata.pop("managedFields", None)
        if self._redact:
            redact(members, metadata)
        members["metadata"] = Raw(_joined(metadata))
        kind = bytes(members.pop("kind", self._kind))
        api_version = bytes(members.pop("apiVersion", self._api_version))
        first = {"apiVersion": Raw(api_version), "kind": Raw(kind)}
        if not self._custom:
            first = {"kind": Raw(kind), "apiVersion": Raw(api_version)}
        body = _joined(first | members)
        document = msgspec.json.decode(body)
        name, namespace, uid, version = (
            document["metadata"].get(member, "") for member in ("name", "namespace", "uid", "resourceVersion")
        )
        for member, value in (("name", name), ("uid", uid), ("resourceVersion", version)):
            if not isinstance(value, str) or not value:
                raise ValueError(f"object without metadata.{member}")
        if not isinstance(namespace, str):
            raise ValueError("metadata.namespace is not a text")  # noqa: TRY004 - bad input, not a wrong call
        labels = bytes(metadata.get("labels", b""))
        return Observation(
            deleted,
            Key(f"{namespace}/{name}" if namespace else name),
            namespace,
            uid,
            parse_version(version),
            b"" if labels in _EMPTY else labels,
            self._scan.values(document),
            body,
        )


def _joined(members: dict[str, Raw]) -> bytes:
    return b"{%b}" % b",".join(b"%b:%b" % (_encode(name), bytes(value)) for name, value in members.items())


def _bookmark(raw: bytes) -> Bookmark:
    metadata = _decode_bookmark(raw).metadata
    ends = (metadata.annotations or {}).get(_INITIAL_EVENTS_END) == "true"
    return Bookmark(parse_version(metadata.resource_version), ends)


def _error_line(raw: bytes, *, withheld: bool) -> ErrorLine:
    """The Status of an ERROR line; `withheld` keeps of it what cannot repeat an object."""
    status = _decode_status(raw)
    if withheld:
        details = status.get("details")
        seconds = details.get("retryAfterSeconds") if isinstance(details, dict) else None
        status = {"code": status.get("code"), "reason": status.get("reason"), "message": _WITHHELD}
        if not isinstance(seconds, bool) and isinstance(seconds, int):
            status["details"] = {"retryAfterSeconds": seconds}
        if not (isinstance(status["reason"], str) and status["reason"] in _REASONS):
            status["reason"] = ""
    code, reason, message = status.get("code"), status.get("reason"), status.get("message")
    return ErrorLine(
        code if isinstance(code, int) else 0,
        reason if isinstance(reason, str) else "",
        message if isinstance(message, str) else "",
        status,
    )
