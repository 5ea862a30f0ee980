"""A client that is given the address of a Ray cluster finds the Shoal on it: from this program's own connection to
Ray, and from a program that has none.
"""

import asyncio
import subprocess
import sys

import pytest
import ray

import shoal

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

SCRIPT = """
import sys
import shoal

with shoal.sync.connect(ray_address=sys.argv[1], timeout_s=60) as client:
    print(client.lister("v1/pods").count())
"""


def asked(address):
    """What the script says in a program of its own."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, address], capture_output=True, text=True, timeout=120, check=False
    )


async def test_a_client_finds_the_gateway(running):
    async with shoal.connect(ray_address="auto") as client:
        found = await client.lister("v1/pods").list(limit=1)
        assert found.freshness.from_shoal
        assert ray.is_initialized()
        count = await client.lister("v1/pods").count()
    address = ray.get_runtime_context().gcs_address
    ended = await asyncio.to_thread(asked, address)
    assert (ended.returncode, ended.stdout.strip()) == (0, str(count)), ended.stderr


def test_no_ray_answers_there():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert "SettingsError: no Ray cluster answers at '127.0.0.1:1'" in ended.stderr
