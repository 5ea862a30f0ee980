"""Runs the suite's tests once for each backend; for a real cluster only where ``SHOAL_TEST_KUBECONFIG``
names one.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from conformance.backends import BACKENDS, KUBECONFIG, Backend, opened


@pytest.fixture(params=[name for name in BACKENDS if name != "cluster" or os.environ.get(KUBECONFIG)])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    async with opened(request.param) as found:
        yield found


@pytest.fixture
async def written(backend: Backend) -> Backend:
    """A backend that is written to directly; a copy has nothing to add to these tests."""
    if backend.copy:
        pytest.skip("a copy is not written to")
    return backend


@pytest.fixture
async def watched(backend: Backend) -> Backend:
    """A backend whose reading side serves watches."""
    if not backend.watches:
        pytest.skip("this backend does not serve watches")
    return backend
