"""The blocking twin: threads, handlers, iterators, and its end. What it reads is tested with the other clients."""

import asyncio
import functools
import gc
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.client_faces import COLORS, PODS, SPACE, cluster, create, delete

import shoal
from shoal import errors
from shoal.cluster.client import portal as portals
from shoal.cluster.client.lister import Lister
from shoal.cluster.client.portal import BlockingIterator, Portal
from shoal.cluster.informers.discovered import Appeared
from shoal.cluster.informers.errors import UnknownResource

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def shared():
    with cluster() as found:
        yield found


@pytest.fixture
def client(shared):
    with shoal.sync.local(url=shared.api) as found:
        yield found


@pytest.fixture
def portal():
    found = Portal("a portal")
    yield found
    found.close()


# -- threads -------------------------------------------------------------------------------------------------


def test_many_threads_ask_at_the_same_time(client):
    pods = client.lister("v1/pods", SPACE)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: pods.get(sorted(PODS)[number % 3]).name, range(60)))
    assert found == sorted(PODS) * 20


def test_it_refuses_to_stop_an_event_loop(client):
    async def main():
        with pytest.raises(RuntimeError, match=r"an event loop runs in this thread.*use shoal\.connect"):
            client.lister("v1/pods").list()
        with pytest.raises(RuntimeError, match="an event loop runs in this thread"):
            shoal.sync.connect("http://127.0.0.1:1")
        return await asyncio.to_thread(client.lister("v1/pods").count)

    assert asyncio.run(main()) == len(PODS)


def test_it_refuses_to_wait_for_its_own_loop(client):
    async def called(_):
        client.lister("v1/pods").list()

    with pytest.raises(RuntimeError, match="an event loop runs in this thread"):
        client.run(called)

    async def closed(_):
        client.close()

    with pytest.raises(RuntimeError, match="cannot be closed from its own event loop"):
        client.run(closed)
    assert client.lister("v1/pods").count() == len(PODS)


