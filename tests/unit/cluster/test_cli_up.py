"""What ``shoal up`` finds before it starts anything, and what it says about who can read."""

import asyncio
import io
import json

import pytest
from click.testing import CliRunner
from rich.console import Console
from support.certificates import Authority

from shoal.cluster.cli.follow import follow
from shoal.cluster.cli.main import root
from shoal.cluster.cli.status import overview
from shoal.cluster.cli.up import _announce, _ready_soon, _settings
from shoal.cluster.gateway.server import check
from shoal.cluster.gateway.settings import AuthenticationSettings, TlsSettings
from shoal.cluster.gateway.status import InstallationStatus, Report
from shoal.cluster.listening import HttpServer, bind
from shoal.cluster.settings import GatewaySettings, parse_settings
from shoal.coordinator.status import CoordinatorStatus, DiscoveryStatus, PermitStatus
from shoal.shards.model.errors import SettingsError
from shoal.shards.model.partitions import Epoch

# -- settings -------------------------------------------------------------------------------------------------

TLS = {"certificate": "c", "key": "k"}


@pytest.mark.parametrize(
    ("gateway", "sentence"),
    [
        (
            {"tls": {**TLS, "client_ca": "a"}},
            "gateway.tls.client_ca: client certificates are looked at only with gateway.authentication.cert",
        ),
        (
            {"tls": {**TLS, "client_ca": "a"}, "authentication": {"tokens": True}},
            "gateway.tls.client_ca: client certificates are looked at only with",
        ),
        (
            {
                "tls": {**TLS, "client_ca": "a"},
                "authentication": {"certificates": True},
                "writes": "forward",
            },
            "gateway.writes: forward passes on nothing of users known by a client certificate",
        ),
        (
            {"authentication": {"audiences": ["shoal"]}},
            "gateway.authentication.audiences needs gateway.authentication.tokens",
        ),
        ({"tls": {"certificate": "c"}}, "gateway.tls: certificate and key go together"),
        ({"gateways": 0}, "gateway.gateways: "),
    ],
)
def test_settings_that_contradict_each_other(gateway, sentence):
    with pytest.raises(SettingsError, match=sentence):
        parse_settings({"gateway": gateway}, where="file")


@pytest.mark.parametrize(
    "gateway",
    [
        {"authentication": {"tokens": True}, "writes": "forward"},
        {
            "tls": {**TLS, "client_ca": "a"},
            "authentication": {"certificates": True, "tokens": True},
            "writes": "forward",
        },
        {
            "tls": {**TLS, "client_ca": "a"},
            "authentication": {"certificates": True, "anonymous": True},
            "writes": "forward",
        },
        {"gateways": 3, "listen": "127.0.0.1:0"},
    ],
)
def test_settings_that_do_not(gateway):
    check_nothing = parse_settings({"gateway": gateway}, where="file")
    assert check_nothing.gateway.writes == gateway.get("writes", "refuse")


@pytest.fixture
def files(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", hosts=("127.0.0.1",))
    return {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.path)}


CERTIFICATES = AuthenticationSettings(certificates=True)


def test_files_that_can_be_used(files):
    check(GatewaySettings(listen="0.0.0.0:0", tls=TlsSettings(**files), authentication=CERTIFICATES))


