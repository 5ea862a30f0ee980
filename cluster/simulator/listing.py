"""The rules of LIST: which state is answered, in which pages, and what is too old or too new.

Waiting for a version is done by `app` before `answer` is called (`awaited`); everything here is
synchronous, so a page is one state. Continue tokens are kube-apiserver's own: base64 of
``{"v":…,"rv":…,"start":…}``. Pure.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, assert_never

from ...shards.model.errors import BadRequest, Expired, TooLargeVersion
from ...shards.model.refs import namespace_range
from ...shards.model.versions import Version
from ..serving.documents import ListMetadata
from ..serving.options import (
    CONTINUE_EXPIRED,
    VERSION_EXPIRED,
    AnyVersion,
    Exact,
    ListOptions,
    MostRecent,
    NotOlderThan,
)
from .selection import Predicate, ShardSelector
from .storage import Collection, Compacted, Storage, Stored

_FORMAT: Final = "meta.k8s.io/v1"
INCONSISTENT = -1
"""Version in a token that goes on with whatever is there."""


@dataclass(frozen=True, slots=True)
class ContinueToken:
    """Where the next page starts."""

    version: int
    """Of the first page, or `INCONSISTENT`."""
    start: str
    """Key of the first object that may be on the page, relative to the namespace of the list."""

    def encode(self, *, rooted: bool = True) -> str:
        """The text of the token; kube-apiserver writes a leading slash, except into tokens inside a 410."""
        start = f"/{self.start}" if rooted else self.start
        text = json.dumps({"v": _FORMAT, "rv": self.version, "start": start}, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> ContinueToken:
        """Reads a token.

        Raises:
            BadRequest: with the text kube-apiserver gives.
        """
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            raise _bad_token("illegal base64 data at input byte " + str(_first_illegal(text))) from None
        try:
            found: Any = json.loads(raw)
        except ValueError:
            raise _bad_token(_json_problem(raw)) from None
        if not isinstance(found, dict):
            raise _bad_token("json: cannot unmarshal into Go value of type storage.continueToken")
        version, start = found.get("rv", 0), found.get("start", "")
        if found.get("v") != _FORMAT:
            raise _bad_token(
                f"server does not recognize this encoded version {json.dumps(found.get('v', ''))}"
            )
        if not isinstance(version, int) or version == 0:
            raise _bad_token(f"incorrect encoded start resourceVersion (version {_FORMAT})")
        if not isinstance(start, str) or not start:
            raise _bad_token(f"encoded start key empty (version {_FORMAT})")
        return cls(version, start.removeprefix("/"))


def awaited(options: ListOptions) -> Version:
    """The version that must be reached before the list is answered; 0 for none.

    Raises:
        BadRequest: the version asked for is not a number.
    """
    if options.continue_token:
        return Version(0)
    match options.demand():
        case NotOlderThan(version=version) | Exact(version=version):
            return version
        case _:
            return Version(0)


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """One page."""

    objects: list[Stored]
    metadata: ListMetadata


def answer(
    storage: Storage,
    collection: Collection,
    options: ListOptions,
    *,
    namespace: str | None,
    matches: Predicate | None,
    shards: ShardSelector | None,
) -> ListAnswer:
    """The page that `options` ask for.

    Raises:
        BadRequest: a bad token, or parameters that exclude each other.
        Expired: the state asked for has been compacted.
        TooLargeVersion: it does not exist yet.
    """
    prefix = namespace_range(namespace)[0] if namespace else ""
    token = _continued(options)
    asked = _asked(storage, collection, options) if token is None else _pinned(storage, token, options)
    try:
        page = collection.page(
            version=asked.version,
            namespace=namespace,
            after="" if token is None else prefix + token.start,
            limit=asked.limit,
            matches=matches,
        )
    except Compacted:
        raise _too_old(token) from None
    following = ""
    if page.more:
        # NUL is the smallest character: the next key is the first one greater than the last one sent.
        start = page.objects[-1].key.removeprefix(prefix) + "\0"
        following = ContinueToken(asked.shown, start).encode()
    counted = page.more and not (options.label_selector or options.field_selector)
    return ListAnswer(
        page.objects,
        ListMetadata(
            version=asked.shown,
            continue_token=following,
            remaining=page.remaining if counted else None,
            shard_selector="" if shards is None else str(shards),
        ),
    )


class _Asked(NamedTuple):
    version: Version | None
    """The state to answer; None for the newest."""
    shown: Version
    """What the list says its version is."""
    limit: int


def _asked(storage: Storage, collection: Collection, options: ListOptions) -> _Asked:
    """The state a first page is taken from."""
    demand = options.demand()
    if isinstance(demand, NotOlderThan | Exact) and demand.version > storage.revision:
        raise TooLargeVersion(demand.version, storage.revision)
    match demand:
        case MostRecent():
            # A consistent read makes the cache catch up with etcd's revision.
            collection.observed = storage.revision
            return _Asked(None, storage.revision, options.limit)
        case AnyVersion():
            return _Asked(None, collection.observed, 0)
        case NotOlderThan(version=wanted):
            if wanted > collection.observed:
                collection.observed = storage.revision
            return _Asked(None, collection.observed, options.limit)
        case Exact(version=wanted):
            return _Asked(wanted, wanted, options.limit)
        case other:
            assert_never(other)


def _pinned(storage: Storage, token: ContinueToken, options: ListOptions) -> _Asked:
    """The state the first page was taken from, or for an inconsistent token the newest."""
    if token.version == INCONSISTENT:
        return _Asked(None, storage.revision, options.limit)
    if token.version > storage.revision:
        raise TooLargeVersion(token.version, storage.revision)
    return _Asked(Version(token.version), Version(token.version), options.limit)


def _continued(options: ListOptions) -> ContinueToken | None:
    if not options.continue_token:
        return None
    if options.resource_version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    return ContinueToken.decode(options.continue_token)


def _too_old(token: ContinueToken | None) -> Expired:
    if token is None:
        return Expired(VERSION_EXPIRED)
    onward = ContinueToken(INCONSISTENT, token.start).encode(rooted=False)
    return Expired(CONTINUE_EXPIRED, metadata={"continue": onward})


def _bad_token(why: str) -> BadRequest:
    return BadRequest(f"invalid continue token: continue key is not valid: {why}")


def _first_illegal(text: str) -> int:
    alphabet = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    return next((at for at, char in enumerate(text) if char not in alphabet), len(text))


def _json_problem(raw: bytes) -> str:
    stripped = raw.lstrip(b" \t\r\n")
    if not stripped:
        return "unexpected end of JSON input"
    first = stripped[0]
    if first in b'{["-0123456789tfn':
        return "unexpected end of JSON input"
    shown = chr(first) if 0x20 <= first < 0x7F else f"\\u{first:04x}"
    return f"invalid character '{shown}' looking for beginning of value"
