"""Log lines of informers, queues, controllers and clients: constant messages, and the object where one is concerned."""

import ast
import asyncio
import logging
from pathlib import Path

import pytest
from support.informing import CONFIG_MAPS, World, in_world
from support.reconciles import Log, failing, running

from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.errors import TerminalError

ROOT = Path(__file__).resolve().parents[3]
ROOMS = (
    "cluster/informers",
    "cluster/workqueue",
    "cluster/controller",
    "cluster/client",
    "cluster/observability",
    "shards/watch",
    "shards/api",
)
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def lines():
    """Every call of a logger, by where it is."""
    for room in ROOMS:
        for path in sorted((ROOT / room).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                called = node.func if isinstance(node, ast.Call) else None
                if (
                    isinstance(called, ast.Attribute)
                    and called.attr in LEVELS
                    and ast.unparse(called.value) == "log"
                ):
                    yield pytest.param(node, id=f"{path.relative_to(ROOT)}:{node.lineno}")


def constant(node):
    if isinstance(node, ast.IfExp):
        return constant(node.body) and constant(node.orelse)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and "%" not in node.value


@pytest.mark.parametrize("call", list(lines()))
def test_a_message_is_constant_and_says_the_rest_in_keys(call):
    *before, message = call.args
    assert len(before) == (call.func.attr == "log"), "values belong into extra"
    assert constant(message), f"{ast.unparse(message)} is not constant"
    extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    assert extra is not None, "what is it about?"
    if isinstance(extra, ast.Dict):
        keys = {key.value for key in extra.keys if isinstance(key, ast.Constant)}
        assert not keys & OWN, "logging has that name already"


def test_a_handler_that_fails_or_hangs_is_logged_with_the_object(caplog):
    async def main(world: World) -> None:
        async def hangs(*_):
            await asyncio.sleep(100)

        def raises(*_):
            raise ValueError("no")

        world.create("a")
        informer = world.factory.informer(CONFIG_MAPS)
        for handler in (hangs, raises):
            await informer.add_handler(on_add=handler, name=handler.__name__).synced()

    in_world(main)
    found = {
        record.getMessage(): (record.handler, record.informer, record.key)
        for record in caplog.records
        if record.name == "shoal.cluster.informers"
    }
    assert found == {
        "handler hangs": ("hangs", "v1/configmaps", "default/a"),
        "handler has returned": ("hangs", "v1/configmaps", "default/a"),
        "handler raised": ("raises", "v1/configmaps", "default/a"),
    }


def test_so_is_a_reconcile(caplog):
    async def main(world: World) -> None:
        world.create("a")
        informer = world.factory.informer(CONFIG_MAPS)
        retried = Controller("retried", Log(failing(ValueError("no"))), sources=[informer], retries_max=1)
        given_up = Controller("given up", Log(failing(TerminalError("never"))), sources=[informer])
        hangs = Controller("hangs", Log(seconds=100), sources=[informer])
        async with running(retried), running(given_up), running(hangs):
            await asyncio.sleep(200)

    with caplog.at_level(logging.INFO, "shoal.cluster.controller"):
        in_world(main)
    found = {
        (record.getMessage(), record.controller, getattr(record, "key", ""))
        for record in caplog.records
        if record.name == "shoal.cluster.controller" and record.getMessage() != "controller runs"
    }
    assert found == {
        ("a reconcile failed and will be tried again", "retried", "default/a"),
        ("an item is parked until it changes", "retried", "default/a"),
        ("an item is parked until it changes", "given up", "default/a"),
        ("a reconcile hangs", "hangs", "default/a"),
        ("a hung reconcile has ended", "hangs", "default/a"),
    }
