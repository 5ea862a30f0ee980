"""`serve_health`, asked over a socket as a kubelet and a scraper do."""

import asyncio
import gc

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from support.reconciles import Log
from support.scrapes import Scrape

import shoal
from shoal import errors
from shoal.cluster.controller.controller import Controller
from shoal.cluster.simulator.server import ApiServer
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.api.client import HttpConnection, PlainCredentials
from shoal.shards.api.requests import ApiRequest

PATIENCE_S = 60.0


@pytest.fixture
async def source():
    async with ApiServer(settings=SimulatorSettings(seed=1)) as server:
        yield server


@pytest.fixture
async def client(source):
    async with shoal.local(url=source.url) as found:
        yield found


async def ask(server, path, *query, method="GET", **headers):
    """Status, headers and text of an answer."""
    connection = HttpConnection(PlainCredentials(server.url))
    request = ApiRequest(method, path, query, tuple(headers.items()))
    try:
        async with asyncio.timeout(PATIENCE_S), connection.open(request) as response:
            return response.status, response.headers, (await response.read()).decode()
    finally:
        await connection.aclose()


async def test_ready_names_what_lacks(client):
    registry = CollectorRegistry()
    pods = client.informer("v1/pods")
    widgets = client.informer("example.com/v1/widgets", wait=True)
    await pods.synced()
    async with await shoal.serve_health(client, listen="127.0.0.1:0", registry=registry) as server:
        status, headers, text = await ask(server, "/readyz")
        assert status == 503
        assert headers["content-type"] == "text/plain; charset=utf-8"
        first, second, third, last = text.splitlines()
        assert (first, second, last) == ("[+]client ok", "[+]informer/v1/pods ok", "readyz check failed")
        assert third.startswith("[-]informer/example.com/v1/widgets is not synced, but waiting: ")
        excluded = ("exclude", "informer/example.com/v1/widgets")
        assert (await ask(server, "/readyz", excluded))[::2] == (200, "ok")
        status, _, text = await ask(server, "/readyz", excluded, ("verbose", ""))
        assert status == 200
        assert "[+]informer/example.com/v1/widgets excluded: ok\n" in text
        assert "readyz check passed\nwarn: informer example.com/v1/widgets is not synced" in text
        _, _, text = await ask(server, "/readyz", excluded, ("exclude", "nothing"), ("verbose", ""))
        assert "warn: some health checks cannot be excluded: no matches for 'nothing'" in text
        await widgets.release()
        assert (await ask(server, "/readyz/"))[::2] == (200, "ok")


async def test_alive_and_controllers(client):
    controller = Controller("demo", Log(), sources=[client.informer("v1/configmaps")])
    registry = CollectorRegistry()
    async with await shoal.serve_health(
        client, listen="127.0.0.1:0", registry=registry, controllers=[controller]
    ) as server:
        for path in ("/healthz", "/livez"):
            assert (await ask(server, path))[::2] == (200, "ok")
            status, _, text = await ask(server, path, ("verbose", ""))
            assert (status, text.splitlines()[:2]) == (200, ["[+]ping ok", "[+]hung ok"])
        assert "[-]controller/demo does not run" in (await ask(server, "/readyz"))[2]
        task = asyncio.create_task(controller.run())
        async with asyncio.timeout(PATIENCE_S):
            while (await ask(server, "/readyz"))[0] != 200:
                await asyncio.sleep(0.01)
        controller.stop()
        await task


async def test_a_handler_that_hangs_for_too_long_is_not_alive(source):
    informers = shoal.cluster.informers.settings.InformerSettings(hung_s=0.01)
    async with shoal.local(url=source.url, informers=informers) as client:
        free = asyncio.Event()
        informer = client.informer("v1/namespaces")

        async def hangs(*_):
            await free.wait()

        informer.add_handler(on_add=hangs, name="mirror")
        bounds = shoal.HealthBounds(hung_live_s=0.02)
        async with await shoal.serve_health(
            client, listen="127.0.0.1:0", registry=CollectorRegistry(), bounds=bounds
        ) as server:
            async with asyncio.timeout(PATIENCE_S):
                while (found := await ask(server, "/healthz"))[0] == 200:
                    await asyncio.sleep(0.01)
            assert found[0] == 503
            assert "[-]hung handler mirror of informer v1/namespaces hangs: its call about " in found[2]
            _, _, text = await ask(server, "/metrics")
            assert Scrape(text).value("shoal_client_live") == 0, "by the bounds of the same server"
        free.set()


