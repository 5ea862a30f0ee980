"""``shoal up`` and ``shoal down``: foreground, detached, on Ray clusters of others, with bad input and bad luck."""

import json
import re
import signal
import socket
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import yaml
from support.commands import Command, alive, command_line, environment, free_port, until

pytestmark = pytest.mark.e2e

RAY = str(Path(sys.executable).with_name("ray"))


def ready(shoal, url):
    return shoal("status", server=url).stdout.startswith("ready")


def test_detached_it_answers_until_it_is_taken_down(shoal, source):
    port = free_port()
    url, listen = f"http://127.0.0.1:{port}", ("--listen", f"127.0.0.1:{port}")
    up = shoal("up", "--detach", *listen, KUBECONFIG=str(source.kubeconfig))
    assert up.returncode == 0, up.stderr
    assert up.stdout == f"Shoal answers at {url}: kubectl --server {url} get pods -A\n"
    running = [process for process in psutil.process_iter() if listen[1] in command_line(process)]
    family = [child for process in running for child in (process, *process.children(recursive=True))]
    try:
        until("ready", lambda: ready(shoal, url))
        again = shoal("up", "--detach", *listen, "--kubeconfig", source.kubeconfig)
        assert again.returncode == 1
        assert f"port {port} is in use" in again.stderr
        assert shoal("get", "nodes", "-o", "name", server=url).stdout.startswith("node/")
        assert shoal("down", "--listen", "127.0.0.1:1").returncode == 1
    finally:
        down = shoal("down", *listen)
    assert (down.returncode, down.stdout) == (0, f"ended {url}\n")
    assert len(family) > 5
    until("nothing is left behind", lambda: not any(alive(process) for process in family))
    gone = shoal("down", *listen)
    assert gone.returncode == 1
    assert gone.stderr.startswith("error: no Shoal of this user runs on this machine at ")


def test_an_api_server_that_is_away_is_waited_for_before_and_after(folder):
    port = free_port()
    kubeconfig = folder / "away"
    api_server = ("apiserver", "--listen", f"127.0.0.1:{port}", "--kubeconfig", kubeconfig, "--pods", 10)
    with Command(*api_server, folder=folder) as first:
        first.says(r"\n")
        first.ends(signal.SIGTERM)
    arguments = ("up", "--kubeconfig", kubeconfig, "--listen", "127.0.0.1:0", "--shards", 1)
    with Command(*arguments, folder=folder) as up:
        up.says(
            rf"waiting: what the API server serves cannot be learnt: cannot connect to http://127.0.0.1:{port}/"
        )
        with Command(*api_server, folder=folder) as second:
            up.says(r"synced [\d,]+ objects in \d+ partitions")
            second.ends(signal.SIGKILL)
        told = len(up.stderr)
        until("that it is away", lambda: "waiting: what the API server serves" in up.stderr[told:])
        with Command(*api_server, folder=folder):
            until("that it is back", lambda: "no longer waiting" in up.stderr[told:])
        assert up.ends(signal.SIGINT) == 0
        assert "Traceback" not in up.stderr


def test_a_signal_to_the_whole_process_group_ends_it_without_waiting_for_what_is_dead_already(folder):
    """As `timeout`, service managers and CI end commands. It used to ask Ray's dead control service for a minute."""
    api_server = ("apiserver", "--kubeconfig", folder / "group", "--pods", 10)
    with Command(*api_server, folder=folder) as source:
        source.says(r"\n")
        arguments = ("up", "--kubeconfig", folder / "group", "--listen", "127.0.0.1:0", "--shards", 1)
        with Command(*arguments, folder=folder) as up:
            up.says(r"synced [\d,]+ objects in \d+ partitions")
            assert up.ends(signal.SIGTERM, whole_group=True) == 0
            assert "GCS" not in up.stderr


def test_what_may_not_be_read_is_named_and_the_rest_is_served(shoal, folder):
    users = [
        {
            "name": "reader",
            "token": "sesame",
            "rules": [
                {
                    "verbs": ["get", "list", "watch"],
                    "resources": ["pods", "nodes", "namespaces", "customresourcedefinitions"],
                },
            ],
        }
    ]
    file, kubeconfig = folder / "users.yaml", folder / "reader"
    file.write_text(yaml.safe_dump(users))
    config = folder / "few.yaml"
    config.write_text("follow: {include: [v1/pods, v1/nodes, v1/services]}\nlog: {level: info}\n")
    api_server = ("apiserver", "--users", file, "--kubeconfig", kubeconfig, "--pods", 10)
    with Command(*api_server, folder=folder) as source:
        source.says(r"\n")
        up = (
            "up",
            "--kubeconfig",
            kubeconfig,
            "--config",
            config,
            "--listen",
            "127.0.0.1:0",
            "--shards",
            "1",
        )
        with Command(*up, folder=folder) as command:
            url = command.says(r"Shoal answers at (http://127.0.0.1:\d+)")[1]
            command.says(r"synced \d+ objects in 3 partitions .*; refused: 1\n")
            command.says(r"\nv1/services is refused: .*forbidden")
            status = shoal("status", server=url).stdout
            assert status.startswith("not ready, epoch ")
            until(
                "what is refused, above the tables",
                lambda: "waiting: v1/services is refused: " in shoal("status", server=url).stdout,
            )
            assert len(json.loads(shoal("get", "pods", "-A", "-o", "json", server=url).stdout)["items"]) == 10
            refused = shoal("get", "services", "-A", server=url)
            assert refused.returncode == 1
            assert "v1/services" in refused.stderr
            # Asked for by log.level: what the actors log, with its keys and values.
            command.says(r"INFO shoal\.coordinator routes published epoch=\d+ partitions=3")
            assert command.ends(signal.SIGTERM) == 0


