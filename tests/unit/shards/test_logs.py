import io
import json
import logging

import pytest
from opentelemetry import trace
from support.spans import Spans

from shoal.shards.logs import JsonFormatter, KeyValueFormatter, configure_logging


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


# -- as JSON -------------------------------------------------------------------------------------------------


def document(message="lists", **extra):
    record = logging.makeLogRecord(
        {"name": "shoal.x", "levelname": "INFO", "msg": message, "created": 1769860800.1234, **extra}
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_is_an_object():
    assert document(key="shop/web-0", seconds=1.5, hung=True, nobody=None) == {
        "time": "2026-01-31T12:00:00.123Z",
        "level": "info",
        "logger": "shoal.x",
        "message": "lists",
        "hung": True,
        "key": "shop/web-0",
        "nobody": None,
        "seconds": 1.5,
    }


def test_keys_of_its_own_stay_its_own():
    found = document(level="mine", time=3)
    assert (found["level"], found["level_"], found["time_"]) == ("info", "mine", 3)


@pytest.mark.parametrize("value", [object(), "\ud800", {1j: 2}, float("nan"), 2**80, b"x", {"a"}])
def test_whatever_is_said_gives_a_line(value):
    assert "odd" in document(odd=value)


def test_an_exception_is_one_line_too():
    with pytest.raises(ValueError, match="no") as caught:
        int("no")
    found = document(exc_info=(caught.type, caught.value, caught.tb))
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ValueError: invalid literal for int() with base 10: 'no'")


def test_a_line_below_a_span_names_it():
    tracer = Spans().provider.get_tracer("mine")
    with tracer.start_as_current_span("above"):
        found, context = document(), trace.get_current_span().get_span_context()
    assert found["trace_id"] == f"{context.trace_id:032x}"
    assert found["span_id"] == f"{context.span_id:016x}"
    assert "trace_id" not in document()


def test_the_format_is_chosen_with_the_level(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    configure_logging("info", format="json")
    logging.getLogger("shoal.cluster.client").info("asking again", extra={"pause_s": 2})
    assert json.loads(said.getvalue())["pause_s"] == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"level": "loud"}, "the level of logging is 'loud': expected one of debug, info, warning, error"),
        ({"level": "info", "format": "xml"}, "the format of logging is 'xml': expected one of text, json"),
    ],
)
def test_what_cannot_be_configured(wrong, message):
    before = logging.getLogger("shoal").handlers[:]
    with pytest.raises(ValueError, match=message):
        configure_logging(**wrong)
    assert logging.getLogger("shoal").handlers == before
