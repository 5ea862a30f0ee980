"""What the blocking twin has of the asynchronous client, with which types, and what is said of one that is dropped."""

import gc
import subprocess
import sys
import textwrap
import warnings
from typing import get_type_hints

import pytest
from support.client_faces import PODS, SPACE, cluster

import shoal
from shoal import errors
from shoal.cluster.client import blocking
from shoal.cluster.client.connect import Client
from shoal.cluster.client.lister import Lister
from shoal.cluster.client.resources import Served
from shoal.cluster.client.writing import Writer
from shoal.cluster.informers.factory import InformerFactory
from shoal.cluster.informers.informer import Informer
from shoal.cluster.informers.lister import LocalLister
from shoal.cluster.informers.registration import Registration
from shoal.cluster.informers.statistics import HandlerStatistics, InformerState, InformerStatus

PATIENCE_S = 20.0
INSIDE = {
    Client: {"aclose", "connection", "where"},
    Served: {"find", "forget"},
    InformerFactory: {"aclose", "closed", "closes_in_s", "informers", "release"},
    Informer: {"aclose", "failure", "narrowing", "registrations", "resync_s", "transform", "wait"},
    Registration: {"calling", "close", "fail", "listed", "observed_at", "offer", "pending"},
}
"""What a twin has not: what modules tell each other, what has another name, and connections, which belong to a loop."""


@pytest.fixture(scope="module")
def shared():
    with cluster() as found:
        yield found


@pytest.fixture
def client(shared):
    with shoal.sync.local(url=shared.api) as found:
        yield found


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("kind", "twin"),
    [
        (Client, blocking.BlockingClient),
        (Lister, blocking.BlockingLister),
        (Writer, blocking.BlockingWriter),
        (Served, blocking.BlockingServed),
        (InformerFactory, blocking.BlockingInformers),
        (Informer, blocking.BlockingInformer),
        (Registration, blocking.BlockingRegistration),
        (LocalLister, blocking.BlockingLocalLister),
    ],
)
def test_a_twin_has_what_the_asynchronous_one_has(kind, twin):
    made_with_it = {"discovery", "informer", "informers", "lister"} if kind in (Client, Informer) else set()
    assert public(kind) - public(twin) - INSIDE.get(kind, set()) - made_with_it == set()


@pytest.mark.parametrize(
    ("twin", "name", "kind"),
    [
        (blocking.BlockingInformer, "status", InformerStatus),
        (blocking.BlockingInformer, "state", InformerState),
        (blocking.BlockingRegistration, "statistics", HandlerStatistics),
    ],
)
def test_what_is_read_has_its_type(twin, name, kind):
    assert get_type_hints(getattr(twin, name).fget)["return"] == kind


def test_informers_and_registrations_say_how_they_are(client):
    pods = client.informer("v1/pods", namespace=SPACE)
    told = pods.add_handler(on_add=lambda pod, is_initial: None)
    client.informers.synced(PATIENCE_S)
    told.synced(PATIENCE_S)
    assert (pods.state, pods.namespace, str(pods.resource)) == ("synced", SPACE, "v1/pods")
    assert pods.resource_type.kind == "Pod"
    assert told.has_synced
    assert told.statistics.adds == len(PODS)
    client.informer("example.com/v1/nothings", wait=True)
    with pytest.raises(
        errors.TimedOut, match=r"example.com/v1/nothings is waiting: not synced within 0\.05 s"
    ):
        client.informers.synced(0.05)


def test_an_informer_is_given_back_once_and_by_whoever_it_is_of(client):
    first, second = (client.informer("v1/pods", namespace=SPACE) for _ in range(2))
    told = second.add_handler(on_add=lambda pod, is_initial: None)
    first.release()
    with pytest.raises(ValueError, match="released more often"):
        first.release()
    with pytest.raises(errors.ShoalError, match="was released: ask the factory for a new one"):
        first.synced(PATIENCE_S)
    told.synced(PATIENCE_S)
    assert (first.state, second.state, second.status.users) == ("closed", "synced", 1)


def test_what_is_to_be_called_at_the_end_may_use_the_client(shared):
    called = []
    with shoal.sync.local(url=shared.api) as client:
        pods = client.lister("v1/pods", SPACE)
        client.at_close(lambda: called.append("first"))
        client.at_close(lambda: called.append(pods.count()))
    client.close()
    assert called == [len(PODS), "first"]
    client = shoal.sync.local(url=shared.api)
    client.at_close(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        client.close()
    with pytest.raises(errors.ConnectionFailed, match="was closed"):
        client.lister("v1/pods").count()


def test_a_client_that_is_dropped_open_is_a_warning(shared):
    """Its thread and its loop went on, and nobody was told."""
    client = shoal.sync.local(url=shared.api)
    pods = client.lister("v1/pods", SPACE)
    portal = client._portal
    with pytest.warns(ResourceWarning, match=f"unclosed <blocking <client of {shared.api}>>"):
        del client
    assert pods.count() == len(PODS)  # what it gave may be in use
    portal.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        closed = shoal.sync.local(url=shared.api)
        closed.close()
        del closed
        with pytest.raises(errors.BadRequest):
            shoal.sync.connect("nonsense")
        gc.collect()


def test_at_the_interpreters_end_it_is_closed_as_if_by_hand(shared):
    script = """
        import sys
        import shoal

        client = shoal.sync.local(url=sys.argv[1])
        pods = client.lister("v1/pods", "shop")
        client.at_close(lambda: print(pods.count()))
    """
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script), shared.api]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{len(PODS)}\n", "")
