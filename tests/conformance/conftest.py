"""Runs the suite's tests once for each backend; for a real cluster only where ``SHOAL_TEST_KUBECONFIG``
names one.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from conformance.backends import BACKENDS, KUBECONFIG, Backend, Connect, opened


@pytest.fixture(
    scope="module", params=[name for name in BACKENDS if name != "cluster" or os.environ.get(KUBECONFIG)]
)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """A server for all tests of a module."""
    with BACKENDS[request.param]() as found:
        yield found


@pytest.fixture
async def backend(connect: Connect) -> AsyncIterator[Backend]:
    async with opened(connect) as found:
        yield found


@pytest.fixture
async def written(backend: Backend) -> Backend:
    """For tests of writing: every backend is written to, the gateway too."""
    return backend


@pytest.fixture
async def watched(backend: Backend) -> Backend:
    """For tests of watching: every backend serves watches."""
    return backend
