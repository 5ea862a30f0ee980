"""The parts of the command line that need no installation."""

import asyncio
import os
import signal

import pytest
from click.testing import CliRunner

from shoal.cluster.cli import running
from shoal.cluster.cli.follow import _Sentences, interruptible
from shoal.cluster.cli.main import _sentences, root
from shoal.cluster.cli.render import columns_text, number, seconds, size, titled_table
from shoal.cluster.cli.server import Server, resolve
from shoal.cluster.cli.up import _settings
from shoal.shards.model.errors import BadRequest, NotFound, SettingsError, ShoalError
from shoal.shards.model.resources import Resource, ResourceType


@pytest.mark.parametrize("command", ["demo", "apiserver", "up", "down", "status", "get", "api-resources"])
def test_every_command_says_what_it_does_in_a_line_and_explains_every_option(command):
    shown = CliRunner().invoke(root, ["--help"], terminal_width=80)
    line = next(line for line in shown.output.splitlines() if line.split()[:1] == [command])
    assert line.endswith(".")
    assert "..." not in line
    for parameter in root.commands[command].params:
        assert parameter.param_type_name == "argument" or parameter.help, f"{command} {parameter.name}"


# -- errors ---------------------------------------------------------------------------------------------------


def test_errors_of_a_task_group_are_sentences_each_once():
    group = ExceptionGroup("g", [ShoalError("a"), ExceptionGroup("h", [ShoalError("b"), ShoalError("a")])])
    assert _sentences(group) == ["a", "b"]


def test_a_bug_among_errors_stays_a_bug():
    assert _sentences(ExceptionGroup("g", [ShoalError("a"), KeyError("b")])) is None


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://x", "http://", "http://x:", "http://x:port", "http://x:99999"]
)
def test_a_server_that_is_no_url_is_refused(url):
    with pytest.raises(BadRequest, match="expected a URL such as http://127.0.0.1:7480"):
        Server(url)


# -- settings -------------------------------------------------------------------------------------------------

FLAGS = {
    "kubeconfig": None,
    "kubeconfig_typed": False,
    "context": None,
    "pod": False,
    "ray_address": None,
    "shards": None,
    "config": None,
    "listen": None,
}


@pytest.fixture
def config(tmp_path):
    def write(text):
        (tmp_path / "shoal.yaml").write_text(text)
        return str(tmp_path / "shoal.yaml")

    return write


def test_flags_override_the_file(config):
    file = config("shards: 3\nsource: {kubeconfig: a, context: b}\ngateway: {listen: '127.0.0.1:1'}\n")
    flags = {
        "kubeconfig": "c",
        "kubeconfig_typed": True,
        "shards": 5,
        "listen": "127.0.0.1:2",
        "ray_address": "auto",
    }
    settings = _settings(**{**FLAGS, "config": file, **flags})
    assert (settings.source.kubeconfig, settings.source.context) == ("c", "b")
    assert (settings.shards, settings.gateway.listen, settings.ray.address) == (5, "127.0.0.1:2", "auto")


def test_the_file_goes_before_the_environments_kubeconfig(config):
    from_environment = {**FLAGS, "kubeconfig": "environment"}
    assert _settings(**from_environment).source.kubeconfig == "environment"
    named = _settings(**{**from_environment, "config": config("source: {kubeconfig: file}")})
    assert named.source.kubeconfig == "file"
    pod = _settings(**{**from_environment, "config": config("source: {in_cluster: true}")})
    assert pod.source.in_cluster
    assert pod.source.kubeconfig is None


def test_a_kubeconfig_that_is_typed_ends_in_cluster_and_the_other_way_round(config):
    typed = _settings(
        **{
            **FLAGS,
            "kubeconfig": "k",
            "kubeconfig_typed": True,
            "config": config("source: {in_cluster: true}"),
        }
    )
    assert (typed.source.in_cluster, typed.source.kubeconfig) == (False, "k")
    pod = _settings(**{**FLAGS, "pod": True, "config": config("source: {kubeconfig: a, context: b}")})
    assert (pod.source.in_cluster, pod.source.kubeconfig, pod.source.context) == (True, None, None)
    with pytest.raises(SettingsError, match="--in-cluster goes neither with"):
        _settings(**{**FLAGS, "pod": True, "context": "x"})


# -- notes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "shoal"


