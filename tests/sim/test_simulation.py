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


def test_every_kind_of_fault_happens_in_a_few_seeds():
    injected = set()
    for number in range(12):
        injected |= Simulation(number).run().app.faults.injected.keys()
    assert injected == set(FAULT_KINDS)
