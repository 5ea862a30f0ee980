"""Spans around the calls of handlers, against OpenTelemetry's own SDK; and nothing at all without a provider."""

import asyncio
import random
import subprocess
import sys
import textwrap

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from support.informing import CONFIG_MAPS, World, in_world
from support.spans import Spans, failures, under

from shoal.cluster.informers.factory import InformerFactory
from shoal.cluster.informers.registration import Registration
from shoal.cluster.informers.tracing import TracedRegistration, handling, tracer_of


def traced(world, spans):
    """The informer of the world's config maps, with spans."""
    factory = InformerFactory(world.connection, rng=random.Random(1), tracer_provider=spans.provider)
    world.factory = factory
    return factory.informer(CONFIG_MAPS)


def brief(span):
    attributes = span.attributes
    return (attributes["shoal.event"], attributes["shoal.key"], attributes["k8s.object.resource_version"])


def test_every_call_is_a_span_below_the_observation_of_its_event():
    async def main(world: World) -> None:
        spans = Spans()
        created = world.create("a")
        informer = traced(world, spans)
        told = informer.add_handler(
            on_add=lambda *_: None,
            on_update=lambda *_: None,
            on_delete=lambda *_: None,
            name="mirror",
            resync_s=50,
        )
        await told.synced()
        changed = world.change("a", color="red")
        await asyncio.sleep(1)
        uid = informer.lister.get("a", "default").uid
        await asyncio.sleep(52)
        deleted = world.delete("a")
        await asyncio.sleep(1)
        calls, events = spans.named("shoal.handler"), spans.named("shoal.event")
        expected = [
            ("add", "default/a", str(created)),
            ("update", "default/a", str(changed)),
            ("resync", "default/a", str(changed)),
            ("delete", "default/a", str(deleted)),
        ]
        assert [brief(span) for span in calls] == expected
        assert [brief(span) for span in events] == expected
        assert all(under(call, event) for call, event in zip(calls, events, strict=True))
        assert all(event.parent is None for event in events)
        assert len({event.context.trace_id for event in events}) == len(expected)
        assert dict(calls[0].attributes) == {
            "k8s.resource.name": "v1/configmaps",
            "k8s.namespace.name": "default",
            "k8s.object.name": "a",
            "k8s.object.uid": uid,
            "k8s.object.resource_version": str(created),
            "shoal.key": "default/a",
            "shoal.event": "add",
            "shoal.initial": True,
            "shoal.informer": "v1/configmaps",
            "shoal.handler": "mirror",
            "shoal.lag_seconds": 0.0,
        }
        assert calls[1].attributes["shoal.initial"] is False
        assert "shoal.handler" not in events[0].attributes
        assert all(span.status.is_unset for span in calls)
        assert calls[0].instrumentation_scope.name == "shoal"

    in_world(main)


def test_a_slow_handler_shows_as_lag_and_as_a_long_observation():
    async def main(world: World) -> None:
        spans = Spans()
        for name in ("a", "b"):
            world.create(name)

        async def slow(*_):
            await asyncio.sleep(8)

        await traced(world, spans).add_handler(on_add=slow).synced()
        lags = [span.attributes["shoal.lag_seconds"] for span in spans.named("shoal.handler")]
        assert lags == [0, pytest.approx(8)]
        first, second = spans.named("shoal.event")
        assert first.end_time - first.start_time < 1e9
        assert second.end_time - second.start_time == pytest.approx(8e9, rel=1e-6)

    in_world(main)


def test_exceptions_are_recorded_and_counted_as_before():
    async def main(world: World) -> None:
        spans = Spans()
        world.create("a")
        informer = traced(world, spans)

        def plain(*_):
            raise ValueError("no")

        async def waits(*_):
            await asyncio.sleep(1)
            raise KeyError("neither")

        registrations = [informer.add_handler(on_add=plain), informer.add_handler(on_add=waits)]
        for registration in registrations:
            await registration.synced()
        assert [registration.statistics.failed for registration in registrations] == [1, 1]
        calls = spans.named("shoal.handler")
        assert [failures(span) for span in calls] == [["ValueError: no"], ["KeyError: 'neither'"]]
        assert [span.status.description for span in calls] == ["ValueError: no", "KeyError: 'neither'"]
        assert not any(span.status.is_ok or span.status.is_unset for span in calls)
        assert all(span.status.is_unset for span in spans.named("shoal.event"))

    in_world(main)


