"""A shard that is killed again and again and resumes from snapshots: no reader ever sees it go back."""

import logging

import pytest
from support.resume_simulation import ResumeSimulation


@pytest.fixture(autouse=True)
def _quiet():
    logger = logging.getLogger("shoal")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def test_readers_of_a_mortal_shard_see_what_they_would_have_seen(resume_seed, tmp_path):
    run = ResumeSimulation(resume_seed, tmp_path).run()
    assert run.reads > 0


def test_partitions_resume_and_fewer_lists_are_made_for_it(tmp_path):
    runs = []
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        runs.append(ResumeSimulation(number, folder, faults=()).run())
    resumed = sum(run.outcomes["resumed"] for run in runs)
    assert resumed > 20
    started = sum(len(run.assignments) * (run.kills + 1) for run in runs)
    assert sum(run.lists.total() for run in runs) < started - resumed / 2
    for outcome in ("garbage", "none"):
        assert sum(run.outcomes[outcome] for run in runs) > 0, outcome
