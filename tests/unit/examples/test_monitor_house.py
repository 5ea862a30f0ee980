"""Rules for the example: it is what a user of Shoal could write, short, documented, and pure where it says so."""

import ast
from pathlib import Path

import gateway_monitor
import pytest

import shoal

SOURCES = sorted(Path(gateway_monitor.__file__).parent.glob("*.py"))
PURE = [
    "checks",
    "correlation",
    "diff",
    "documents",
    "facts",
    "findings",
    "grouping",
    "lastgood",
    "messages",
    "relaxation",
    "secrets",
    "told",
    "undoing",
    "view",
    "world",
]
IMPURE = {"asyncio", "time", "random", "logging", "socket", "os", "pathlib", "aiohttp", "shoal", "ray"}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_module_is_short_and_documented(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert text.count("\n") <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 70, node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_only_public_names_of_shoal_are_used(path):
    tree = ast.parse(path.read_text())
    assert [name for name in imported(tree) if name.startswith("shoal.")] == []
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "shoal"
    }
    assert used <= set(shoal.__all__)


@pytest.mark.parametrize("name", PURE)
def test_what_decides_does_no_io_and_knows_no_time(name):
    [path] = [path for path in SOURCES if path.stem == name]
    assert {one.partition(".")[0] for one in imported(ast.parse(path.read_text()))}.isdisjoint(IMPURE)
