"""Informers and their handlers under faults, in virtual time, decided by a seed.

Handlers are the observers: each judges what it is told, and in the end what it has rebuilt is compared with the server.
"""

import logging

import pytest
from support.informer_gateway_simulation import InformerGatewaySimulation
from support.informer_simulation import InformerSimulation
from support.simulation import FAULT_KINDS


@pytest.fixture(autouse=True)
def _quiet():
    # Informers warn about every fault, and handlers raise on purpose; a failure prints their stories instead.
    logger = logging.getLogger("shoal")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


def test_every_handler_is_told_what_happened_in_order_and_ends_in_the_state_there_is(informer_seed):
    InformerSimulation(informer_seed).run()


def test_handlers_behind_gateways_miss_nothing_either(installation_seed):
    InformerGatewaySimulation(installation_seed).run()


def test_events_that_come_late_through_a_gateway_are_told():
    # A seed whose partitions overtake each other; without late events it proves nothing.
    assert InformerGatewaySimulation(5).run().late > 0


def trace(seed):
    simulation = InformerSimulation(seed).run()
    return [
        (observer.name, observer.calls, list(observer.story), observer.state)
        for watched in simulation.watched
        for observer, _ in watched.observers
    ]


@pytest.mark.parametrize("number", [2, 5])
def test_a_seed_repeats_a_run(number):
    assert trace(number) == trace(number)


@pytest.mark.parametrize("number", range(3))
def test_without_faults_nothing_is_missed(number):
    simulation = InformerSimulation(number, faults=()).run()
    for status in simulation.statuses:
        counted = set(status.errors)
        # A resource that vanishes is answered 404, and a server that is restored from a backup breaks connections.
        assert counted <= {"http_404", "connection", "went_back", "expired"}, status


def test_the_seeds_show_what_is_to_be_shown():
    """Kinds of faults, deletions that were missed, merged changes, handlers that raise, resources that come back."""
    injected, shown, number = set(), set(), 0
    while (injected != set(FAULT_KINDS) or len(shown) < 6) and number < 60:
        simulation = InformerSimulation(number).run()
        injected |= simulation.app.faults.injected.keys()
        for status in simulation.statuses:
            shown |= {"went back"} if status.went_back else set()
            shown |= {"dropped"} if status.dropped else set()
            shown |= {"merged"} if any(handler.coalesced for handler in status.handlers) else set()
            shown |= {"raised"} if any(handler.failed for handler in status.handlers) else set()
        for observer in (observer for watched in simulation.watched for observer, _ in watched.observers):
            shown |= {"missed"} if observer.missed else set()
            shown |= {"initial"} if observer.initial else set()
        number += 1
    assert injected == set(FAULT_KINDS)
    assert shown == {"went back", "dropped", "missed", "initial", "merged", "raised"}