CERTIFICATES = Path(__file__).parents[1] / "unit" / "shards" / "certificates"


def test_a_certificate_that_does_not_verify_is_waited_for_and_named(folder):
    kubeconfig = folder / "rejected"
    tls = (
        "--tls-cert-file",
        CERTIFICATES / "server.pem",
        "--tls-private-key-file",
        CERTIFICATES / "server.key",
    )
    with Command("apiserver", *tls, "--kubeconfig", kubeconfig, folder=folder) as source:
        source.says(r"\n")
        document = yaml.safe_load(kubeconfig.read_text())
        document["clusters"][0]["cluster"].pop("certificate-authority-data")
        kubeconfig.write_text(yaml.safe_dump(document))
        with Command(
            "up", "--kubeconfig", kubeconfig, "--listen", "127.0.0.1:0", "--shards", 1, folder=folder
        ) as up:
            up.says(r"waiting: .*certificate .*https://127.0.0.1:\d+")
            assert up.ends(signal.SIGTERM) == 0


@pytest.fixture
def short_folder():
    """Of few characters: Ray's sockets are in it, and the path of a socket has 107 at most."""
    with tempfile.TemporaryDirectory(prefix="shoal-") as made:
        yield made


def test_on_a_ray_cluster_that_was_there_before(shoal, source, folder, short_folder):
    port = free_port()
    head = ("start", "--head", "--block", "--port", port, "--num-cpus", 4, "--include-dashboard=false")
    env = environment(folder, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_TMPDIR=short_folder)
    with Command(*head, "--object-store-memory", 100 << 20, folder=folder, env=env, program=(RAY,)) as ray:
        ray.says("Ray runtime started")
        there = ("--ray-address", f"127.0.0.1:{port}")
        absent = shoal("down", *there, RAY_AUTH_MODE="disabled")
        assert (absent.returncode, absent.stderr) == (
            1,
            f"error: no Shoal runs on the Ray cluster at 127.0.0.1:{port}\n",
        )
        arguments = ("up", *there, "--kubeconfig", source.kubeconfig, "--listen", "127.0.0.1:0", "--detach")
        up = shoal(*arguments, RAY_AUTH_MODE="disabled")
        assert up.returncode == 0, up.stderr
        url = up.stdout.split()[3].removesuffix(":")
        assert ready(shoal, url), "detached, it returns when all is synced"
        again = shoal(*arguments, RAY_AUTH_MODE="disabled")
        assert again.stdout == up.stdout
        assert "found a running Shoal" in again.stderr
        down = shoal("down", *there, RAY_AUTH_MODE="disabled")
        assert (down.returncode, down.stdout) == (0, f"ended Shoal on the Ray cluster at 127.0.0.1:{port}\n")
        assert shoal("status", server=url).returncode == 1
        assert ray.ends(signal.SIGTERM) in (0, 1, -signal.SIGTERM)


@pytest.fixture
def kubeconfig(tmp_path):
    """A good one, changed by a test."""
    file = tmp_path / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--kubeconfig", "none"), r"no kubeconfig at .*/none: name one with --kubeconfig"),
        ((), r"no kubeconfig at .*/\.kube/config"),
        (("--context", "y", "--kubeconfig", "{good}"), r"has no context 'y'; it has x"),
        (("--kubeconfig", "{bad}"), r"kubeconfig .*/bad, line 2, column \d+ is not YAML"),
        (("--in-cluster",), r"no in-cluster access: .*outside of a pod name a kubeconfig"),
        (
            ("--in-cluster", "--context", "x"),
            r"--in-cluster goes neither with --kubeconfig nor with --context",
        ),
        (
            ("--listen", "0.0.0.0:1", "--kubeconfig", "{good}"),
            r"listen address '0\.0\.0\.0' is refused: .*loopback",
        ),
        (
            ("--listen", "nonsense", "--kubeconfig", "{good}"),
            r"listen address 'nonsense': expected HOST:PORT",
        ),
        (("--config", "none.yaml"), r"settings file none\.yaml cannot be read"),
        (
            ("--config", "{unknown}"),
            r"unknown: gateway\.lisen: unknown setting; expected one of: listen, shard_timeout_s",
        ),
        (("--config", "{wrong}"), r"wrong: shards: expected `int`, got `str`"),
        (
            ("--ray-address", "127.0.0.1:9", "--kubeconfig", "{good}"),
            r"no Ray cluster answers at '127\.0\.0\.1:9' .*refused",
        ),
        (
            ("--ray-address", "ray://x:10001", "--kubeconfig", "{good}"),
            r"Ray address 'ray://x:10001' .*: expected `auto` or",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_brought_up_is_one_sentence(shoal, tmp_path, kubeconfig, arguments, sentence):

    (tmp_path / "bad").write_text("a: [1,\n")
    (tmp_path / "unknown").write_text("gateway: {lisen: '127.0.0.1:1'}\n")
    (tmp_path / "wrong").write_text("shards: many\n")
    files = {name: str(tmp_path / name) for name in ("bad", "unknown", "wrong")} | {"good": str(kubeconfig)}
    outcome = shoal("up", *(argument.format(**files) for argument in arguments))
    assert outcome.returncode == 1
    assert re.fullmatch(rf"error: .*{sentence}.*\n", outcome.stderr), outcome.stderr
    assert outcome.stdout == ""


def test_a_port_in_use_is_told_before_anything_is_started(shoal, kubeconfig):

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = shoal("up", "--kubeconfig", kubeconfig, "--listen", f"127.0.0.1:{port}")
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: cannot listen on 127.0.0.1:")
    assert f"port {port} is in use" in outcome.stderr
