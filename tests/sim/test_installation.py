"""Whole installations in virtual time: shards and coordinators die, resources come and go, readers go on reading."""

import logging

import pytest
from support.installation_simulation import InstallationSimulation


@pytest.fixture(autouse=True)
def _quiet():
    logger = logging.getLogger("shoal")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def test_an_installation_equals_the_server_at_rest_and_never_answers_less_or_older(
    installation_seed,
):
    InstallationSimulation(installation_seed).run()


def test_the_trouble_happens():
    runs = [InstallationSimulation(number).run() for number in range(3)]
    assert sum(run.deaths for run in runs) > 3
    assert sum(run.restarts for run in runs) > 0
    assert all(run.answers > 10 for run in runs)
    assert sum(run.orders for run in runs) > 10
    assert sum(run.handed_over["done"] for run in runs) > 10
