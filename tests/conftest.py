"""For all tests: what Ray reads from the environment, and no Ray where none is wanted."""

import asyncio
from pathlib import Path

import pytest

from shoal.cluster import ray_environment

# Before anything imports Ray, because its core reads the environment while it is loaded.
ray_environment.prepare(starts_cluster=True)

WITH_RAY = {"ray", "e2e"}


@pytest.fixture(scope="session", autouse=True)
def main_loop():
    """An event loop that is closed at the end. Without it pytest-asyncio has Python 3.11 make one when an
    asynchronous test follows a synchronous one, and nobody closes that: a random test then fails with "unclosed event
    loop" when it is collected.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(autouse=True)
def no_ray(request, monkeypatch):
    """Ray is started only by the tests that are about it."""
    folder = Path(request.fspath).relative_to(Path(__file__).parent).parts[0]
    if folder not in WITH_RAY:

        def refused(*args, **kwargs):
            raise AssertionError(f"tests/{folder} must not start Ray")

        monkeypatch.setattr("ray.init", refused)
