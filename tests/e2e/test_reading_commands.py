"""``shoal get``, ``api-resources`` and ``status`` against a running Shoal."""

import contextlib
import json
import re
import signal
import subprocess

import psutil
import pytest
import yaml
from support.commands import SHOAL, Command, environment, until

pytestmark = pytest.mark.e2e


def test_get_prints_kubectls_columns_without_blanks_at_the_ends(shoal, server, kubectl):
    ours = shoal("get", "pods", "-A", server=server)
    assert ours.returncode == 0, ours.stderr
    theirs = kubectl("get", "pods", "-A").stdout
    ages = re.compile(r"\b(\d+[dhms])+\b *")
    assert [ages.sub("", line).rstrip() for line in ours.stdout.splitlines()] == [
        ages.sub("", line).rstrip() for line in theirs.splitlines()
    ]
    assert all(line == line.rstrip() for line in ours.stdout.splitlines())


@pytest.mark.parametrize(
    "typed", ["deploy", "deployment", "deployments", "Deployment", "deployments.apps", "deployments.v1.apps"]
)
def test_get_takes_a_type_as_people_write_it(shoal, server, typed):
    found = shoal("get", typed, "-A", "-o", "name", server=server)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("deployment.apps/")


def test_get_one_object_in_every_form(shoal, server):
    name = shoal("get", "ns", "-o", "name", server=server).stdout.split()[0].removeprefix("namespace/")
    assert shoal("get", f"ns/{name}", "-o", "name", server=server).stdout == f"namespace/{name}\n"
    assert shoal("get", "ns", name, "--no-headers", server=server).stdout.split()[:2] == [name, "Active"]
    as_json = json.loads(shoal("get", "ns", name, "-o", "json", server=server).stdout)
    assert (as_json["kind"], as_json["metadata"]["name"]) == ("Namespace", name)
    assert yaml.safe_load(shoal("get", "ns", name, "-o", "yaml", server=server).stdout) == as_json


def test_get_lists_have_kubectls_form(shoal, server, kubectl):
    ours = json.loads(shoal("get", "pods", "-A", "-o", "json", server=server).stdout)
    assert ours == json.loads(kubectl("get", "pods", "-A", "-o", "json").stdout)
    assert len(ours["items"]) > 500, "more than one page"


def test_get_wide_adds_columns(shoal, server):
    plain = shoal("get", "nodes", server=server).stdout.splitlines()[0]
    wide = shoal("get", "nodes", "-o", "wide", server=server).stdout.splitlines()[0]
    assert wide.startswith(plain.rstrip())
    assert "KERNEL-VERSION" in wide


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ("get", "nosuch"),
            1,
            r'error: the server doesn\'t have a resource type "nosuch"; `shoal api-resources` lists',
        ),
        (("get", "pods,services"), 1, r"error: 'pods,services' names several types; ask for one at a time"),
        (("get", "pods", "nosuch"), 1, r'error: from server \(NotFound\): pods "nosuch" not found'),
        (("get", "pods/"), 1, r"error: expected TYPE, TYPE NAME or TYPE/NAME"),
        (
            ("get", "pods", "-l", "a in ("),
            1,
            r"error: from server \(BadRequest\): unable to parse requirement",
        ),
        (
            ("get", "pods", "--field-selector", "foo=bar"),
            1,
            r"error: from server \(BadRequest\): field label not supported: foo",
        ),
        (
            ("get", "pods", "web", "-A"),
            1,
            r"error: a NAME goes neither with selectors nor with --all-namespaces",
        ),
        (("get", "pods", "-n", "a", "-A"), 1, r"error: --namespace and --all-namespaces exclude each other"),
        (("get", "pods", "-l", "no=body"), 0, r"No resources found in default namespace\."),
        (("get", "pods", "-A", "-l", "no=body"), 0, r"No resources found\."),
        (("get",), 2, r"Missing argument 'TYPE'"),
        (("get", "pods", "-o", "xml"), 2, r"Invalid value for '-o'"),
        (
            ("get", "pods", "--server", "http://127.0.0.1:9"),
            1,
            r"error: no Shoal answers at http://127.0.0.1:9 .*`shoal up`",
        ),
        (("status", "--server", "http://127.0.0.1:9"), 1, r"error: no Shoal answers at http://127.0.0.1:9 "),
        (
            ("get", "pods", "--server", "nonsense"),
            1,
            r"error: server .nonsense.: expected a URL such as http://127.0.0.1:7480",
        ),
    ],
)
def test_what_cannot_be_read_is_a_sentence_on_stderr(shoal, server, arguments, code, sentence):
    outcome = shoal(*arguments, server=server)
    assert outcome.returncode == code
    assert re.search(sentence, outcome.stderr), outcome.stderr
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr


