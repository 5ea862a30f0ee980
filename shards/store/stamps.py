"""Writing another ``metadata.resourceVersion`` into a body: what kube-apiserver does for objects that leave a watch.

The last state of a deleted object carries the version of its deletion, and the last matching state of one that leaves
a selector the version of the change. Nothing else in the body may change, and the text ``"resourceVersion"`` may stand
anywhere else in it: in annotations, in ``involvedObject``, in custom fields.

The usual body spells the member just once. It is replaced there, and one scan proves that this was the right place:
as nothing else was touched, ``metadata.resourceVersion`` has the new value only if it was. Otherwise object and
metadata are split member by member and put together again.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from ..model.depth import at_any_depth
from ..model.versions import Version


class _Metadata(msgspec.Struct, gc=False):
    resource_version: str = msgspec.field(name="resourceVersion", default="")


class _Object(msgspec.Struct, gc=False):
    metadata: _Metadata


_decode_version: Final = msgspec.json.Decoder(_Object).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def stamped(body: bytes, held: Version, version: Version) -> bytes:
    """The body with `version` in place of `held`, which is what it carries."""
    if held == version:
        return body
    new = b"%d" % version
    old = b'"resourceVersion":"%d"' % held
    at = body.find(old)
    if at >= 0 and body.find(old, at + len(old)) < 0:
        changed = b'%b"resourceVersion":"%b"%b' % (body[:at], new, body[at + len(old) :])
        if at_any_depth(_decode_version, changed).metadata.resource_version == str(version):
            return changed
    return at_any_depth(lambda whole: _rebuilt(whole, new), body)


def _rebuilt(body: bytes, new: bytes) -> bytes:
    members = _decode_members(body)
    metadata = _decode_members(members["metadata"])
    metadata["resourceVersion"] = Raw(b'"%b"' % new)
    members["metadata"] = Raw(_joined(metadata))
    return _joined(members)


def _joined(members: dict[str, Raw]) -> bytes:
    return b"{%b}" % b",".join(b"%b:%b" % (_encode(name), bytes(value)) for name, value in members.items())