def test_spans_of_a_handler_are_below_its_call():
    async def main(world: World) -> None:
        spans = Spans()
        tracer = spans.provider.get_tracer("mine")

        def plain(*_):
            assert handling() == trace.get_current_span().get_span_context()
            with tracer.start_as_current_span("plain"):
                pass

        async def waits(*_):
            with tracer.start_as_current_span("before"):
                await asyncio.sleep(1)
            with tracer.start_as_current_span("after"):
                assert handling() is not None

        world.create("a")
        informer = traced(world, spans)
        with tracer.start_as_current_span("where it was added"):
            registrations = [informer.add_handler(on_add=plain), informer.add_handler(on_add=waits)]
        for registration in registrations:
            await registration.synced()
        first, second = spans.named("shoal.handler")
        assert under(spans.named("plain")[0], first)
        assert under(spans.named("before")[0], second)
        assert under(spans.named("after")[0], second)
        assert second.end_time >= spans.named("after")[0].end_time
        assert handling() is None

    in_world(main)


async def test_a_handler_in_a_thread_has_its_span_there():
    spans, world = Spans(), World()
    tracer = spans.provider.get_tracer("mine")

    def plain(*_):
        with tracer.start_as_current_span("in the thread"):
            raise ValueError("no")

    world.create("a")
    informer = traced(world, spans)
    registration = informer.add_handler(on_add=plain, thread=True)
    async with asyncio.timeout(60):
        await registration.synced()
        await world.factory.aclose()
    (call,) = spans.named("shoal.handler")
    assert under(spans.named("in the thread")[0], call)
    assert failures(call) == ["ValueError: no"]
    assert registration.statistics.failed == 1


def test_a_call_that_is_cut_off_ends_its_span():
    async def main(world: World) -> None:
        spans = Spans()

        async def hangs(*_):
            await asyncio.sleep(1e5)

        world.create("a")
        registration = traced(world, spans).add_handler(on_add=hangs)
        await asyncio.sleep(1)
        await registration.remove()
        (call,) = spans.named("shoal.handler")
        assert failures(call)[0].startswith("asyncio.exceptions.CancelledError")

    in_world(main)


def test_what_is_not_sampled_is_told_all_the_same():
    async def main(world: World) -> None:
        spans, told = Spans(sampler=ALWAYS_OFF), []
        world.create("a")
        await traced(world, spans).add_handler(on_add=lambda obj, _: told.append(obj.key)).synced()
        assert told == ["default/a"]
        assert spans.take() == []

    in_world(main)


# -- which provider ------------------------------------------------------------------------------------------


def test_without_a_provider_handlers_are_told_as_ever():
    async def main(world: World) -> None:
        assert type(world.factory.informer(CONFIG_MAPS).add_handler(on_add=print)) is Registration

    assert tracer_of() is None
    in_world(main)


def test_the_provider_of_the_process_counts_from_when_it_is_set_up(monkeypatch):
    async def main(world: World) -> None:
        spans = Spans()
        world.create("a")
        informer = world.factory.informer(CONFIG_MAPS)
        before = informer.add_handler(on_add=lambda *_: None)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", spans.provider)
        after = informer.add_handler(on_add=lambda *_: None, name="after")
        assert [type(one) for one in (before, after)] == [Registration, TracedRegistration]
        await after.synced()
        assert [span.attributes["shoal.handler"] for span in spans.named("shoal.handler")] == ["after"]

    in_world(main)


def test_a_provider_that_does_nothing_is_none(monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    assert tracer_of() is None


def test_something_else_is_no_provider():
    with pytest.raises(
        TypeError, match=r"'yes' is no tracer provider: expected one of opentelemetry\.sdk\.trace"
    ):
        tracer_of("yes")


def test_without_a_provider_nothing_is_imported():
    code = """
    import asyncio, sys
    import shoal

    async def main():
        async with shoal.local(url="http://127.0.0.1:1") as client:
            client.informer("v1/pods").add_handler(on_add=print)
            async def reconcile(key): ...
            controller = shoal.Controller("demo", reconcile, sources=[client.informer("v1/pods")])
            running = asyncio.create_task(controller.run())
            await asyncio.sleep(0.1)
            controller.stop()
            await running

    asyncio.run(main())
    print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (found.returncode, found.stdout) == (0, "[]\n"), found.stderr