def test_it_does_not_survive_a_fork(client, monkeypatch):
    with monkeypatch.context() as other_process:
        other_process.setattr(portals.os, "getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="threads do not survive a fork"):
            client.lister("v1/pods").list()
        client.close()
    assert client.lister("v1/pods").count() == len(PODS)


@pytest.fixture
def interruptible():
    """Who is started in the background of a shell inherits that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_call_is_cancelled_on_its_loop(portal):
    """Whenever it is interrupted: the first moments used to be left out, in one of twenty calls."""
    main = threading.main_thread()

    async def sleeps(cancelled):
        asyncio.get_running_loop().call_soon(signal.pthread_kill, main.ident, signal.SIGINT)
        try:
            while True:
                await asyncio.sleep(10)
                # Python drops an exception that comes while it collects garbage; a person would press again.
                signal.pthread_kill(main.ident, signal.SIGINT)
        finally:
            cancelled.set()

    for _ in range(200):
        cancelled = threading.Event()
        with pytest.raises(KeyboardInterrupt):
            portal.run(functools.partial(sleeps, cancelled))
        assert cancelled.wait(PATIENCE_S)


def test_a_loop_that_cannot_be_made_is_an_error_and_no_standstill(monkeypatch):
    def runner():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(portals.asyncio, "Runner", runner)
    with pytest.raises(OSError, match="Too many open files"):
        Portal("a portal")


def test_what_coroutines_raise_is_raised(portal):
    async def fails():
        raise errors.NotFound("nothing")

    with pytest.raises(errors.NotFound, match="nothing"):
        portal.run(fails)
    with pytest.raises(ZeroDivisionError):
        portal.call(lambda: 1 // 0)


# -- the end -------------------------------------------------------------------------------------------------


def test_closing_ends_what_others_wait_for(shared):
    client = shoal.sync.local(url=shared.api)
    informer = client.informer("example.com/v1/nothings", wait=True)
    waiting = threading.Event()

    def wait():
        waiting.set()
        informer.synced()

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(wait)
        assert waiting.wait(PATIENCE_S)
        client.close()
        with pytest.raises(errors.ShoalError, match="closed|ended"):
            call.result(PATIENCE_S)


def test_after_closing_everything_says_so(shared):
    client = shoal.sync.connect(shared.gateway)
    pods, pages = client.lister("v1/pods"), client.lister("v1/configmaps").pages(limit=1)
    next(pages)
    client.close()
    client.close()
    for call in (pods.list, pods.count, lambda: client.informer("v1/pods"), pods.pages):
        with pytest.raises(errors.ConnectionFailed, match="the blocking client of Shoal was closed"):
            call()
    pages.close()
    assert list(pages) == []


def test_a_client_that_cannot_be_made_leaves_no_thread(shared):
    before = threading.active_count()
    with pytest.raises(errors.BadRequest):
        shoal.sync.connect("nonsense")
    assert threading.active_count() == before


SCRIPT = """
    import sys, threading
    import shoal

    client = shoal.sync.local(url=sys.argv[1])
    pods = client.informer("v1/pods")
    blocked = threading.Event()

    def on_add(pod, is_initial):
        print(pod.key, flush=True)
        {hang}

    pods.add_handler(on_add=on_add).synced(timeout_s=20) if not {hangs} else pods.add_handler(on_add=on_add)
    pods.synced(timeout_s=20)
    left = client.lister("v1/configmaps").pages(limit=1)
    next(left)
    {hangs} and blocked.wait(20)
"""


@pytest.mark.parametrize("hangs", [False, True], ids=["handlers at rest", "a handler that hangs"])
def test_a_program_that_does_not_close_its_client_ends_cleanly(shared, hangs):
    script = textwrap.dedent(SCRIPT).format(
        hangs=hangs, hang="blocked.set() or threading.Event().wait()" if hangs else "pass"
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script, shared.api]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr, "ResourceWarning" in ended.stderr) == (
        0,
        False,
        False,
    ), ended.stderr
    assert ended.stdout.splitlines()[:1] == ["shop/db-0"]


# -- iterators -----------------------------------------------------------------------------------------------


class Source:
    """An asynchronous generator that is watched."""

    def __init__(self, count, fails=False):
        self.made = 0
        self.ended = threading.Event()
        self._count = count
        self._fails = fails

    async def __call__(self):
        try:
            for number in range(self._count):
                self.made += 1
                yield number
            if self._fails:
                raise errors.Expired("too late")
        finally:
            self.ended.set()


def settle(portal):
    """Lets everything happen on the loop that can."""

    async def turns():
        for _ in range(100):
            await asyncio.sleep(0)

    portal.run(turns)


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_iterators_read_ahead_and_no_further(portal, ahead):
    source = Source(20)
    elements = BlockingIterator(portal, source, ahead)
    settle(portal)
    assert source.made == min(ahead, 20)
    assert next(elements) == 0
    settle(portal)
    # What was fetched in one go is taken one by one, while as much again is read.
    assert source.made <= 2 * ahead
    assert list(elements) == list(range(1, 20))
    assert source.ended.is_set()
    assert list(elements) == []


def test_an_error_comes_after_what_came_before_it(portal):
    source = Source(3, fails=True)
    elements = BlockingIterator(portal, source, 10)
    found = []
    with pytest.raises(errors.Expired, match="too late"):
        found.extend(elements)
    assert list(elements) == []
    got = iter(BlockingIterator(portal, Source(3, fails=True), 10))
    assert [next(got), next(got), next(got)] == [0, 1, 2]
    with pytest.raises(errors.Expired):
        next(got)


def test_iterators_that_are_closed_or_dropped_end_their_source(portal):
    closed, left, dropped = Source(9), Source(9), Source(9)
    elements = BlockingIterator(portal, closed, 1)
    next(elements)
    elements.close()
    assert closed.ended.is_set()
    assert list(elements) == []
    with BlockingIterator(portal, left, 1) as elements:
        next(elements)
    assert left.ended.is_set()
    elements = BlockingIterator(portal, dropped, 1)
    next(elements)
    del elements
    gc.collect()
    assert dropped.ended.wait(PATIENCE_S)


def test_a_source_that_is_never_taken_from_is_ended_with_its_portal():
    portal, source = Portal("a portal"), Source(9)
    elements = BlockingIterator(portal, source, 1)
    settle(portal)
    portal.close()
    assert source.ended.is_set()
    with pytest.raises(errors.ConnectionFailed, match="was closed"):
        next(elements)


# -- informers -----------------------------------------------------------------------------------------------


class Told:
    """A handler that notes what it is told, and where."""

    def __init__(self):
        self.calls = []
        self.threads = set()
        self._changed = threading.Condition()

    def _note(self, *call):
        with self._changed:
            self.threads.add(threading.current_thread())
            self.calls.append(call)
            self._changed.notify_all()

    def on_add(self, obj, is_initial):
        self._note("add", obj.name, is_initial)

    def on_update(self, old, new):
        self._note("update", old.name, new.labels)

    def on_delete(self, obj, last_state_known):
        self._note("delete", obj.name, last_state_known)

    def wait_for(self, *call):
        with self._changed:
            assert self._changed.wait_for(lambda: call in self.calls, PATIENCE_S), self.calls


@pytest.mark.parametrize("face", ["api", "gateway"])
def test_handlers_run_in_a_thread_of_their_own(shared, face):
    with shoal.sync.local(url=getattr(shared, face)) as client:
        told = Told()
        maps = client.informer("v1/configmaps", namespace=SPACE)
        told_first = maps.add_handler(told)
        told_first.synced(PATIENCE_S)
        assert told.calls == [("add", f"c{number}", True) for number in range(len(COLORS))]
        client.run(create, "v1/configmaps", "new")
        told.wait_for("add", "new", False)
        client.run(delete, "v1/configmaps", "new")
        told.wait_for("delete", "new", True)
        (thread,) = told.threads
        assert thread is not threading.main_thread()
        assert told_first.statistics.adds == len(COLORS) + 1
        told_first.remove()
        maps.release()


def test_a_handler_may_block_and_ask_the_client(client):
    pods = client.lister("v1/pods", SPACE)
    goes_on, slow, quick = threading.Event(), [], Told()

    def on_add(pod, is_initial):
        slow.append(pods.get(pod.name).spec.nodeName)
        assert goes_on.wait(PATIENCE_S)

    informer = client.informer("v1/pods", namespace=SPACE)
    blocked = informer.add_handler(on_add=on_add)
    informer.add_handler(quick).synced(PATIENCE_S)
    assert len(quick.calls) == len(PODS)
    assert len(slow) <= 1
    with pytest.raises(errors.TimedOut, match=r"handler .*on_add: not synced within 0\.01 s"):
        blocked.synced(0.01)
    goes_on.set()
    blocked.synced(PATIENCE_S)
    assert slow == ["node-1", "node-0", "node-1"]


def test_what_an_informer_holds_is_read_from_any_thread(client):
    maps = client.informer("v1/configmaps", namespace=SPACE)
    with pytest.raises(errors.NotReady, match="not synced yet"):
        client.informer("example.com/v1/nothings", wait=True).lister.list()
    maps.synced(PATIENCE_S)
    assert maps.has_synced
    assert maps.status.state == "synced"
    assert maps.resolved() == maps.resource_type
    maps.add_index("color", lambda each: [each.data.color])
    held = maps.lister
    assert held.index_values("color") == ["green", "red"]
    assert [each.name for each in held.by_index("color", "green")] == ["c0", "c4"]
    assert len(held) == held.count() == len(COLORS)
    assert "shop/c1" in held
    assert "shop/c7" not in held
    assert [each.data.n for each in held] == [str(number) for number in range(len(COLORS))]
    assert held.get("c1").key == held.get_by_key("shop/c1").key == "shop/c1"
    with ThreadPoolExecutor(4) as pool:
        reads = list(pool.map(lambda _: [each.data.color for each in held.list()], range(20)))
    assert reads == [list(COLORS)] * 20


def test_informers_that_cannot_sync_say_why(client):
    with pytest.raises(UnknownResource, match="did you mean v1/pods"):
        client.informer("v1/podz").synced(PATIENCE_S)
    with pytest.raises(
        errors.TimedOut, match=r"informer example.com/v1/nothings is waiting.*not synced within 0\.05 s"
    ):
        client.informer("example.com/v1/nothings", wait=True).synced(0.05)
    with pytest.raises(errors.BadRequest, match="expected"):
        client.informer("v1/pods", label_selector="a in b")


def test_handlers_that_are_coroutines_belong_to_the_other_client(client):
    async def on_add(pod, is_initial):
        raise AssertionError("never")

    with pytest.raises(TypeError, match="a coroutine function runs on the event loop"):
        client.informer("v1/pods").add_handler(on_add=on_add)


def test_resources_are_discovered(client):
    with client.informers.discovered("apps") as events:
        assert isinstance(next(events), Appeared)
    assert client.informers.resolve("deploy").kind == "Deployment"
    client.informers.start()


def test_methods_are_documented_as_the_asynchronous_ones(client):
    lister = client.lister("v1/pods")
    assert lister.list.__doc__ == Lister.list.__doc__
    assert lister.list.__name__ == "list"
    assert type(lister).count.__doc__ == Lister.count.__doc__
    assert "lister of v1/pods" in repr(lister)
