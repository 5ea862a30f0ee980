"""Resources that are divided anew under their watchers, in virtual time: what is rebuilt equals the API server's
objects, never goes back, and where nothing fails nobody is refused or told to list again. The seed alone repeats a
run.
"""

import logging

import pytest
from support.watch_simulation_recuts import CalmSimulation, RecutSimulation


@pytest.fixture(autouse=True)
def _quiet():
    logger = logging.getLogger("shoal")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def test_watchers_see_no_seam_while_resources_are_divided_anew(watcher_seed):
    RecutSimulation(watcher_seed).run()


@pytest.mark.parametrize("number", range(6))
def test_a_recut_refuses_nobody_and_has_nobody_list_again(number):
    run = CalmSimulation(number).run()
    assert run.cutter.recuts > 2
    assert not run.cutter.failed
    assert run.answered > 50
    assert run.joined < run.answered / 10
    assert not run.counts["again"], "somebody was refused"
    assert not run.counts["forgotten"], "somebody was told to list again"
    assert not run.counts["broken"], "somebody's stream broke"


def test_the_recuts_happen():
    runs = [RecutSimulation(number).run() for number in range(3)]
    assert sum(run.cutter.recuts for run in runs) > 3
    assert sum(run.deaths for run in runs) > 2
