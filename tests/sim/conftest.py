"""Options of the simulation: which seeds to run.

They exist when this folder is named on the command line (``pytest tests/sim --seeds 1000``); otherwise a few
seeds run.
"""

import pytest

SEEDS = 32
INSTALLATION_RATIO = 5
"""A whole installation follows some 60 resources and takes longer: one of its seeds runs for so many of the others."""
WATCHERS_RATIO = 2
"""The same for an installation of few resources and its watchers."""
RESUME_RATIO = 2
"""The same for a shard that is killed and resumes from snapshots."""
AUDITS_RATIO = 2
"""The same for partitions that are audited all the time."""
MOVES_RATIO = 2
"""The same for partitions that are moved, split and merged between shards at random."""
INFORMERS_RATIO = 2
"""The same for informers and their handlers."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=SEEDS, help=f"how many seeds to run ({SEEDS})")
    group.addoption("--first-seed", type=int, default=0, help="the first of them (0)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first, count = metafunc.config.getoption("--first-seed", 0), metafunc.config.getoption("--seeds", SEEDS)
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(first, first + count))
    if "installation_seed" in metafunc.fixturenames:
        seeds = range(first, first + max(1, count // INSTALLATION_RATIO))
        metafunc.parametrize("installation_seed", seeds)
    if "resume_seed" in metafunc.fixturenames:
        metafunc.parametrize("resume_seed", range(first, first + max(1, count // RESUME_RATIO)))
    if "audit_seed" in metafunc.fixturenames:
        metafunc.parametrize("audit_seed", range(first, first + max(1, count // AUDITS_RATIO)))
    if "move_seed" in metafunc.fixturenames:
        metafunc.parametrize("move_seed", range(first, first + max(1, count // MOVES_RATIO)))
    if "informer_seed" in metafunc.fixturenames:
        metafunc.parametrize("informer_seed", range(first, first + max(1, count // INFORMERS_RATIO)))
    if "watcher_seed" in metafunc.fixturenames:
        metafunc.parametrize("watcher_seed", range(first, first + max(1, count // WATCHERS_RATIO)))
