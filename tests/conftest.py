"""For all tests: what Ray reads from the environment, and no Ray where none is wanted."""

from pathlib import Path

import pytest

from shoal.cluster import ray_environment

# Before anything imports Ray, because its core reads the environment while it is loaded.
ray_environment.prepare(starts_cluster=True)

WITH_RAY = {"ray", "e2e"}


@pytest.fixture(autouse=True)
def no_ray(request, monkeypatch):
    """Ray is started only by the tests that are about it."""
    folder = Path(request.fspath).relative_to(Path(__file__).parent).parts[0]
    if folder not in WITH_RAY:

        def refused(*args, **kwargs):
            raise AssertionError(f"tests/{folder} must not start Ray")

        monkeypatch.setattr("ray.init", refused)
