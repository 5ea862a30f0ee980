"""Fixtures of the tests of the examples."""

import pytest
from unit.examples.monitored import read_recorded


@pytest.fixture(scope="session")
def recorded():
    """Of one namespace, what the monitor follows; and the definitions."""
    return read_recorded()
