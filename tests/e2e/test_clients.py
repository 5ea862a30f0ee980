"""Clients that nobody here wrote, unmodified, against the gateway: only the server's address is another.

Debian's kubectl, the Python client (informer, watch, dynamic client) and the JavaScript client's informer hold, after
churn with faults, the objects that the API server holds. Outside continuous integration a client that is not installed
is skipped; with ``CI=true`` its absence is a failure.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import environment, until
from urllib3 import PoolManager

pytestmark = pytest.mark.e2e

CLIENTS = Path(__file__).with_name("clients")
NODE_MODULES = CLIENTS / "node_modules" / "@kubernetes" / "client-node"
CHURN_S, RATE = 8.0, 120
FAULT_EVERY_S = 0.7
FAULTS = (
    {"kind": "cut", "immediate": True, "count": 3},
    {"kind": "garbage", "resource": "pods"},
    {"kind": "status-503", "count": 3, "verb": "watch"},
    {"kind": "truncate", "count": 2},
    {"kind": "line-410", "resource": "pods"},
    {"kind": "drop", "count": 3},
    {"kind": "compact"},
    {"kind": "restart"},
    {"kind": "status-500", "verb": "list", "count": 2},
)
KINDS = ("pods", "configmaps", "nodes")
AGES = re.compile(r"\b(\d+[dhms])+\b *(ago)?")


def missing(what):
    """A client that is not there: a failure where everything has to be there."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{what}; continuous integration installs it in .ci/run")
    pytest.skip(what)


@pytest.fixture(scope="session")
def ask(source):
    """JSON from the API server."""
    with PoolManager() as pool:

        def request(method, path, document=None):
            answer = pool.request(method, source.url + path, json=document)
            assert answer.status < 300, answer.data
            return answer.json()

        yield request


def versions(listed):
    return {
        "/".join(filter(None, (item["metadata"].get("namespace"), item["metadata"]["name"]))): item[
            "metadata"
        ]["resourceVersion"]
        for item in listed["items"]
    }


