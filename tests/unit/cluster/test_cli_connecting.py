"""How commands reach a gateway and as whom: the options, what they exclude, and a real server with TLS behind them."""

import json
import ssl
from contextlib import asynccontextmanager

import click
import pytest
import yaml
from click.testing import CliRunner
from support.certificates import Authority

from shoal.cluster.cli.connecting import Target, server_options
from shoal.cluster.cli.main import root
from shoal.cluster.cli.server import Server
from shoal.cluster.gateway.settings import TlsSettings
from shoal.cluster.gateway.tls import ServerContext
from shoal.cluster.listening import HttpServer, bind
from shoal.shards.model.errors import BadRequest, ConnectionFailed, SettingsError, ShoalError

TOKEN = "sesame-open"


# -- what the options mean ------------------------------------------------------------------------------------


@click.command()
@server_options
def shown(*, server):
    """Prints what a command is called with."""
    target = {name: getattr(server, name) for name in Target.__slots__ if name != "access"}
    click.echo(json.dumps({**target, "access": str(server.access)}))


@pytest.fixture
def chosen(monkeypatch):
    """The target for arguments and an environment."""
    monkeypatch.delenv("KUBECONFIG", raising=False)

    def run(*arguments, **environment):
        outcome = CliRunner().invoke(shown, list(map(str, arguments)), env=environment, standalone_mode=False)
        if outcome.exception is not None:
            raise outcome.exception
        return json.loads(outcome.output)

    return run


def test_without_options_it_is_the_default_address_and_nobody(chosen):
    target = chosen()
    assert target["where"] == "http://127.0.0.1:7480"
    assert not target["token"]
    assert not target["insecure"]


def test_options_go_before_the_environment(chosen):
    environment = {
        "SHOAL_SERVER": "https://a",
        "SHOAL_TOKEN": "from-environment\n",
        "SHOAL_CERTIFICATE_AUTHORITY": "ca.pem",
    }
    target = chosen(**environment)
    assert (target["where"], target["token"], target["certificate_authority"]) == (
        "https://a",
        "from-environment",
        "ca.pem",
    )
    typed = chosen("--server", "https://b", "--token", "typed", **environment)
    assert (typed["where"], typed["token"]) == ("https://b", "typed")
    assert chosen("--insecure-skip-tls-verify", **environment)["certificate_authority"] is None


@pytest.fixture
def kubeconfig(tmp_path):
    file = tmp_path / "kubeconfig"
    names = ("one", "two")
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in names],
        "current-context": "one",
    }
    file.write_text(yaml.safe_dump(document))
    return file


def test_a_context_says_everything_whatever_the_environment_says(chosen, kubeconfig):
    environment = {"SHOAL_SERVER": "http://10.0.0.1", "SHOAL_TOKEN": "x"}
    assert chosen("--kubeconfig", kubeconfig, **environment)["access"] == f"context one of {kubeconfig}"
    named = chosen("--context", "two", KUBECONFIG=str(kubeconfig), **environment)
    assert (named["access"], named["token"]) == (f"context two of {kubeconfig}", "")
    assert chosen(KUBECONFIG=str(kubeconfig))["where"] == "http://127.0.0.1:7480", "it names the cluster"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--token", "x", "--context", "one"), "--token goes neither with --kubeconfig nor with --context"),
        (("--server", "http://x", "--kubeconfig", "k"), "--server goes neither"),
        (("--client-certificate", "a"), "--client-certificate and --client-key go together"),
        (
            ("--insecure-skip-tls-verify", "--certificate-authority", "a"),
            "--insecure-skip-tls-verify and --certificate-authority exclude each other",
        ),
        (("--server", "http://10.0.0.1:7480", "--token", TOKEN), "a token is not sent over http"),
        (("--server", f"https://u:{TOKEN}@x"), "a URL with a user name or a password in it is not taken"),
        (("--token", f"{TOKEN} {TOKEN}"), r"the token \(--token, \$SHOAL_TOKEN\) has characters"),
        (("--token", f"{TOKEN}\nX: y"), "has characters that no token has"),
        (("--token", f"{TOKEN}\N{EURO SIGN}"), "has characters that no token has"),
    ],
)
def test_what_contradicts_itself_or_would_give_a_token_away_is_refused(chosen, arguments, sentence):
    with pytest.raises(BadRequest, match=sentence) as caught:
        chosen(*arguments)
    assert TOKEN not in str(caught.value)


def test_a_token_may_be_sent_to_this_machine(chosen):
    for host in ("127.0.0.1:7480", "localhost", "[::1]:7480"):
        assert chosen("--server", f"http://{host}", "--token", TOKEN)["token"] == TOKEN


