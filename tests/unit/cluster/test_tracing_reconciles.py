"""Spans of reconciles and their links, from an event at the API server to the reconcile that answers it."""

import asyncio
import random

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from support.informing import CONFIG_MAPS, World, in_world
from support.reconciles import running
from support.spans import Spans, failures, under
from support.told import ToldInformer, thing

from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.errors import TerminalError
from shoal.cluster.controller.ports import NoTracing, Result
from shoal.cluster.controller.sources import CAUSES_MAX
from shoal.cluster.controller.tracing import OpenTelemetryTracing, find_tracing
from shoal.cluster.informers.factory import InformerFactory
from shoal.cluster.workqueue.limiters import ExponentialLimiter
from shoal.cluster.workqueue.queue import WorkQueue
from shoal.shards.model.refs import Key


def controlled(world, spans, reconcile, **more):
    """A controller of the world's config maps, both with spans."""
    world.factory = InformerFactory(world.connection, rng=random.Random(1), tracer_provider=spans.provider)
    informer = world.factory.informer(CONFIG_MAPS)
    tracing = OpenTelemetryTracing(spans.provider)
    return Controller("demo", reconcile, sources=[informer], tracing=tracing, **more)


def linked(span, calls):
    """What it is linked to, of some spans."""
    by_id = {call.context.span_id: call for call in calls}
    return [by_id[link.context.span_id] for link in span.links]


def test_a_reconcile_is_linked_to_the_calls_that_caused_it():
    async def main(world: World) -> None:
        spans = Spans()
        tracer = spans.provider.get_tracer("mine")

        async def reconcile(key):
            with tracer.start_as_current_span("work"):
                await asyncio.sleep(10)

        world.create("a")
        async with running(controlled(world, spans, reconcile)):
            await asyncio.sleep(1)
            for color in ("red", "green", "blue"):
                world.change("a", color=color)
                await asyncio.sleep(1)
            await asyncio.sleep(30)
        calls, (first, second) = spans.named("shoal.handler"), spans.named("shoal.reconcile")
        assert linked(first, calls) == calls[:1]
        assert linked(second, calls) == calls[1:]
        assert [call.attributes["shoal.event"] for call in calls] == ["add", "update", "update", "update"]
        assert [dict(link.attributes) for link in second.links] == [
            {"shoal.source": "v1/configmaps", "shoal.event": "update"}
        ] * 3
        assert dict(second.attributes) == {
            "shoal.controller": "demo",
            "shoal.key": "default/a",
            "k8s.namespace.name": "default",
            "k8s.object.name": "a",
            "shoal.attempts": 0,
            "shoal.causes": 3,
            "shoal.queue_seconds": pytest.approx(9, abs=0.1),
            "shoal.outcome": "success",
            "shoal.requeue": "no",
        }
        assert second.status.is_unset
        assert second.parent is None
        assert [under(span, above) for span, above in zip(spans.named("work"), (first, second), strict=True)]
        assert under(spans.named("work")[1], second)
        # One handler span an event, and no other span for it besides its observation.
        assert len(spans.named("shoal.event")) == len(calls)

    in_world(main)


def test_only_the_newest_causes_are_kept():
    async def main(world: World) -> None:
        spans = Spans()

        async def reconcile(key):
            await asyncio.sleep(100)

        world.create("a")
        async with running(controlled(world, spans, reconcile)):
            await asyncio.sleep(1)
            for number in range(CAUSES_MAX + 5):
                world.change("a", number=str(number))
                await asyncio.sleep(0.1)
            await asyncio.sleep(300)
        calls, second = spans.named("shoal.handler"), spans.named("shoal.reconcile")[1]
        assert linked(second, calls) == calls[-CAUSES_MAX:]

    in_world(main)


