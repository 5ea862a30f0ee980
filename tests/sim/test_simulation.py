"""Whole systems in virtual time: an API server with faults, partitions, writers, readers, decided by a seed.

A failure prints its seed and the last steps of every reflector; the seed alone repeats it.
"""

import logging

import pytest
from support.simulation import FAULT_KINDS, Simulation


@pytest.fixture(autouse=True)
def _quiet():
    # Reflectors warn about every fault; a failure prints their stories instead.
    logger = logging.getLogger("shoal")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def test_every_partition_equals_the_server_at_rest_and_no_reader_saw_anything_else(seed):
    simulation = Simulation(seed).run()
    assert simulation.reads > 0


def trace(seed):
    simulation = Simulation(seed).run()
    return [
        (part.id, str(part.reflector.story), part.sightings, part.reflector.status)
        for part in simulation.parts
    ]


@pytest.mark.parametrize("number", [3, 17, 29])
def test_a_seed_repeats_a_run(number):
    assert trace(number) == trace(number)


@pytest.mark.parametrize("number", range(5))
def test_without_faults_nothing_goes_wrong(number):
    simulation = Simulation(number, faults=()).run()
    for part in simulation.parts:
        counted = set(part.reflector.status.errors)
        allowed = {"selector_ignored"} | ({"http_404"} if simulation.definition_deleted else set())
        # A server that refuses streaming lists or forgets fast is not a fault; nothing else may be counted.
        assert counted <= allowed, (part.id, part.reflector.status)


def test_every_kind_of_fault_happens_within_a_hundred_seeds():
    # What is counted are effects: a fault that was armed or chosen and did nothing is not among them. Some kinds
    # rarely meet a request they can do something to.
    injected, number = set(), 0
    while injected != set(FAULT_KINDS) and number < 100:
        injected |= Simulation(number).run().app.faults.injected.keys()
        number += 1
    assert injected == set(FAULT_KINDS)


NOTICED = {
    "drop": "connection",
    "slow": "silent",
    "status-410": "expired",
    "status-429": "overloaded",
    "status-500": "http_500",
    "status-503": "overloaded",
    "cut": "connection",
    "truncate": "connection",
    "garbage": "garbage",
    "line-410": "expired",
    "restart": "connection",
}
"""What followers call a fault. Without faults they call nothing by these names (see above)."""


@pytest.mark.parametrize("kind", NOTICED)
def test_followers_notice_the_faults_that_are_counted(kind):
    runs = [Simulation(number, faults=(kind,)).run() for number in range(2)]
    noticed = sum(part.reflector.status.errors.get(NOTICED[kind], 0) for run in runs for part in run.parts)
    counted = sum(run.app.faults.injected[kind] for run in runs)
    assert noticed > 0
    # One restart breaks many streams; of the others, each hits one request.
    assert noticed <= counted or kind == "restart"


def test_followers_notice_ignored_selectors():
    number = 10  # a seed whose server selects by hash range
    assert sum(part.store.dropped for part in Simulation(number, faults=()).run().parts) == 0
    assert (
        sum(part.store.dropped for part in Simulation(number, faults=("ignore-selectors",)).run().parts) > 0
    )
