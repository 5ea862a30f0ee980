"""What a client exposes to Prometheus, over real informers and controllers of the embedded API server."""

import asyncio
import random
import re

import pytest
from support.informing import CONFIG_MAPS, WIDGETS
from support.reconciles import Log, running
from support.scrapes import HERE, Scrape, observed

import shoal
from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.leader import LeaderElector
from shoal.cluster.observability import families
from shoal.cluster.workqueue.queue import WorkQueue

MAPS = {"client": HERE, "informer": "v1/configmaps"}


def quiet(*_):
    """A handler."""


def documented():
    """The table of the module: type and labels by name."""
    found, name = {}, ""
    for line in families.__doc__.splitlines():
        if match := re.match(r"([a-z_]+) +(gauge|counter|summary|histogram)\b", line):
            name, kind = match.groups()
            found[name] = (kind, [])
        elif not re.match(r" {40,}\w", line):
            continue
        labels = re.findall(r"[a-z]+", line[54:67])
        found[name][1].extend(labels)
    return {name: (kind, set(labels)) for name, (kind, labels) in found.items()}


# -- the table -----------------------------------------------------------------------------------------------


def test_the_table_says_what_is_exposed():
    async def main(world, client, registry):
        world.create("a")
        informer = client.informer(CONFIG_MAPS)
        informer.add_handler(on_add=quiet)
        elector = LeaderElector(
            world.connection, namespace="default", name="demo", identity="a", uniform=random.Random(1).random
        )
        controller = Controller("demo", Log(), sources=[informer], leader=elector)
        with shoal.metrics(client, controllers=[controller], registry=registry):
            async with running(controller):
                await asyncio.sleep(10)
                scrape = Scrape(registry)
        table = documented()
        assert len(table) > 45
        exposed = {}
        for metric in scrape.families:
            for sample in metric.samples:
                name = re.sub(r"_(bucket|sum|count|created)$", "", sample.name)
                labels = set(sample.labels) - {"client", "le"}
                if name.startswith(("shoal_informer", "shoal_handler")):
                    labels -= {"informer", "handler"}
                known = exposed.setdefault(name, labels)
                assert known == labels
        expected = {name: labels for name, (_, labels) in table.items()}
        nothing_happened = {"shoal_informer_reconnects_total", "shoal_informer_errors_total"}
        assert {name: labels for name, labels in expected.items() if name not in nothing_happened} == {
            name: labels for name, labels in exposed.items() if name not in nothing_happened
        }
        assert scrape.kinds == {name: kind for name, (kind, _) in table.items()}

    observed(main)


# -- informers and handlers ----------------------------------------------------------------------------------


def test_events_handlers_and_what_is_held():
    async def main(world, client, registry):
        world.create("a")
        world.create("b")
        informer = client.informer(CONFIG_MAPS)

        def fails(old, new):
            raise ValueError("no")

        told = informer.add_handler(on_add=quiet, on_update=fails, name="mirror", resync_s=100)
        with shoal.metrics(client, registry=registry):
            assert Scrape(registry).by("state", "shoal_informer_state", **MAPS) == {"waiting": 1}
            assert Scrape(registry).value("shoal_client_ready", client=HERE) == 0
            await told.synced()
            newest = world.change("a", color="red")
            world.delete("b")
            await asyncio.sleep(30)
            scrape, mirror = Scrape(registry), {**MAPS, "handler": "mirror"}
            assert scrape.value("shoal_client_up", client=HERE) == 1
            assert scrape.value("shoal_client_ready", client=HERE) == 1
            assert scrape.value("shoal_client_live", client=HERE) == 1
            assert scrape.by("state", "shoal_informer_state", **MAPS) == {"synced": 1}
            assert scrape.value("shoal_informer_objects", **MAPS) == 1
            assert scrape.value("shoal_informer_body_bytes", **MAPS) > 100
            assert scrape.value("shoal_informer_last_resource_version", **MAPS) >= newest + 1
            assert scrape.value("shoal_informer_last_event_age_seconds", **MAPS) == pytest.approx(30, abs=1)
            assert 0 <= scrape.value("shoal_informer_frontier_age_seconds", **MAPS) <= 31
            events = scrape.by("type", "shoal_informer_events_total", **MAPS)
            assert (events["modified"], events["deleted"]) == (1, 1)
            assert sum(scrape.by("form", "shoal_informer_lists_total", **MAPS).values()) == 1
            assert scrape.by("type", "shoal_handler_events_total", **mirror) == {
                "add": 2,
                "update": 1,
                "delete": 1,
            }
            assert scrape.value("shoal_handler_failures_total", **mirror) == 1
            assert scrape.value("shoal_handler_seconds_count", **mirror) == 4
            assert scrape.value("shoal_handler_lag_seconds_count", **mirror) == 4
            assert scrape.value("shoal_handler_synced", **mirror) == 1
            await asyncio.sleep(100)
            again = Scrape(registry).by("type", "shoal_handler_events_total", **mirror)
            assert again == {"add": 2, "update": 1, "delete": 1, "resync": 1}
        assert Scrape(registry).text == ""

    observed(main)


