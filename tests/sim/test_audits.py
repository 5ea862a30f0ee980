"""Audits under trouble, in virtual time: where nothing was lost nothing is found, and what was lost is repaired."""

import logging

import pytest
from support.audit_simulation import AuditSimulation


@pytest.fixture(autouse=True)
def _quiet():
    logger = logging.getLogger("shoal")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def test_nothing_is_found_under_churn_and_faults(audit_seed):
    run = AuditSimulation(audit_seed).run()
    assert run.outcomes.total() > 0
    assert run.divergence == {}
    assert not run.outcomes.keys() & {"divergent", "unconfirmed", "behind", "unordered"}


def test_what_was_lost_is_found_and_repaired(audit_seed):
    # Without audits these runs do not come to rest: nothing else ever looks at what is held.
    run = AuditSimulation(audit_seed, faults=(), losses=True).run()
    assert run.lossy.lost == 0 or run.outcomes["divergent"] + run.outcomes["equal"] > 0


def test_audits_come_to_an_end_under_trouble_and_losses_are_found_in_some_runs():
    quiet = [AuditSimulation(number) for number in range(8)]
    assert sum(run.run().outcomes["equal"] for run in quiet) > 50
    lossy = [AuditSimulation(number, faults=(), losses=True) for number in range(8)]
    assert sum(run.run().divergence.total() for run in lossy) > 8
