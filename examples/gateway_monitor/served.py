"""What the API server serves of one group, asked directly: so that "there is no such kind" is known and not guessed.

Discovery of informers tells what comes and goes, and keeps quiet about what it could not learn. Here a group that does
not answer is an error, and one that is not served at all is another answer than one without the kind. Who asks needs
`get` on ``/apis/GROUP`` and below, which Kubernetes gives to everybody who is authenticated.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

import shoal

T = TypeVar("T")

TIMEOUT_S = 10.0


class Unanswered(Exception):  # noqa: N818 - read as a sentence
    """What a group has could not be learnt; the message says why."""


class _Version(msgspec.Struct):
    version: str


class _Group(msgspec.Struct):
    versions: list[_Version] = []


class _Resource(msgspec.Struct):
    name: str


class _Resources(msgspec.Struct):
    resources: list[_Resource] = []


async def served(client: shoal.Client, group: str) -> frozenset[str] | None:
    """Plural names of the kinds of a group, in all its versions; None if no such group is served.

    Raises:
        Unanswered: the server, or the part of it that has the group, does not say.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            found = await _read(client, f"/apis/{group}", _Group)
            if found is None:
                return None
            kinds: set[str] = set()
            for one in found.versions:
                listed = await _read(client, f"/apis/{group}/{one.version}", _Resources)
                # A version that has gone in this moment has nothing.
                kinds |= {known.name for known in listed.resources} if listed is not None else set()
            return frozenset(kinds)
    except TimeoutError:
        raise Unanswered(f"discovery of {group}: no answer within {TIMEOUT_S:g} s") from None


async def _read(client: shoal.Client, path: str, form: type[T]) -> T | None:
    request = shoal.ApiRequest("GET", path, (), (("Accept", "application/json"),))
    try:
        async with client.connection.open(request) as response:
            status, body = response.status, await response.read()
    except shoal.errors.ShoalError as error:
        raise Unanswered(f"discovery: {error}") from error
    if status == 404:
        return None
    if status != 200:
        raise Unanswered(f"discovery: {path} answers {status}")
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unanswered(f"discovery: {path} answers something else: {error}") from error