def test_failures_retries_and_requeues_show():
    async def main(world: World) -> None:
        spans = Spans()
        ends = iter(
            [ValueError("no"), ValueError("no"), Result(requeue_after_s=7), None, TerminalError("never")]
        )

        async def reconcile(key):
            end = next(ends)
            if isinstance(end, Exception):
                raise end
            return end

        world.create("a")
        limiter = ExponentialLimiter(first_s=2.0, longest_s=60.0)
        queue = WorkQueue[Key]("demo", limiter=limiter)
        async with running(controlled(world, spans, reconcile, queue=queue)):
            await asyncio.sleep(60)
            world.change("a", color="red")
            await asyncio.sleep(60)
        found = [
            (
                span.attributes["shoal.attempts"],
                span.attributes["shoal.outcome"],
                span.attributes["shoal.requeue"],
                span.attributes.get("shoal.requeue_after_seconds"),
                len(span.links),
            )
            for span in spans.named("shoal.reconcile")
        ]
        assert found == [
            (0, "error", "rate_limited", None, 1),
            (1, "error", "rate_limited", None, 0),
            (2, "requeue_after", "after", 7.0, 0),
            (0, "success", "no", None, 0),
            (0, "terminal", "parked", None, 1),
        ]
        first, *_, last = spans.named("shoal.reconcile")
        assert failures(first) == ["ValueError: no"]
        assert first.status.description == "ValueError: no"
        assert failures(last)[0].endswith("TerminalError: never")
        # Delays are not waiting for a worker.
        assert all(span.attributes["shoal.queue_seconds"] < 0.1 for span in spans.named("shoal.reconcile"))

    in_world(main)


def test_a_reconcile_that_is_given_up_and_one_that_is_cut_off():
    async def main(world: World) -> None:
        spans = Spans()

        async def reconcile(key):
            if key == "default/a":
                raise ValueError("no")
            await asyncio.sleep(1e5)

        for name in ("a", "b"):
            world.create(name)
        controller = controlled(world, spans, reconcile, retries_max=0, timeout_s=20, stop_grace_s=0)
        async with running(controller):
            await asyncio.sleep(25)
        by_key = {}
        for span in spans.named("shoal.reconcile"):
            attributes = span.attributes
            ends = (attributes["shoal.outcome"], attributes["shoal.requeue"])
            by_key.setdefault(attributes["shoal.key"], []).append(ends)
        assert by_key == {"default/a": [("error", "parked")], "default/b": [("timeout", "parked")]}

        spans.take()
        await world.factory.aclose()
        cut_off = controlled(world, spans, reconcile, stop_grace_s=0)
        async with running(cut_off):
            await asyncio.sleep(1)
        (span,) = [
            one for one in spans.named("shoal.reconcile") if one.attributes["shoal.key"] == "default/b"
        ]
        assert span.attributes["shoal.outcome"] == "cancelled"
        assert span.status.is_unset

    in_world(main)


async def test_a_plain_reconcile_has_its_span_in_its_thread():
    spans, informer = Spans(), ToldInformer("things", thing("x/0"))
    tracer, done = spans.provider.get_tracer("mine"), asyncio.Event()
    loop = asyncio.get_running_loop()

    def reconcile(key):
        with tracer.start_as_current_span("work"):
            loop.call_soon_threadsafe(done.set)

    controller = Controller(
        "demo", reconcile, sources=[informer], tracing=OpenTelemetryTracing(spans.provider)
    )
    async with asyncio.timeout(60):
        task = asyncio.create_task(controller.run())
        await done.wait()
        controller.stop()
        await task
    (span,) = spans.named("shoal.reconcile")
    assert under(spans.named("work")[0], span)
    # An informer that is not traced gets a span for what it told, so that there is something to link to.
    assert linked(span, spans.named("shoal.event")) == spans.named("shoal.event")
    assert spans.named("shoal.event")[0].attributes["shoal.source"] == "things"


def test_what_is_not_sampled_is_not_linked_to():
    tracing = OpenTelemetryTracing(Spans(sampler=ALWAYS_OFF).provider)
    assert tracing.cause("demo", "things", "add", Key("x/a")) is None


# -- which provider ------------------------------------------------------------------------------------------


def test_without_a_provider_there_is_no_tracing():
    tracing = find_tracing()
    assert isinstance(tracing, NoTracing)
    assert tracing.cause("demo", "things", "add", Key("x/a")) is None
    with tracing.reconcile("demo", Key("x/a"), 0, (), 0.0) as span:
        span.ended("success")
    with pytest.raises(ValueError, match="no tracer provider is set up: give one, or call opentelemetry"):
        OpenTelemetryTracing()


def test_a_controller_finds_the_provider_of_the_process_when_it_begins(monkeypatch):
    async def main(world: World) -> None:
        spans, seen = Spans(), []

        async def reconcile(key):
            seen.append(trace.get_current_span().get_span_context().is_valid)

        world.create("a")
        informer = world.factory.informer(CONFIG_MAPS)
        controller = Controller("demo", reconcile, sources=[informer])
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", spans.provider)
        async with running(controller):
            await asyncio.sleep(1)
        (call,), (span,) = spans.named("shoal.handler"), spans.named("shoal.reconcile")
        assert linked(span, [call]) == [call]
        assert seen == [True]

    in_world(main)
