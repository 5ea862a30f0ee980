"""Rules of CONTRIBUTING.md that a program can check, over the sources themselves."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest

from shoal.cluster.settings import ShoalSettings

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("shards", "coordinator", "cluster")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
LINES_MAX = 430
FUNCTION_LINES_MAX = 70
BANNED_MODULES = re.compile(r"(manager|helper|utils?|common|misc|data|info)s?$")


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_module_is_short_documented_and_well_named(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "every module begins with its job"
    assert text.count("\n") <= LINES_MAX
    assert not BANNED_MODULES.search(path.stem)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


def settings_fields(struct, prefix=""):
    for field in msgspec.structs.fields(struct):
        value = getattr(struct(), field.name)
        if isinstance(value, msgspec.Struct):
            yield from settings_fields(type(value), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


@pytest.mark.parametrize("path", sorted(settings_fields(ShoalSettings)))
def test_every_setting_is_read_somewhere(path):
    name = path.rpartition(".")[2]
    read = re.compile(rf"\.{name}\b")
    readers = [
        source for source in SOURCES if source.name != "settings.py" and read.search(source.read_text())
    ]
    assert readers, f"nothing reads the setting {path}"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "settings.py"], ids=relative)
def test_every_setting_says_what_it_means(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_the_list_of_packages_is_complete():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"shoal"} | {
        ".".join(("shoal", *path.parent.relative_to(ROOT).parts))
        for path in SOURCES
        if path.name == "__init__.py"
    }
    assert listed == found


def test_rooms_import_each_other_relatively():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = (name or "").split(".")[0]
                assert top not in {"shoal", *ROOMS}, f"{relative(path)} imports {name} absolutely"


def test_no_file_names_a_registry_or_a_folder_of_somebodys_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    hosts = "|".join(("pypi" + r"\.org", "python" + r"hosted\.org", "registry" + r"\.npmjs"))
    forbidden = re.compile(hosts + r"|/home/\w|/root/\w")
    for name in tracked.stdout.split():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".yaml", ".json", "") and path.is_file():
            found = forbidden.search(path.read_text(errors="replace"))
            assert found is None, f"{name}: {found.group()}"
