"""Reads a recorded cluster: one object a line, in the order they are to be created.

Each line is ``{"group":…,"version":…,"resource":…,"object":{…}}``; the file is plain or zstd-compressed and
is read as a stream, so that its size does not matter. The one that comes with the package holds 3 628
objects of a medium cluster. Objects come out in the form bodies have everywhere in Shoal: a built-in kind
with ``kind`` and ``apiVersion`` in front, a custom resource as it is. Uids, versions and managed fields are
those of the recording; what becomes of them is the reader's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
import zstandard

from ...shards.model.errors import SettingsError
from ...shards.model.resources import Resource

PACKAGED = "cluster.jsonl.zst"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CHUNK_BYTES = 1 << 18
_LINE_BYTES_MAX = 64 << 20
"""A longer line is not an object: etcd takes 1.5 MiB by default."""


class RecordedObject(NamedTuple):
    """An object and the resource it belongs to."""

    resource: Resource
    body: bytes


class _Line(msgspec.Struct):
    group: str
    version: str
    resource: str
    object: msgspec.Raw


_LINE = msgspec.json.Decoder(_Line)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder()


def read_cluster(path: str | Path | None = None) -> Iterator[RecordedObject]:
    """Yields the objects of a file, or of the packaged cluster if `path` is None.

    Raises:
        SettingsError: the file is missing, unreadable or damaged; the message names it and the line.
    """
    if path is None:
        packaged = resources.files(__package__).joinpath(PACKAGED)
        with packaged.open("rb") as file:
            yield from _objects(file, PACKAGED)
        return
    name = str(path)
    try:
        with Path(path).expanduser().open("rb") as file:
            yield from _objects(file, name)
    except OSError as error:
        raise SettingsError(f"cannot read the cluster file {name}: {error.strerror or error}") from error


def _objects(file: IO[bytes], name: str) -> Iterator[RecordedObject]:
    number = 0
    for number, line in enumerate(_lines(file, name), start=1):
        if line.strip():
            yield _object(line, f"cluster file {name}, line {number}")
    if number == 0:
        raise SettingsError(f"the cluster file {name} is empty: expected one object a line")


def _object(line: bytes, place: str) -> RecordedObject:
    try:
        recorded = _LINE.decode(line)
        raw = bytes(recorded.object)
        members = _MEMBERS.decode(raw)
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{place}: {error}") from error
    resource = Resource(recorded.group, recorded.version, recorded.resource)
    missing = next((key for key in ("apiVersion", "kind", "metadata") if key not in members), None)
    if missing is not None:
        raise SettingsError(f"{place}: the object has no {missing}")
    if raw.startswith(b'{"apiVersion"'):
        return RecordedObject(resource, raw)
    head = {"kind": members.pop("kind"), "apiVersion": members.pop("apiVersion")}
    return RecordedObject(resource, _ENCODER.encode(head | members))


def _lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    """Lines without their newline; the last one may lack it."""
    number, pending = 1, b""
    for chunk in _chunks(file, name):
        *complete, pending = (pending + chunk).split(b"\n")
        yield from complete
        number += len(complete)
        if len(pending) > _LINE_BYTES_MAX:
            raise SettingsError(f"cluster file {name}, line {number}: longer than {_LINE_BYTES_MAX} bytes")
    if pending:
        yield pending


def _chunks(file: IO[bytes], name: str) -> Iterator[bytes]:
    first = file.read(_CHUNK_BYTES)
    if not first.startswith(_ZSTD_MAGIC):
        while first:
            yield first
            first = file.read(_CHUNK_BYTES)
        return
    frame = zstandard.ZstdDecompressor().decompressobj()
    try:
        while first:
            yield frame.decompress(first)
            first = file.read(_CHUNK_BYTES)
    except zstandard.ZstdError as error:
        raise SettingsError(f"the cluster file {name} is damaged: {error}") from error
    if not frame.eof:
        raise SettingsError(f"the cluster file {name} ends too early: its last block is incomplete")