def test_a_reader_who_goes_away_is_no_error(folder, server):
    command = [*SHOAL, "get", "pods", "-A", "-o", "json"]
    env = environment(folder, SHOAL_SERVER=server)
    with subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(1) == b"{"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_api_resources_in_every_form(shoal, server):
    table = shoal("api-resources", server=server).stdout.splitlines()
    assert table[0].split() == ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    assert any(line.split() == ["pods", "po", "v1", "true", "Pod"] for line in table)
    names = shoal("api-resources", "-o", "name", server=server).stdout.split()
    assert len(names) == len(table) - 1
    assert "deployments.apps" in names
    namespaced = shoal("api-resources", "-o", "name", "--namespaced", server=server).stdout.split()
    others = shoal("api-resources", "-o", "name", "--not-namespaced", server=server).stdout.split()
    assert sorted(namespaced + others) == sorted(names)
    assert shoal("api-resources", "-o", "name", "--api-group", "apps", server=server).stdout.split() == [
        name for name in names if name.endswith(".apps")
    ]
    wide = shoal("api-resources", "-o", "wide", "--no-headers", server=server).stdout.splitlines()
    assert any(
        line.split()[:5] == ["pods", "po", "v1", "true", "Pod"] and "get,list" in line for line in wide
    )
    kinds = {kind["kind"] for kind in json.loads(shoal("api-resources", "-o", "json", server=server).stdout)}
    assert {"Pod", "Deployment"} <= kinds


def test_status_shows_shards_partitions_and_what_is_left_out(shoal, server):
    brief = shoal("status", server=server).stdout
    assert brief.startswith("ready, epoch ")
    assert re.search(r"shard-0 +│ healthy", brief)
    assert re.search(r"v1/pods +│ shard-\d +│ synced", brief)
    assert "v1/secrets" not in brief
    everything = shoal("status", "--all", server=server).stdout
    assert re.search(r"v1/secrets +│", everything), "not followed, and why"
    assert "v1/resourcequotas" in everything, "empty partitions"
    document = json.loads(shoal("status", "-o", "json", server=server).stdout)
    assert document["ready"]
    assert len(document["report"]["shards"]) == 2


@pytest.mark.parametrize("form", ["table", "json"])
def test_status_goes_on_until_interrupted(folder, server, form):
    env = environment(folder, SHOAL_SERVER=server)
    with Command("status", "--watch", "-o", form, folder=folder, env=env) as command:
        twice = r"(?s)\nready,.*\nready," if form == "table" else r"(?s)^\{.*\}\n\{.*\}\n"
        command.says(twice.replace(r"\nready", "ready", 1) if form == "table" else twice)
        command.interrupts()
        assert command.ends() == 0
        assert command.stderr == ""


def test_status_names_a_shard_that_does_not_answer(shoal, server):
    document = json.loads(shoal("status", "-o", "json", server=server).stdout)
    shard = document["report"]["shards"][0]
    process = psutil.Process(shard["statistics"]["pid"])
    process.send_signal(signal.SIGSTOP)
    try:
        said = [""]

        def told(what):
            # Once others have what it held all is well again, so whatever was said since counts.
            said.append(shoal("status", server=server).stdout)
            return any(re.search(what, one) for one in said)

        until("the shard's problem", lambda: told(rf"{shard['shard']} .*did not answer"))
        until("a shard that is not healthy", lambda: told("not ready"))
        some = shoal("get", "pods", "-A", server=server)
        others = shoal("get", "ns", server=server)
        assert {some.returncode, others.returncode} <= {0, 1}
    finally:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)
    until("well again", lambda: shoal("status", server=server).stdout.startswith("ready"))
    assert process.is_running(), "a shard that is slow is not replaced"