def test_a_process_is_noted_while_it_runs(notes):
    with running.noted("http://127.0.0.1:7480"):
        assert [known.url for known in running.running()] == ["http://127.0.0.1:7480"]
        assert [known.pid for known in running.running(7480)] == [os.getpid()]
        assert running.running(7481) == []
    assert running.running() == []


@pytest.mark.parametrize("content", ["", "{}", '{"pid": 1, "started": 1.0, "url": "http://x:5"}'])
def test_a_note_of_no_process_is_removed(notes, content):
    notes.mkdir()
    (notes / "5.json").write_text(content)
    assert running.running() == []
    assert list(notes.iterdir()) == []


def test_a_folder_that_cannot_be_made_says_so(notes):
    notes.write_text("a file")
    with pytest.raises(ShoalError, match=r"set XDG_STATE_HOME to a folder that can be written"):
        running.running()
    with running.noted("http://127.0.0.1:7480"):
        """Following goes on without a note."""


# -- resolving ------------------------------------------------------------------------------------------------


def kind(group, version, name, kind, *short):
    return ResourceType(
        resource=Resource(group, version, name),
        kind=kind,
        namespaced=True,
        singular=kind.lower(),
        short_names=short,
    )


KNOWN = [kind("", "v1", "events", "Event", "ev"), kind("events.k8s.io", "v1", "events", "Event", "ev")]


@pytest.mark.parametrize("typed", ["events", "Events", "event", "ev"])
def test_of_several_matches_the_first_of_discovery_counts(typed):
    assert resolve(typed, KNOWN) is KNOWN[0]


@pytest.mark.parametrize("typed", ["events.events.k8s.io", "event.events.k8s.io", "events.v1.events.k8s.io"])
def test_a_group_tells_them_apart(typed):
    assert resolve(typed, KNOWN) is KNOWN[1]


def test_what_there_is_not_is_not_found():
    with pytest.raises(NotFound, match='have a resource type "pods"'):
        resolve("pods", KNOWN)


# -- rendering ------------------------------------------------------------------------------------------------


def test_columns_are_aligned_without_blanks_at_the_ends():
    text = columns_text(["NAME", "AGE"], [["web-0", "3d"], ["db", ""]])
    assert text == "NAME    AGE\nweb-0   3d\ndb\n"
    assert columns_text(None, []) == ""
    assert columns_text(None, [["船", "x"], ["ab", "y"]]) == "船   x\nab   y\n"


def test_a_column_for_problems_is_shown_only_if_there_is_one():
    assert len(titled_table("T", ("Shard", "Problem"), [("s", "")]).columns) == 1
    assert len(titled_table("T", ("Shard", "Problem"), [("s", ""), ("t", "gone")]).columns) == 2


def test_quantities_are_read_at_a_glance():
    assert [number(value) for value in (0, 1234567, 0.25, 12.6, 3.0)] == ["0", "1,234,567", "0.2", "13", "3"]
    assert [size(value) for value in (0, 1023, 1536, 5 << 30, 1 << 50)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 GiB", "1024.0 TiB",
    ]  # fmt: skip
    assert [seconds(value) for value in (0.04, 59.4, 61, 7320)] == ["0.0 s", "59 s", "1 m 1 s", "2 h 2 m"]


# -- following ------------------------------------------------------------------------------------------------


class Lines:
    def __init__(self):
        self.lines = []

    def print(self, line, **_):
        self.lines.append(line)


@pytest.mark.looptime
async def test_what_is_waited_for_is_said_once_and_when_it_is_over():
    console = Lines()
    sentences = _Sentences(console)
    for left in (4, 3, 2, 1):
        sentences.show(
            [f"no route; trying again in {left} s", *(["shard-0 is starting"] if left == 4 else [])]
        )
        await asyncio.sleep(1)
    assert console.lines == ["waiting: no route"]
    sentences.show([])
    assert console.lines[1:] == ["no longer waiting"]
    sentences.show([])
    assert len(console.lines) == 2


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_lets_a_command_tidy_up_once(interruption):
    tidied = []

    async def main():
        try:
            os.kill(os.getpid(), interruption)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), interruption)
            await asyncio.sleep(0.01)
            tidied.append(True)

    assert await interruptible(main()) == interruption
    assert tidied == [True]


async def test_sigint_may_be_taken_gently_sigterm_not():
    asked = []

    async def main():
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.01)
        asked.append("went on")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    assert await interruptible(main(), gently=lambda: asked.append("gently") is None) == signal.SIGTERM
    assert asked == ["gently", "went on"]
