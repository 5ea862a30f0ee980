"""A gateway that asks nobody who they are: whose requests it answers all the same."""

import pytest
from support.local_shards import PODS, LocalInstallation, made

from shoal.cluster.gateway.doorway import names_loopback


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:7480",
        "LOCALHOST:",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.9.8.7:1",
        "[::1]",
        "[::1]:7480",
    ],
)
def test_names_of_this_machine(host):
    assert names_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7480",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:x",
        "0.0.0.0",
        "10.0.0.1:7480",
        "[::2]:7480",
        "::1",
        "[::1",
        "127.1",
        "2130706433",
        ":7480",
        "",
        "localhost@evil.example",
    ],
)
def test_names_that_may_be_somebody_elses(host):
    assert not names_loopback(host)


def installation():
    built = LocalInstallation(1)
    built.hold(PODS, [made(PODS, "web-0", namespace="a")])
    built.publish()
    return built


async def test_a_page_whose_name_was_pointed_here_reads_nothing():
    built = installation()
    assert (await built.ask("/api/v1/pods", host="127.0.0.1:7480")).status == 200
    reply = await built.ask("/api/v1/pods", host="evil.example:7480")
    assert reply.status == 403
    assert "Host 'evil.example:7480' is refused" in reply.json["message"]
    assert (await built.ask("/livez", host="evil.example")).status == 200
    assert (await built.ask("/metrics", host="evil.example")).status == 403


@pytest.mark.parametrize("name", ["impersonate_user", "impersonate_group", "impersonate_extra_x"])
async def test_nobody_acts_as_somebody_where_nobody_is_asked(name):
    reply = await installation().ask("/api/v1/pods", **{name: "root"})
    assert reply.status == 400
    assert "gateway.authentication" in reply.json["message"]


@pytest.mark.parametrize("name", ["Authorization", "impersonate-user", "x, Impersonate-Extra-A"])
async def test_a_header_that_tells_who_asks_is_not_the_connections(name):
    """A proxy would drop it: then the rest would be asked as somebody else."""
    reply = await installation().ask("/api/v1/pods", connection=f"keep-alive, {name}")
    assert reply.status == 400
    assert "the Connection header names" in reply.json["message"]
