"""What the documentation of the client shows, run; and the names that `import shoal` offers."""

import asyncio
import doctest
import importlib
import pickle
import subprocess
import sys
import urllib.request

import prometheus_client
import pytest
from support.client_faces import cluster

import shoal

DOCUMENTED = (
    "",
    "cluster.client.connect",
    "cluster.client.blocking",
    "cluster.client.sync",
    "cluster.client.writing",
    "cluster.informers.objects",
    "cluster.observability.registering",
    "cluster.observability.serving",
)


def get(url):
    """The body of an answer, for examples that are not about asking."""
    with urllib.request.urlopen(url) as response:
        return response.read().decode().rstrip()


@pytest.fixture(scope="module")
def shared():
    with cluster() as found:
        yield found


@pytest.mark.parametrize("module", DOCUMENTED)
def test_examples_do_what_they_say(module, shared):
    names = {"shoal": shoal, "asyncio": asyncio, "gateway_url": shared.gateway, "api_server_url": shared.api}
    names |= {"prometheus_client": prometheus_client, "get": get}
    found = importlib.import_module(f"shoal.{module}".rstrip("."))
    result = doctest.testmod(found, extraglobs=names)
    assert result.attempted
    assert result.failed == 0


@pytest.mark.parametrize("name", shoal.__all__)
def test_every_public_name_is_there(name):
    assert getattr(shoal, name)
    assert name in dir(shoal)


@pytest.mark.parametrize(
    "name",
    [
        "BucketLimiter",
        "ElectionTimes",
        "FastSlowLimiter",
        "LeadershipLost",
        "MaxOfLimiter",
        "NotSynced",
        "OpenTelemetryTracing",
        "Parked",
        "RateLimiter",
        "WithMaxWaitLimiter",
        "default_limiter",
    ],
)
def test_what_controllers_take_and_raise_is_reached_from_the_root(name):
    assert name in shoal.__all__
    assert getattr(shoal, name).__name__ == name


def test_a_name_there_is_not():
    with pytest.raises(AttributeError, match="module 'shoal' has no attribute 'conect'"):
        shoal.conect  # noqa: B018 - reading it is the test
    assert not hasattr(shoal, "__wrapped__")


def loaded(statement):
    """The modules that a statement loads in a new interpreter."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return set(ended.stdout.split())


def test_importing_shoal_loads_next_to_nothing():
    found = loaded("import shoal")
    assert not {name for name in found if name.startswith("shoal.")}
    assert not found & {"ray", "aiohttp", "asyncio", "msgspec", "kubernetes"}


def test_a_client_loads_neither_ray_nor_the_command_line():
    found = loaded(
        "import shoal; shoal.connect('http://127.0.0.1:1'); shoal.sync; shoal.Controller; shoal.errors.NotFound"
    )
    assert "shoal.cluster.client.connect" in found
    assert not found & {
        "ray",
        "kubernetes",
        "shoal.cluster.bootstrap",
        "shoal.cluster.cli",
        "uvicorn",
        "rich",
    }


def test_errors_survive_pickling():
    error = shoal.errors.NotFound("nothing", details={"name": "a"})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message, again.details) == (type(error), "nothing", {"name": "a"})
