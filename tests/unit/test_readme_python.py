"""What README's section "Informers for Python" shows, run as it stands: every block, one after the other.

Blocks share one set of names, as they would at the prompt of ``python -m asyncio``; those without an ``await`` run in a
thread, as in a program without an event loop. Addresses are those of servers in this process. The controller is a
program of its own: here it has to be the one in `examples`, whose runs are in tests/e2e/test_controller.py.
"""

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest
from support.client_faces import PODS, SPACE, cluster
from support.commands import free_port

import shoal
from shoal.cluster.simulator.write_kubeconfig import write_kubeconfig

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TITLE = "Informers for Python"
GATEWAY, HEALTH = "http://127.0.0.1:7480", "127.0.0.1:9090"
COMMANDS = ("kubectl ", ".venv/bin/", "make ")
PATIENCE_S = 30.0


def indented_blocks(text):
    """The indented blocks of a text, in order, without their indentation."""
    found = re.findall(r"(?m)(?:^    .*\n|^\n(?=\n*    ))+", text)
    return [re.sub(r"(?m)^    ", "", block).strip("\n") + "\n" for block in found]


def fenced_blocks(text):
    return re.findall(r"(?ms)^```python\n(.*?)^```", text)


def split_blocks():
    """README's Python, and its commands."""
    section = README.read_text().split(f"\n## {TITLE}\n", 1)[1].split("\n## ", 1)[0]
    assert not fenced_blocks(section), "README's blocks are indented"
    blocks = indented_blocks(section)
    commands = [block for block in blocks if block.startswith(COMMANDS)]
    return [block for block in blocks if block not in commands], commands


def controllers(blocks):
    return [block for block in blocks if "shoal.Controller(" in block]


@pytest.fixture
def servers(tmp_path, monkeypatch):
    with cluster() as found:
        write_kubeconfig(tmp_path / "kubeconfig", found.api)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield found


async def run(block, names):
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(block, str(README), "exec", flags=flags)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, names)
    elif "shoal.sync" in block:
        await asyncio.to_thread(exec, code, {})
    else:
        exec(code, names)


async def until(check):
    async with asyncio.timeout(PATIENCE_S):
        while not check():
            await asyncio.sleep(0.01)


async def test_every_block_runs(servers, capsys):
    blocks, _ = split_blocks()
    programs = controllers(blocks)
    examples = [block for block in blocks if block not in programs]
    assert len(examples) >= 7
    health = f"127.0.0.1:{free_port()}"
    names = {}
    said = []
    for block in examples:
        await run(block.replace(GATEWAY, servers.gateway).replace(HEALTH, health), names)
        said.append(capsys.readouterr().out)
    try:
        assert names["read"].data == {"bread": "3"}
        assert {pod.spec.nodeName for pod in names["there"]} == {"node-1"}
        assert names["there"].shards
        web = sorted(name for name, app in PODS.items() if app == "web")
        assert [pod.name for pod in names["web"].lister.list()] == web
        told = "".join(said)
        assert all(f"there is {SPACE}/{name}" in told for name in web)
        assert "working on shop/web" in told
        assert "True synced 2" in told
        assert said[-1] == f"{len(PODS)}\n{web}\n"
        await until(lambda: any(resource.name == "deployments" for resource in names["followed"]))
    finally:
        names["following"].cancel()
        await names["client"].aclose()
        await names["server"].aclose()


def test_the_controller_is_the_one_in_examples():
    blocks, commands = split_blocks()
    assert controllers(blocks) == [(ROOT / "examples" / "controller.py").read_text()]
    assert len(controllers(blocks)[0].splitlines()) < 50
    # Those are run by tests/e2e/test_readme.py.
    assert [command.splitlines()[:2] for command in commands] == [
        ["kubectl apply -f examples/pages.yaml", f".venv/bin/python examples/controller.py {GATEWAY} &"]
    ]


def test_no_other_documentation_has_python_that_nobody_runs():
    for path in sorted(
        [*(ROOT / "examples").rglob("*.md"), ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
    ):
        text = path.read_text()
        blocks = [*indented_blocks(text), *fenced_blocks(text)]
        unrun = [block for block in blocks if "import shoal" in block or "await " in block]
        assert not unrun, f"{path.relative_to(ROOT)}: {unrun}"


def test_names_that_readme_mentions_are_there():
    section = README.read_text().split(f"\n## {TITLE}\n", 1)[1].split("\n## ", 1)[0]
    mentioned = set(re.findall(r"\bshoal\.([A-Za-z_]+)\b", section)) - {"example"}
    assert {"connect", "local", "sync", "Controller", "WorkQueue"} <= mentioned
    assert mentioned <= set(shoal.__all__), mentioned - set(shoal.__all__)