@pytest.mark.parametrize("which", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize(
    "spoil", [lambda file: file.unlink(), lambda file: file.write_text("nonsense")], ids=["gone", "nonsense"]
)
def test_files_that_cannot_be_used_are_found(files, tmp_path, which, spoil):
    spoil(tmp_path / files[which].rsplit("/", 1)[1])
    with pytest.raises(SettingsError, match=r"gateway\.tls.* cannot be used: "):
        check(GatewaySettings(tls=TlsSettings(**files), authentication=CERTIFICATES))


def test_a_key_that_belongs_to_another_certificate_is_found(files, tmp_path):
    _, other = Authority(tmp_path, "other").issue("another", hosts=("127.0.0.1",))
    with pytest.raises(SettingsError, match="KEY_VALUES_MISMATCH"):
        check(GatewaySettings(tls=TlsSettings(**{**files, "key": str(other)}), authentication=CERTIFICATES))


@pytest.mark.parametrize(
    ("listen", "sentence"),
    [
        ("nonsense:1", "expected an IP address of this machine"),
        ("0.0.0.0:1", "is refused: anything but loop"),
    ],
)
def test_addresses_that_cannot_be_listened_on_are_found(listen, sentence):
    with pytest.raises(SettingsError, match=sentence):
        check(GatewaySettings(listen=listen))


def test_nothing_is_started_with_files_that_cannot_be_used(tmp_path, monkeypatch):
    """`shoal up` ends before Ray is so much as imported by it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kubeconfig").write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
                "users": [],
                "contexts": [{"name": "x", "context": {"cluster": "c"}}],
                "current-context": "x",
            }
        )
    )
    (tmp_path / "shoal.yaml").write_text(json.dumps({"gateway": {"tls": TLS}}))
    outcome = CliRunner().invoke(root, ["up", "--kubeconfig", "kubeconfig", "--config", "shoal.yaml"])
    assert outcome.exit_code == 1
    where = tmp_path / "c"
    assert outcome.output.startswith(
        f"error: gateway.tls: certificate {where} and key {tmp_path / 'k'} cannot"
    )


def test_files_are_named_so_that_other_processes_find_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "shoal.yaml").write_text(
        json.dumps({"gateway": {"tls": {"certificate": "tls.crt", "key": "~/tls.key"}}})
    )
    flags = dict.fromkeys(("kubeconfig", "context", "ray_address", "shards", "listen"))
    settings = _settings(**flags, kubeconfig_typed=False, pod=False, config="shoal.yaml")
    assert settings.gateway.tls == TlsSettings(
        certificate=str(tmp_path / "tls.crt"), key=str(tmp_path / "home" / "tls.key")
    )


# -- what it says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gateway", "options"),
    [
        ({}, "--server U"),
        ({"tls": TlsSettings(**TLS)}, "--server U --certificate-authority FILE"),
        (
            {"tls": TlsSettings(**TLS), "authentication": AuthenticationSettings(tokens=True)},
            "--server U --certificate-authority FILE --token TOKEN",
        ),
        (
            {"tls": TlsSettings(**TLS, client_ca="a"), "authentication": CERTIFICATES},
            "--server U --certificate-authority FILE --client-certificate FILE --client-key FILE",
        ),
    ],
)
def test_where_it_answers_is_said_with_what_a_client_needs(capsys, gateway, options):
    _announce("U", GatewaySettings(**gateway))
    said = capsys.readouterr()
    assert said.out == f"Shoal answers at U: kubectl {options} get pods -A\n"
    assert said.err == ""


def test_tokens_without_tls_are_warned_of(capsys):
    _announce("U", GatewaySettings(authentication=AuthenticationSettings(tokens=True)))
    assert capsys.readouterr().err.startswith("warning: kubectl and client-go send a token over HTTPS only")


class Reporting:
    """An installation that is synced, with or without the permission to review."""

    def __init__(self, *problems):
        self._problems = list(problems)

    async def status(self):
        problem = self._problems.pop(0) if len(self._problems) > 1 else self._problems[0]
        coordinator = CoordinatorStatus(
            epoch=Epoch(1),
            permits=PermitStatus(limit=1),
            discovery=DiscoveryStatus(succeeded_age_s=0.0),
        )
        return InstallationStatus(
            shoal_version="0",
            ready=not problem,
            cannot_review=problem,
            report=Report(epoch=Epoch(1), coordinator=coordinator),
        )


def console():
    return Console(file=io.StringIO(), width=200)


@pytest.mark.looptime
async def test_a_permission_that_is_lacking_is_said_once_and_when_it_is_there():
    shown = console()
    lacking = ["may not"] * 5
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            await follow(Reporting(*lacking, ""), shown, stay=True)
    said = shown.file.getvalue()
    assert said.startswith("synced 0 objects in 0 partitions within ")
    assert said.split("\n", 1)[1] == "waiting: may not\nno longer waiting\n"


@pytest.mark.looptime
async def test_whoever_does_not_stay_is_told_too():
    shown = console()
    await follow(Reporting("may not"), shown, stay=False)
    assert shown.file.getvalue().endswith("waiting: may not\n")


def test_status_shows_it_above_the_tables():
    shown = console()
    shown.print(overview(asyncio.run(Reporting("may not").status())))
    assert "not ready, epoch 1" in shown.file.getvalue()
    assert "waiting: may not" in shown.file.getvalue()


READY = "[+]ping ok\n[+]v1/pods ok\n"
LACKING = "[-]reviews Shoal may not: do this\n"


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([(200, "ok")], ""),
        ([(503, READY + LACKING)], "Shoal may not: do this"),
        ([(503, "[-]v1/pods not synced\n" + LACKING), (200, "ok")], ""),
        ([(503, "[-]v1/pods not synced\n"), (503, READY + LACKING)], "Shoal may not: do this"),
    ],
)
async def test_a_detached_command_waits_for_what_waiting_helps(answers, problem):
    left = list(answers)

    async def app(scope, receive, send):
        assert scope["path"] == "/readyz"
        code, text = left.pop(0)
        await send({"type": "http.response.start", "status": code, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})

    server = HttpServer(app, bind("127.0.0.1", 0))
    await server.start()
    try:
        assert await _ready_soon(server.url) == problem
        assert left == []
    finally:
        await server.stop()