def test_a_handler_that_hangs_and_falls_behind():
    async def main(world, client, registry):
        free = asyncio.Event()

        async def hangs(*_):
            await free.wait()

        informer = client.informer(CONFIG_MAPS)
        informer.add_handler(on_add=hangs, name="hangs", queue_max=2)
        informer.add_handler(on_add=quiet, name="other")
        await informer.synced()
        for name in "abcd":
            world.create(name)
        await asyncio.sleep(1)
        for color in ("red", "green"):
            world.change("d", color=color)
        await asyncio.sleep(99)
        with shoal.metrics(client, registry=registry):
            scrape, hung, other = Scrape(registry), {**MAPS, "handler": "hangs"}, {**MAPS, "handler": "other"}
            assert scrape.value("shoal_handler_hung_seconds", **hung) == pytest.approx(100, abs=1)
            assert scrape.value("shoal_handler_queue_depth", **hung) == 3
            assert scrape.value("shoal_handler_merging", **hung) == 1
            assert scrape.value("shoal_handler_coalesced_total", **hung) == 2
            assert scrape.value("shoal_handler_oldest_pending_seconds", **hung) == pytest.approx(100, abs=1)
            assert scrape.value("shoal_handler_hung_seconds", **other) == 0
            assert scrape.value("shoal_handler_queue_depth", **other) == 0
            free.set()
            await asyncio.sleep(1)
            scrape = Scrape(registry)
            assert scrape.value("shoal_handler_hung_seconds", **hung) == 0
            assert scrape.value("shoal_handler_slow_total", **hung) == 1
            assert scrape.value("shoal_handler_seconds_sum", **hung) == pytest.approx(100, abs=1)

    observed(main)


def test_reconnects_and_errors_by_reason():
    async def main(world, client, registry):
        informer = client.informer(CONFIG_MAPS)
        await informer.synced()
        world.fault("reset", count=2)
        await asyncio.sleep(1200)
        with shoal.metrics(client, registry=registry):
            scrape, status = Scrape(registry), informer.status
            assert scrape.by("reason", "shoal_informer_reconnects_total", **MAPS) == dict(
                status.watch_restarts
            )
            assert scrape.by("reason", "shoal_informer_errors_total", **MAPS) == dict(status.errors)
            assert sum(status.watch_restarts.values()) > 0

    observed(main)


def test_those_of_one_name_are_told_apart():
    async def main(world, client, registry):
        world.create("a")
        plain, bare = client.informer(CONFIG_MAPS), client.informer(CONFIG_MAPS, transform=lambda body: body)
        for _ in range(2):
            plain.add_handler(on_add=quiet)
        await plain.synced()
        await bare.synced()
        with shoal.metrics(client, registry=registry):
            scrape = Scrape(registry)
            assert set(scrape.by("informer", "shoal_informer_objects")) == {
                "v1/configmaps",
                "v1/configmaps #2",
            }
            assert set(scrape.by("handler", "shoal_handler_synced")) == {"quiet", "quiet #2"}

    observed(main)


def test_what_cannot_be_followed():
    async def main(world, client, registry):
        client.informer(WIDGETS)
        await asyncio.sleep(10)
        with shoal.metrics(client, registry=registry):
            scrape = Scrape(registry)
            assert scrape.by("state", "shoal_informer_state") == {"unknown": 1}
            assert scrape.value("shoal_informer_last_event_age_seconds") is None
            assert scrape.value("shoal_informer_frontier_age_seconds") is None
            assert scrape.value("shoal_client_ready") == 0

    observed(main)


# -- queues, controllers, candidates -------------------------------------------------------------------------


def test_queues_and_controllers_come_along():
    async def main(world, client, registry):
        world.create("a")
        queue = WorkQueue("mine")
        queue.add("x", priority=3)
        controller = Controller("demo", Log(), sources=[client.informer(CONFIG_MAPS)])
        with shoal.metrics(client, controllers=[controller], queues=[queue], registry=registry):
            assert Scrape(registry).by("name", "workqueue_adds_total", client=HERE) == {"mine": 1}
            async with running(controller):
                await asyncio.sleep(10)
                scrape = Scrape(registry)
            assert scrape.by("name", "workqueue_adds_total", client=HERE) == {"mine": 1, "demo": 1}
            assert scrape.value("workqueue_depth", client=HERE, name="mine", priority="3") == 1
            assert scrape.by("result", "shoal_controller_reconciles_total", controller="demo") == {
                "success": 1
            }
            # A queue that ended gives its name to the next run's.
            async with running(controller):
                await asyncio.sleep(10)
                assert Scrape(registry).by("name", "workqueue_adds_total") == {"mine": 1, "demo": 1}

    observed(main)


def test_a_queue_that_was_given_to_a_controller_is_there_once():
    async def main(world, client, registry):
        queue = WorkQueue("mine")
        controller = Controller("demo", Log(), sources=[client.informer(CONFIG_MAPS)], queue=queue)
        with shoal.metrics(client, controllers=[controller], queues=[queue], registry=registry):
            assert [labels["name"] for labels, _ in Scrape(registry).series("workqueue_adds_total")] == [
                "demo"
            ]

    observed(main)


def test_names_have_to_differ():
    async def main(world, client, registry):
        informer = client.informer(CONFIG_MAPS)
        controllers = [Controller("demo", Log(), sources=[informer]) for _ in range(2)]
        for wrong, message in [
            ({"controllers": controllers}, "two controllers are called 'demo': give each a name"),
            ({"queues": [WorkQueue("q"), WorkQueue("q")]}, "two queues are called 'q': give each"),
            ({"queues": [WorkQueue()]}, r"a queue without a name cannot have metrics: WorkQueue\(name\)"),
            (
                {"controllers": controllers[:1], "queues": [WorkQueue("demo")]},
                "as a controller and its own queue",
            ),
        ]:
            with pytest.raises(ValueError, match=message):
                shoal.metrics(client, registry=registry, **wrong)
        assert Scrape(registry).text == ""

    observed(main)
