"""Clients in registries of prometheus_client: into them, out of them, and read from any thread."""

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry
from support.client_faces import PODS, SPACE, cluster
from support.informing import CONFIG_MAPS
from support.scrapes import HERE, Scrape, observed

import shoal
from shoal.cluster.client.connect import Client
from shoal.cluster.workqueue.metrics import QueueCollector
from shoal.cluster.workqueue.queue import WorkQueue


def test_two_clients_live_in_one_registry_and_leave_it():
    async def main(world, client, registry):
        other = Client(world.connection, where=HERE)
        first = shoal.metrics(client, registry=registry)
        second = shoal.metrics(other, registry=registry)
        assert (first.name, second.name) == (HERE, f"{HERE} #2")
        assert set(Scrape(registry).by("client", "shoal_client_up")) == {HERE, f"{HERE} #2"}
        first.close()
        first.close()
        assert set(Scrape(registry).by("client", "shoal_client_up")) == {f"{HERE} #2"}
        # What is closed takes itself out; the registry takes a new one then.
        await other._factory.aclose()
        second.close()
        assert Scrape(registry).text == ""
        with shoal.metrics(client, registry=registry, name="again"):
            assert Scrape(registry).by("client", "shoal_client_up") == {"again": 1}

    observed(main)


def test_a_client_that_is_closed_takes_itself_out():
    async def main(world, client, registry):
        other = Client(world.connection, where="elsewhere")
        with shoal.metrics(client, registry=registry), shoal.metrics(other, registry=registry):
            world.connection.aclose = lambda: asyncio.sleep(0)
            await other.aclose()
            assert set(Scrape(registry).by("client", "shoal_client_up")) == {HERE}

    observed(main)


def test_what_cannot_be_registered():
    async def main(world, client, registry):
        with shoal.metrics(client, registry=registry):
            with pytest.raises(
                ValueError, match=f"client of {HERE}> is in this registry already, as '{HERE}'"
            ):
                shoal.metrics(client, registry=registry)
            with pytest.raises(ValueError, match=f"another client is called '{HERE}' in this registry"):
                shoal.metrics(Client(world.connection, where="x"), registry=registry, name=HERE)
            # Another registry is another matter.
            with shoal.metrics(client, registry=CollectorRegistry()):
                pass
        with pytest.raises(TypeError, match="42 is no client of Shoal: expected what shoal.connect"):
            shoal.metrics(42, registry=registry)
        other = CollectorRegistry(auto_describe=True)
        other.register(QueueCollector([WorkQueue("mine")]))
        with pytest.raises(ValueError, match="the registry has metrics of the same names already"):
            shoal.metrics(client, registry=other)
        # What failed left nothing behind.
        with shoal.metrics(client, registry=registry) as registered:
            assert registered.name == HERE

    observed(main)


def test_registering_looks_at_nobody():
    async def main(world, client, registry):
        asked = []
        client._factory.__class__ = type(
            "Watched", (type(client._factory),), {"informers": property(lambda self: asked.append(1) or ())}
        )
        with shoal.metrics(client, registry=CollectorRegistry(auto_describe=True)):
            assert asked == []

    observed(main)


def test_a_client_that_cannot_be_read_hides_nobody_else(monkeypatch, caplog):
    async def main(world, client, registry):
        other = Client(world.connection, where="elsewhere")
        other.informer(CONFIG_MAPS)
        (feed,) = other.informers.informers
        with shoal.metrics(client, registry=registry), shoal.metrics(other, registry=registry):
            monkeypatch.setattr(feed, "_past", None)
            scrape = Scrape(registry)
            assert scrape.value("shoal_client_up", client=HERE) == 1
            assert scrape.value("shoal_client_up", client="elsewhere") == 0
            monkeypatch.undo()
            assert Scrape(registry).value("shoal_client_up", client="elsewhere") == 1
        await other.informers.aclose()

    observed(main)
    assert {record.client for record in caplog.records if record.getMessage() == "client cannot be read"} == {
        "elsewhere"
    }


# -- from another thread -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared():
    with cluster() as found:
        yield found


def test_a_blocking_client_is_scraped_from_any_thread(shared):
    registry = CollectorRegistry()
    with shoal.sync.local(url=shared.api) as client:
        informer = client.informer("v1/pods", namespace=SPACE)
        informer.synced(timeout_s=30)
        with shoal.metrics(client, registry=registry, name="twin"):
            labels = {"client": "twin", "informer": f"v1/pods in {SPACE}"}
            assert Scrape(registry).value("shoal_informer_objects", **labels) == len(PODS)
            assert client.health().ready
            blocked, go_on = threading.Event(), threading.Event()

            async def blocks(_):
                blocked.set()
                go_on.wait(60)

            thread = threading.Thread(target=client.run, args=(blocks,))
            thread.start()
            assert blocked.wait(60)
            try:
                scrape = Scrape(registry)
            finally:
                go_on.set()
                thread.join(60)
            assert scrape.value("shoal_client_up", client="twin") == 0
            assert scrape.value("shoal_informer_objects", **labels) is None
            assert Scrape(registry).value("shoal_client_up", client="twin") == 1
    assert Scrape(registry).text == ""


async def test_an_asynchronous_client_is_scraped_from_a_thread(shared):
    registry = CollectorRegistry()
    async with shoal.local(url=shared.api) as client:
        await client.informer("v1/pods").synced()
        with shoal.metrics(client, registry=registry):
            scrape = await asyncio.to_thread(Scrape, registry)
            assert scrape.value("shoal_informer_objects", client=shared.api) == len(PODS)


def test_a_loop_that_has_ended_hides_nobody_else(shared):
    registry = CollectorRegistry()

    async def begins():
        shoal.metrics(shoal.local(url=shared.api), registry=registry, name="left behind")

    asyncio.run(begins())
    with shoal.sync.local(url=shared.api) as client, shoal.metrics(client, registry=registry, name="twin"):
        assert dict(Scrape(registry).by("client", "shoal_client_up")) == {"twin": 1}
        assert Scrape(registry).value("shoal_client_up", client="left behind") == 0


def test_an_asynchronous_client_is_registered_on_its_loop(shared):
    with pytest.raises(RuntimeError, match="no running event loop"):
        shoal.metrics(shoal.local(url=shared.api), registry=CollectorRegistry())
