"""Queries counted, and the seconds they took, by verb. Belongs to the shard's event loop; other threads may read it."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class QueryCounts:
    """All queries of one shard. A stream counts from its first page to its end."""

    def __init__(self) -> None:
        self.queries: Counter[str] = Counter()
        """By verb, ended in whatever way."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.in_progress = 0

    @contextmanager
    def counted(self, verb: str) -> Iterator[None]:
        """Counts one query and the seconds it took, whatever its end."""
        now = asyncio.get_running_loop().time
        began = now()
        self.in_progress += 1
        try:
            yield
        finally:
            self.in_progress -= 1
            self.queries[verb] += 1
            self.seconds[verb] += now() - began