async def test_metrics_in_the_form_that_is_asked_for(client):
    await client.informer("v1/namespaces").synced()
    async with await shoal.serve_health(client, listen="127.0.0.1:0", registry=CollectorRegistry()) as server:
        status, headers, text = await ask(server, "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=")
        assert Scrape(text).value("shoal_informer_objects", informer="v1/namespaces") > 0
        _, headers, text = await ask(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert headers["content-type"].startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        status, headers, text = await ask(server, "/metrics", method="HEAD")
        assert (status, text) == (200, "")


async def test_the_registry_of_the_process_is_the_default_and_is_left_again(client):
    async with await shoal.serve_health(client, listen="127.0.0.1:0") as server:
        _, _, text = await ask(server, "/metrics")
        assert "python_info" in text
        assert "shoal_client_up" in text
    assert "shoal_client_up" not in Scrape(REGISTRY).text


async def test_what_is_registered_already_stays(client):
    registry = CollectorRegistry()
    controller = Controller("demo", Log(), sources=[client.informer("v1/pods")])
    with shoal.metrics(client, registry=registry, controllers=[controller], name="mine"):
        with pytest.raises(
            ValueError, match="is in this registry already: give controllers, queues and leaders"
        ):
            await shoal.serve_health(
                client, listen="127.0.0.1:0", registry=registry, controllers=[controller]
            )
        async with await shoal.serve_health(client, listen="127.0.0.1:0", registry=registry) as server:
            assert "[-]controller/demo does not run" in (await ask(server, "/readyz"))[2]
        assert Scrape(registry).by("client", "shoal_client_up") == {"mine": 1}


async def test_bounds_are_those_of_the_registration(client):
    registry, bounds = CollectorRegistry(), shoal.HealthBounds(hung_live_s=5.0)
    with shoal.metrics(client, registry=registry, bounds=bounds):
        for same in (None, shoal.HealthBounds(hung_live_s=5.0)):
            async with await shoal.serve_health(
                client, listen="127.0.0.1:0", registry=registry, bounds=same
            ) as server:
                assert (await ask(server, "/healthz"))[0] == 200
        with pytest.raises(
            ValueError, match="is in this registry already, with other bounds: give them to shoal"
        ):
            await shoal.serve_health(
                client, listen="127.0.0.1:0", registry=registry, bounds=shoal.HealthBounds()
            )


async def test_other_requests(client):
    async with await shoal.serve_health(client, listen="127.0.0.1:0", registry=CollectorRegistry()) as server:
        status, _, text = await ask(server, "/")
        assert (status, text) == (404, "not found; there are /healthz, /livez, /metrics, /readyz\n")
        status, headers, _ = await ask(server, "/metrics", method="POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        status, _, text = await ask(server, "/metrics", Host="evil.example.com")
        assert status == 403
        assert text.startswith("only requests to localhost")


async def test_whoever_listens_for_all_is_asked_by_any_name(client):
    async with await shoal.serve_health(client, listen="0.0.0.0:0", registry=CollectorRegistry()) as server:
        assert (await ask(server, "/healthz", Host="pod.example.com"))[0] == 200


@pytest.mark.parametrize("listen", ["9090", "here", ":80", "127.0.0.1:99999", "127.0.0.1:x"])
async def test_an_address_that_is_none(client, listen):
    with pytest.raises(errors.SettingsError, match="expected HOST:PORT"):
        await shoal.serve_health(client, listen=listen)


async def test_a_port_in_use_leaves_nothing_behind(client):
    registry = CollectorRegistry()
    async with await shoal.serve_health(client, listen="127.0.0.1:0", registry=CollectorRegistry()) as server:
        with pytest.raises(errors.SettingsError, match=f"port {server.port} is in use"):
            await shoal.serve_health(client, listen=f"127.0.0.1:{server.port}", registry=registry)
    assert Scrape(registry).text == ""


async def test_it_ends_with_the_client(source):
    registry = CollectorRegistry()
    async with shoal.local(url=source.url) as client:
        server = await shoal.serve_health(client, listen="127.0.0.1:0", registry=registry)
        assert (await ask(server, "/healthz"))[0] == 200
    with pytest.raises(errors.ConnectionFailed):
        await ask(server, "/healthz")
    assert Scrape(registry).text == ""
    await server.aclose()


async def test_for_a_blocking_client(source):
    registry = CollectorRegistry()

    def program():
        with shoal.sync.local(url=source.url) as client:
            client.informer("v1/namespaces").synced(timeout_s=PATIENCE_S)
            server = client.run(shoal.serve_health, listen="127.0.0.1:0", registry=registry)
            found = asyncio.run(ask(server, "/readyz")), asyncio.run(ask(server, "/metrics"))
            return server, found

    server, (ready, scraped) = await asyncio.to_thread(program)
    assert ready[::2] == (200, "ok")
    assert Scrape(scraped[2]).value("shoal_informer_objects", informer="v1/namespaces") > 0
    assert Scrape(registry).text == ""
    with pytest.raises(errors.ConnectionFailed):
        await ask(server, "/readyz")
    gc.collect()