class Informer:
    """A client in a process of its own, which says what it holds when asked."""

    def __init__(self, command, folder):
        self._errors = (folder / f"{Path(command[1]).name}-{time.monotonic_ns()}.err").open("w+")
        self._process = subprocess.Popen(
            [str(part) for part in command],
            cwd=CLIENTS,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def end(self):
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def says(self):
        """The objects held, what was noticed, and errors."""
        if self._process.poll() is None:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            if line := self._process.stdout.readline():
                return json.loads(line)
        self._errors.seek(0)
        raise AssertionError(f"the client has ended: {self._errors.read()[-2000:]}")


def python(way, server, *arguments):
    return (sys.executable, CLIENTS / "informer.py", way, server, *arguments)


def javascript(server, *arguments):
    return (shutil.which("node"), CLIENTS / "informer.mjs", server, *arguments)


def without_javascript():
    """Why the JavaScript client cannot run; empty if it can."""
    if shutil.which("node") is None:
        return "node is not installed"
    return "" if NODE_MODULES.is_dir() else "@kubernetes/client-node is not installed: make clients"


WAYS = {
    "Python informer": lambda *arguments: python("informer", *arguments),
    "Python watch": lambda *arguments: python("watch", *arguments),
    "Python dynamic client": lambda *arguments: python("dynamic", *arguments),
    "JavaScript informer": javascript,
}
LACKING = {way: (lambda: "") for way in WAYS} | {"JavaScript informer": without_javascript}


SELECTIONS = (*((kind,) for kind in KINDS), ("pods", "app"))
"""What every client holds: a kind, and a label selector."""


@pytest.fixture(scope="module")
def informers(server, folder):
    """Clients of all kinds that are installed, by way and selection, all of which have listed."""
    started = {}
    try:
        for way, command in WAYS.items():
            if LACKING[way]():
                continue
            # One way after the other: sixteen programs that start at once keep each other from it.
            for chosen in SELECTIONS:
                started[way, chosen] = Informer(command(server, *chosen), folder)
            for chosen in SELECTIONS:
                until(f"{way} lists {chosen}", lambda at=(way, chosen): started[at].says()["objects"])
        yield started
    finally:
        for informer in started.values():
            informer.end()


@pytest.fixture(scope="module")
def churned(informers, ask):
    """Objects have changed, while the API server misbehaved, and are at rest."""
    ask("PUT", "/simulator/churn", {"rate": RATE})
    try:
        end, number = time.monotonic() + CHURN_S, 0
        while time.monotonic() < end:
            time.sleep(FAULT_EVERY_S)
            ask("POST", "/simulator/faults", FAULTS[number % len(FAULTS)])
            number += 1
    finally:
        ask("PUT", "/simulator/churn", {"rate": 0})
        ask("DELETE", "/simulator/faults")
    injected = ask("GET", "/simulator/faults")["injected"]
    assert len(injected) > 4, injected


@pytest.mark.parametrize("chosen", SELECTIONS, ids=" ".join)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("churned")
def test_an_informer_holds_what_the_api_server_holds_after_churn_with_faults(way, chosen, informers, ask):
    if lacking := LACKING[way]():
        missing(lacking)
    informer = informers[way, chosen]
    kind, *selector = chosen
    query = f"?labelSelector={selector[0]}" if selector else ""
    wanted = versions(ask("GET", f"/api/v1/{kind}{query}"))
    assert wanted
    until(
        lambda: differences(informer, wanted, kind),
        lambda: informer.says()["objects"] == wanted,
    )
    said = informer.says()
    assert said["noticed"]["back"] == 0, said["noticed"]
    if kind == "pods":
        assert sum(said["noticed"].values()) > len(said["objects"]), "nothing was watched"


def differences(informer, wanted, kind):
    said = informer.says()
    held = said.pop("objects")
    differ = {
        key: (held.get(key), wanted.get(key))
        for key in held.keys() | wanted
        if held.get(key) != wanted.get(key)
    }
    return f"{kind} equal the API server's: {len(differ)} differ, {dict(list(differ.items())[:5])}; {said}"


# -- kubectl ---------------------------------------------------------------------------------------------------


@pytest.fixture
def at_source(shoal, source, folder):
    """kubectl against the API server itself."""
    if shutil.which("kubectl") is None:
        missing("kubectl is not installed")

    def run(*arguments):
        cache = folder / "source-cache"
        done = shoal(
            "--kubeconfig", source.kubeconfig, "--cache-dir", cache, *arguments, program=("kubectl",)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def at_gateway(at_source, kubectl):
    """kubectl against the gateway."""

    def run(*arguments):
        done = kubectl(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


FORMS = (
    (),
    ("-o", "wide"),
    ("-o", "name"),
    ("-o", "yaml"),
    ("-o", "json"),
    ("-o", "jsonpath={.items[*].metadata.uid}"),
    ("-o", "custom-columns=NAME:.metadata.name,UID:.metadata.uid"),
    ("-o", "go-template={{range .items}}{{.metadata.name}} {{end}}"),
    ("--show-labels",),
    ("-L", "app"),
    ("--no-headers",),
    ("-l", "app,app!=web"),
    ("--field-selector", "metadata.namespace!=kube-system"),
    ("--sort-by", ".metadata.uid"),
)
CHUNKS = {"pods": "71", "deployments": "7", "configmaps": "7"}
"""Objects a page: some twenty pages of each kind. kubectl asks ten times at once and then five times a second."""


def ageless(text):
    """Lines without ages, which go on, and without the width of their columns."""
    return [AGES.sub("", line).split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("kind", "form"),
    [(kind, form) for kind, chunk in CHUNKS.items() for form in (*FORMS, ("--chunk-size", chunk))],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_kubectl_prints_what_it_prints_of_the_api_server(at_gateway, at_source, kind, form):
    ours, theirs = (one("get", kind, "-A", *form) for one in (at_gateway, at_source))
    assert ageless(ours) == ageless(theirs)
    assert ours


@pytest.mark.parametrize("what", ["pods", "pods.spec.containers", "deployments.spec", "nodes --recursive"])
def test_kubectl_explains_what_the_api_server_documents(at_gateway, at_source, what):
    explained = at_gateway("explain", *what.split())
    assert explained == at_source("explain", *what.split())
    assert "DESCRIPTION" in explained


def test_kubectl_finds_the_resources_that_are_followed(at_gateway, at_source):
    ours, theirs = (set(one("api-resources", "--no-headers").splitlines()) for one in (at_gateway, at_source))
    squeezed = {" ".join(line.split()) for line in ours}
    assert squeezed <= {" ".join(line.split()) for line in theirs}
    assert len(ours) > 30
    assert "v1" in at_gateway("api-versions").splitlines()


class Watching:
    """``kubectl get --watch`` and what it has printed."""

    def __init__(self, arguments, folder):
        self._out = (folder / f"kubectl-{time.monotonic_ns()}").open("w+b")
        cache = folder / "kube-cache"
        self._process = subprocess.Popen(
            ["kubectl", "--cache-dir", str(cache), *arguments],
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._out.close()

    def objects(self):
        """The state its events add up to; checks that none goes back."""
        text = Path(self._out.name).read_text()
        assert self._process.poll() is None, f"kubectl has ended: {text[-2000:]}"
        decoder, at, held, newest = json.JSONDecoder(), 0, {}, {}
        while (start := text.find("{", at)) >= 0:
            try:
                event, at = decoder.raw_decode(text, start)
            except ValueError:
                break  # being written
            found = event["object"]
            # What it has listed in several pages it prints as one list.
            for metadata in [one["metadata"] for one in found.get("items", [found])]:
                key, version = f"{metadata['namespace']}/{metadata['name']}", metadata["resourceVersion"]
                assert int(version) >= newest.get(key, 0), f"{key} went back to {version}"
                newest[key] = int(version)
                if event["type"] == "DELETED":
                    held.pop(key, None)
                else:
                    held[key] = version
        return held


@pytest.mark.timeout(180)
def test_kubectl_watches_through_churn(at_gateway, server, folder, ask):
    events = ("get", "pods", "-A", "--watch", "--output-watch-events", "-o", "json", "--server", server)
    with Watching(events, folder) as watching:
        until("pods are listed", watching.objects)
        # kubectl does not come back after a watch has ended, so the API server's past must not be lost.
        ask("PUT", "/simulator/churn", {"rate": RATE})
        try:
            before = len(watching.objects())
            until("pods change", lambda: len(Path(watching._out.name).read_text()) > 200_000 and before)
        finally:
            ask("PUT", "/simulator/churn", {"rate": 0})
        wanted = versions(ask("GET", "/api/v1/pods"))
        until("pods equal the API server's", lambda: watching.objects() == wanted)


def test_kubectl_waits_for_a_condition(at_gateway, at_source):
    # `wait` lists and watches with a field selector on the name.
    assert "condition met" in at_gateway(
        "wait", "--for=jsonpath={.status.phase}=Active", "ns/default", "--timeout=20s"
    )
