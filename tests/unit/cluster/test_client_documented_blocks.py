"""Python in docstrings of the client that is shown without a prompt: run, whichever module comes to have some."""

import ast
import asyncio
import re
from pathlib import Path
from types import SimpleNamespace

import prometheus_client
import pytest
from support.client_faces import cluster
from support.commands import free_port

import shoal
from shoal.cluster.informers.factory import InformerFactory
from shoal.cluster.simulator.write_kubeconfig import write_kubeconfig

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("client", "controller", "informers", "observability", "workqueue")
BLOCK = re.compile(r"(?m)(?:^    .*\n?|^\n(?=\n*    ))+")
PORT = "9090"


def indented(text):
    """The indented blocks of a docstring, without their indentation."""
    return [re.sub(r"(?m)^    ", "", block).strip("\n") + "\n" for block in BLOCK.findall(text)]


def shown():
    """Blocks that wait for something, which nothing but Python does, by where they stand."""
    found = {}
    for path in sorted(path for folder in FOLDERS for path in (ROOT / "cluster" / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                blocks = [block for block in indented(ast.get_docstring(node) or "") if "await " in block]
                for number, block in enumerate(blocks):
                    # Those with a prompt are doctests.
                    if not block.startswith(">>>"):
                        place = f"{path.parent.name}/{path.name}:{getattr(node, 'name', '')}:{number}"
                        found[place] = block
    return found


BLOCKS = shown()


@pytest.fixture(scope="module")
def shared():
    with cluster() as found:
        yield found


@pytest.fixture
async def names(shared, tmp_path, monkeypatch):
    """What the blocks suppose there to be."""
    write_kubeconfig(tmp_path / "kubeconfig", shared.api)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    scrapers = []

    def start_http_server(port):
        scrapers.append(prometheus_client.start_http_server(port, "127.0.0.1"))

    async with shoal.local(url=shared.api) as other:

        async def reconcile(_):
            mirror.stop()

        mirror = shoal.Controller("mirror", reconcile, sources=[other.informer("v1/pods")])
        yield {
            "shoal": shoal,
            "asyncio": asyncio,
            "url": shared.gateway,
            "connection": other.connection,
            "mirror": mirror,
            "prometheus_client": SimpleNamespace(start_http_server=start_http_server),
            "InformerFactory": InformerFactory,
        }
        for server, thread in scrapers:
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            thread.join()


def test_there_are_some():
    assert any(place.startswith("informers/factory.py") for place in BLOCKS)


@pytest.mark.parametrize("place", BLOCKS)
async def test_it_runs(place, names):
    block = BLOCKS[place].replace(PORT, str(free_port())).replace("0.0.0.0", "127.0.0.1")
    code = compile(block, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with asyncio.timeout(60):
        await eval(code, names)
