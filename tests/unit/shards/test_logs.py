import io
import logging

import pytest

from shoal.shards.logs import KeyValueFormatter, configure_logging


@pytest.fixture(autouse=True)
def as_before():
    logger = logging.getLogger("shoal")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def line(message="lists", **extra):
    record = logging.makeLogRecord({"name": "shoal.x", "levelname": "INFO", "msg": message, **extra})
    return KeyValueFormatter().format(record).partition(" ")[2]


def test_a_line_has_its_message_and_then_keys_in_order():
    assert line(shard="shard-0", epoch=3) == "INFO shoal.x lists epoch=3 shard=shard-0"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("", '""'),
        ("a b", '"a b"'),
        ('say "no"', r'"say \"no\""'),
        ("two\nlines", r'"two\nlines"'),
        ("a=b", '"a=b"'),
    ],
)
def test_a_value_that_would_break_the_line_is_quoted(value, written):
    assert line(error=value) == f"INFO shoal.x lists error={written}"


def test_the_last_level_counts_and_nothing_is_said_twice(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    configure_logging("debug")
    configure_logging("info")
    log = logging.getLogger("shoal.coordinator")
    log.debug("too much")
    log.info("just right", extra={"epoch": 1})
    assert said.getvalue().count("\n") == 1
    assert said.getvalue().endswith("INFO shoal.coordinator just right epoch=1\n")
