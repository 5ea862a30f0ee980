"""Options of the simulation: which seeds to run.

They exist when this folder is named on the command line (``pytest tests/sim --seeds 1000``); otherwise a few
seeds run.
"""

import pytest

SEEDS = 40


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=SEEDS, help=f"how many seeds to run ({SEEDS})")
    group.addoption("--first-seed", type=int, default=0, help="the first of them (0)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--first-seed", 0)
        metafunc.parametrize("seed", range(first, first + metafunc.config.getoption("--seeds", SEEDS)))