def test_a_token_is_in_no_text():
    assert TOKEN not in repr(Target("https://x", token=TOKEN))


@pytest.mark.parametrize("command", ["status", "get", "api-resources"])
def test_every_command_that_asks_has_the_options(command):
    options = {option for parameter in root.commands[command].params for option in parameter.opts}
    assert {"--server", "--token", "--certificate-authority", "--context", "--kubeconfig"} <= options


# -- a real server --------------------------------------------------------------------------------------------


async def answering(scope, receive, send):
    """Who asks, as it is seen at the other end; 401 and 403 on demand."""
    headers = dict(scope["headers"])
    codes = {"/unknown": 401, "/shoal/v1/forbidden": 403}
    code = codes.get(scope["path"], 200)
    reason = {401: "Unauthorized", 403: "Forbidden"}.get(code, "")
    body = {"kind": "Status", "message": reason, "reason": reason} if reason else {}
    body["authorization"] = headers.get(b"authorization", b"").decode()
    await send(
        {
            "type": "http.response.start",
            "status": code,
            "headers": [(b"content-type", b"application/json")],
        }
    )
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@asynccontextmanager
async def listening(tls=None):
    server = HttpServer(answering, bind("127.0.0.1", 0), tls=tls)
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


def guarded(authority, *, clients=None):
    certificate, key = authority.issue("server", hosts=("127.0.0.1",))
    context = ServerContext.of(TlsSettings(certificate=str(certificate), key=str(key), client_ca=clients))
    if clients:
        context._current.verify_mode = ssl.CERT_REQUIRED
    return context


async def asked(target, path="/who"):
    async with Server(target) as server:
        return json.loads(await server.fetch(path))


async def test_a_token_and_an_authority(authority):
    async with listening(guarded(authority)) as url:
        target = Target(url, token=TOKEN, certificate_authority=str(authority.path))
        assert (await asked(target))["authorization"] == f"Bearer {TOKEN}"
        assert (await asked(Target(url, insecure=True)))["authorization"] == ""


async def test_a_client_certificate(authority):
    certificate, key = map(str, authority.issue("alice"))
    async with listening(guarded(authority, clients=str(authority.path))) as url:
        known = Target(
            url,
            certificate_authority=str(authority.path),
            client_certificate=certificate,
            client_key=key,
        )
        assert await asked(known)
        with pytest.raises(ShoalError, match=f"^no Shoal answers at {url} "):
            await asked(Target(url, certificate_authority=str(authority.path)))


async def test_a_certificate_that_does_not_verify_names_the_option(authority):
    async with listening(guarded(authority)) as url:
        with pytest.raises(ShoalError) as caught:
            await asked(Target(url, token=TOKEN))
    said = str(caught.value)
    assert said.startswith(f"the certificate of {url}/who does not verify: ")
    assert "; name its authority with --certificate-authority, or" in said
    assert "kubeconfig" not in said
    assert TOKEN not in said


async def test_http_where_there_is_https_and_the_other_way_round(authority):
    async with listening(guarded(authority)) as url:
        with pytest.raises(ShoalError, match="or name it with --server or with https://"):
            await asked(Target(url.replace("https", "http"), token=TOKEN))
    async with listening() as url:
        with pytest.raises(ShoalError, match="is it an https port"):
            await asked(Target(url.replace("http", "https")))


async def test_who_is_not_known_is_told_what_to_say():
    async with listening() as url:
        with pytest.raises(ShoalError, match=r"^from server \(Unauthorized\): say who you are with --token"):
            await asked(Target(url), "/unknown")
        with pytest.raises(ShoalError, match=r"\(Unauthorized\): the token or certificate is not") as caught:
            await asked(Target(url, token=TOKEN), "/unknown")
        assert TOKEN not in str(caught.value)
        with pytest.raises(ShoalError, match=r"\(Forbidden\): Forbidden; a cluster role with the verb get"):
            await asked(Target(url, token=TOKEN), "/shoal/v1/forbidden")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ({"certificate_authority": "none.pem"}, "--certificate-authority none.pem cannot be used: No such"),
        ({"certificate_authority": __file__}, "--certificate-authority .* cannot be used: "),
        ({"client_certificate": "a", "client_key": "b"}, "--client-certificate a and --client-key b cannot"),
    ],
)
def test_files_that_cannot_be_used(target, sentence):
    with pytest.raises(SettingsError, match=sentence):
        Server(Target("https://127.0.0.1:9", **target))


async def test_readiness_is_told_whatever_it_is():
    async with listening() as url, Server(url) as server:
        ready, text = await server.readiness()
        assert ready
        assert "authorization" in text
    async with Server("http://127.0.0.1:9") as away:
        with pytest.raises(ConnectionFailed):
            await away.readiness()
