"""The headers that say what an answer rests on, and the one with which a client takes less than everything.

``Shoal-Frontier``  everything up to this resource version is in the answer
``Shoal-Age``       seconds since the API server proved that
``Shoal-Shards``    who answered, separated by commas
``Shoal-Partial``   of an answer: what is missing from it, `missing shard-1 (v1/pods)`; of a request: ``allow``
"""

from __future__ import annotations

from ...shards.model.errors import BadRequest
from ..query.answers import Provenance
from .http import NO_CACHE, Headers, Request

PARTIAL_HEADER = "Shoal-Partial"
PARTIAL_PARAMETER = "shoalPartial"


def provenance_headers(provenance: Provenance) -> Headers:
    """Of an answer to get, list, watch or count."""
    age = () if provenance.age_s is None else (("Shoal-Age", f"{provenance.age_s:.3f}"),)
    partial = ((PARTIAL_HEADER, missing(provenance)),) if provenance.partial else ()
    return (
        NO_CACHE,
        ("Shoal-Frontier", str(provenance.frontier)),
        *age,
        ("Shoal-Shards", ",".join(provenance.shards)),
        *partial,
    )


def missing(provenance: Provenance) -> str:
    """What a partial answer lacks, for people and for a header."""
    return f"missing {','.join(provenance.missing)} ({','.join(provenance.missing_partitions)})"


def partial_will_do(request: Request) -> bool:
    """Whether the client says that an answer without a missing shard's part is better than none.

    Raises:
        BadRequest: it says something else there.
    """
    header = request.headers.get(PARTIAL_HEADER.lower())
    if header is not None and header.lower() != "allow":
        raise BadRequest(f"header {PARTIAL_HEADER}: {header!r}: the one value there is is allow")
    parameter = request.parameter(PARTIAL_PARAMETER)
    if parameter is not None and parameter.lower() not in ("true", "false", "1", "0"):
        raise BadRequest(f"parameter {PARTIAL_PARAMETER}: {parameter!r}: expected true or false")
    return header is not None or (parameter is not None and parameter.lower() in ("true", "1"))
