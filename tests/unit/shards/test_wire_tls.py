"""TLS of the direct connections: both sides verify, and a plain or foreign peer gets nowhere."""

import asyncio
import contextlib
import datetime as dt
import ssl
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.wire import get, pages, serving, until

from shoal.shards.model.errors import NotReady, SettingsError
from shoal.shards.settings import WireSettings
from shoal.shards.wire.tls import own_binding, server_context

CERTIFICATES = Path(__file__).parent / "certificates"
TLS = {
    "tls_certificate": str(CERTIFICATES / "server.pem"),
    "tls_key": str(CERTIFICATES / "server.key"),
    "tls_ca": str(CERTIFICATES / "authority.pem"),
}


def of_a_stranger(folder):
    """Settings with a certificate that an authority of its own has signed: the stranger itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "stranger.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    unencrypted = serialization.NoEncryption()
    (folder / "stranger.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted)
    )
    return WireSettings(
        tls_certificate=str(folder / "stranger.pem"),
        tls_key=str(folder / "stranger.key"),
        tls_ca=str(folder / "stranger.pem"),
    )


async def test_everything_goes_through_tls():
    async with serving(**TLS) as served:
        served.shard.page_bytes = 300_000
        shard = served.connect()
        assert (await shard.get(get("default/x"))).body == b"default/x"
        assert [len(page.bodies[0]) async for page in shard.stream(pages())] == [300_000] * 5
        tls = served.link._transport.get_extra_info("ssl_object")
        assert tls.version() == "TLSv1.3"
        assert tls.getpeercert()["issuer"], "the shard has seen the gateway's certificate"


async def test_the_clients_own_certificate_will_do():
    async with serving(**TLS) as served:
        own = {
            "tls_certificate": str(CERTIFICATES / "client.pem"),
            "tls_key": str(CERTIFICATES / "client.key"),
        }
        assert (await served.connect(settings=WireSettings(**TLS | own)).get(get())).body


async def test_a_gateway_without_tls_gets_nowhere():
    async with serving(**TLS, handshake_timeout_s=1.0) as served:
        with pytest.raises(NotReady, match="cannot be reached"):
            await served.connect(settings=WireSettings(handshake_timeout_s=1.0)).get(get())
        assert served.shard.asked == 0


async def test_a_gateway_with_tls_does_not_talk_to_a_shard_without():
    async with serving(handshake_timeout_s=1.0) as served:
        with pytest.raises(NotReady, match="cannot be reached"):
            await served.connect(settings=WireSettings(**TLS, handshake_timeout_s=1.0)).get(get())
        assert served.shard.asked == 0


async def test_a_certificate_of_another_authority_is_refused_by_either_side(tmp_path):
    strange = of_a_stranger(tmp_path)
    async with serving(**TLS) as served:
        with pytest.raises(NotReady, match="certificate verify failed"):
            await served.connect(settings=strange).get(get())
        trusting = WireSettings(
            tls_certificate=strange.tls_certificate, tls_key=strange.tls_key, tls_ca=TLS["tls_ca"]
        )
        with pytest.raises(NotReady, match="cannot be reached"):
            await served.connect(settings=trusting).get(get())
        await until(lambda: not served.server.links)
        assert served.shard.asked == 0


async def test_a_relay_with_a_certificate_of_the_authority_fails(tmp_path):
    """Somebody inside who leads a gateway to himself, and passes everything on to the shard."""
    async with serving(**TLS) as served:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(TLS["tls_ca"])
        context.load_cert_chain(CERTIFICATES / "client.pem", CERTIFICATES / "client.key")
        passing = []

        async def relay(reader, writer):
            to_shard = await asyncio.open_connection(served.endpoint.host, served.endpoint.port, ssl=context)

            async def pass_on(source, target):
                while chunk := await source.read(1 << 16):
                    target.write(chunk)
                target.close()

            tasks = [
                asyncio.create_task(pass_on(reader, to_shard[1])),
                asyncio.create_task(pass_on(to_shard[0], writer)),
            ]
            passing.extend(tasks)

        mine = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        mine.load_cert_chain(CERTIFICATES / "client.pem", CERTIFICATES / "client.key")
        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=mine)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotReady, match="the peer does not know the shard's secret"):
            await served.connect(port=port).get(get())
        server.close()
        await asyncio.wait(passing)
        assert served.shard.asked == 0


@pytest.mark.parametrize("missing", ["tls_certificate", "tls_key", "tls_ca"])
async def test_files_that_cannot_be_used_are_named(tmp_path, missing):
    nowhere = str(tmp_path / "nowhere.pem")
    with pytest.raises(SettingsError, match=nowhere):
        async with serving(**TLS | {missing: nowhere}):
            pass


def test_a_file_that_is_no_certificate_is_named(tmp_path):
    (tmp_path / "text.pem").write_text("not a certificate")
    settings = WireSettings(**TLS | {"tls_certificate": str(tmp_path / "text.pem")})
    with pytest.raises(SettingsError, match=r"text\.pem"):
        own_binding(settings)
    with pytest.raises(SettingsError, match=r"text\.pem"):
        server_context(settings)


async def test_a_gateway_that_lacks_the_files_says_which(tmp_path):
    async with serving(**TLS) as served:
        settings = WireSettings(**TLS | {"tls_key": str(tmp_path / "gone.key")})
        with pytest.raises(SettingsError, match=r"gone\.key"):
            await served.connect(settings=settings).get(get())


def test_without_tls_there_is_nothing_to_bind_to():
    assert own_binding(WireSettings()) == b""
    assert server_context(WireSettings()) is None


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted = serialization.BestAvailableEncryption(b"passphrase")
    (tmp_path / "locked.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted)
    )
    with pytest.raises(SettingsError, match="the key has a passphrase"):
        server_context(WireSettings(**TLS | {"tls_key": str(tmp_path / "locked.key")}))


async def knock(served):
    return await asyncio.open_connection(served.endpoint.host, served.endpoint.port)


async def shown_out(connection):
    reader, writer = connection
    with contextlib.suppress(ConnectionError):
        assert b"shard" not in await asyncio.wait_for(reader.read(), 5)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_strangers_are_bounded_in_number_before_tls_too():
    async with serving(**TLS, unauthenticated_max=3) as served:
        shard = served.connect()
        await shard.get(get())
        silent = [await knock(served) for _ in range(3)]
        await until(lambda: served.server.unauthenticated == 3)
        silent.append(await knock(served))
        await shown_out(silent.pop(0))
        assert served.server.unauthenticated == 3
        assert (await shard.get(get())).body, "who is in stays in"
        assert (await served.connect().get(get())).body, "who has a name comes in"
        for _, writer in silent:
            writer.close()
        await until(lambda: served.server.unauthenticated == 0)
        assert (await served.connect().get(get())).body


async def test_a_flood_of_strangers_does_not_lock_a_gateway_out_of_tls():
    async with serving(**TLS, unauthenticated_max=8) as served:
        going = True

        async def knocks():
            while going:
                await shown_out(await knock(served))

        flood = [asyncio.create_task(knocks()) for _ in range(20)]
        await until(lambda: served.server.unauthenticated == 8)
        for _ in range(5):
            assert (await served.connect().get(get())).body
        going = False
        await asyncio.gather(*(connection.aclose() for connection in served.connections))
        await served.server.aclose()
        await asyncio.wait(flood)
        assert served.server.unauthenticated == 0


async def test_a_stranger_who_speaks_no_tls_or_nothing_is_shown_out():
    async with serving(**TLS, handshake_timeout_s=0.3) as served:
        silent, loud = await knock(served), await knock(served)
        loud[1].write(b"GET / HTTP/1.1\r\n\r\n")
        await shown_out(loud)
        await shown_out(silent)
        await until(lambda: served.server.unauthenticated == 0)


async def test_stopping_does_not_wait_for_strangers():
    async with serving(**TLS) as served:
        stranger = await knock(served)
        await until(lambda: served.server.unauthenticated == 1)
        await served.server.aclose()
        await shown_out(stranger)


@pytest.mark.parametrize(
    "scenario",
    [
        test_everything_goes_through_tls,
        test_a_gateway_without_tls_gets_nowhere,
        test_strangers_are_bounded_in_number_before_tls_too,
        test_a_flood_of_strangers_does_not_lock_a_gateway_out_of_tls,
        test_a_stranger_who_speaks_no_tls_or_nothing_is_shown_out,
        test_stopping_does_not_wait_for_strangers,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_the_same_on_uvloop(scenario):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
