"""Requests longer than anybody means: what is read of them, what is said about them, and what is kept."""

import asyncio
import logging

import pytest
from support.clock import run_virtual
from support.local_shards import PODS, LocalInstallation, made
from support.queries import collection_query

from shoal.cluster.gateway.authorization import REMEMBERED_CHARS, Authorizer
from shoal.cluster.gateway.compression import accepts_gzip
from shoal.cluster.gateway.reviews import AccessVerdict, Reviewer
from shoal.cluster.gateway.settings import AuthorizationSettings
from shoal.cluster.gateway.verdicts import Verdicts, digest
from shoal.cluster.query.floor import written_version
from shoal.cluster.query.rerouting import VAIN_S
from shoal.cluster.query.tokens import Position, encode_token
from shoal.cluster.serving import identity
from shoal.cluster.serving.identity import Attributes, User, forbidden, quoted
from shoal.cluster.serving.negotiation import (
    etag_matches,
    negotiate,
    negotiate_discovery,
    preferred_media,
)
from shoal.cluster.serving.options import BadWatchVersion, ListOptions
from shoal.shards.model.errors import BadRequest, ConnectionFailed, Forbidden, NotAcceptable, NotReady
from shoal.shards.model.partitions import Epoch
from shoal.shards.model.refs import Key

JANE = User("jane")
DIGITS = "9" * 5_000


# -- headers -------------------------------------------------------------------------------------------------


def test_a_long_accept_header_is_not_read():
    longest = "application/json," + "a/b," * 2_000
    assert negotiate(longest).media == "application/json"
    for ask in (negotiate, negotiate_discovery):
        with pytest.raises(NotAcceptable):
            ask(f"{longest}{'a/b,' * 100}")
    assert preferred_media("a/b," * 5_000 + "*/*", ["application/json"]) is None
    assert not etag_matches('"x",' * 5_000 + '"e"', "e")


def test_a_long_accept_encoding_is_not_read():
    assert accepts_gzip("x," * 3_000 + "gzip")
    assert not accepts_gzip("x," * 5_000 + "gzip")


def test_what_is_quoted_is_cut_short_and_plain_text_is_not_looked_at_by_character(monkeypatch):
    monkeypatch.setattr(identity, "_escaped", None)
    assert quoted("plain ä") == '"plain ä"'
    assert len(quoted("a" * 1_000_000)) < 2_000
    monkeypatch.undo()
    assert quoted('a"b\\c\n\x00\u200b') == '"a\\"b\\\\c\\n\\x00\\u200b"'
    assert len(quoted("\x00" * 1_000_000)) < 10_000


def test_a_refusal_repeats_little_of_what_was_asked():
    long = "a" * 100_000
    for attributes in (
        Attributes("get", path=f"/{long}"),
        Attributes("list", long, "v1", long, long, long, long, label_selector=long),
    ):
        refused = forbidden(User(long), attributes)
        assert len(refused.message) < 10_000
        assert all(len(text) < 2_000 for text in refused.details.values())


# -- numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["limit", "timeoutSeconds"])
@pytest.mark.parametrize("sign", ["", "-", "+"])
def test_a_number_of_thousands_of_digits_is_out_of_range(name, sign):
    with pytest.raises(BadRequest, match=r"strconv\.ParseInt: parsing .*: value out of range"):
        ListOptions.parse([(name, f"{sign}{DIGITS}")], PODS)


def test_a_version_of_thousands_of_digits_is_out_of_range():
    with pytest.raises(BadRequest, match=r"strconv\.ParseUint: parsing .*: value out of range") as caught:
        ListOptions(resource_version=DIGITS).demand()
    assert len(caught.value.message) < 4_000
    with pytest.raises(BadWatchVersion, match="value out of range"):
        ListOptions(resource_version=DIGITS).watch_version()
    assert ListOptions.parse([("limit", "0" * 50 + "7")], PODS).limit == 7


# -- answers to writes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [100, 1_100, 5_000])
def test_the_version_of_a_deep_object_is_read(depth):
    deep = b'{"spec":' + b"[" * depth + b"]" * depth + b',"metadata":{"resourceVersion":"5"}}'
    assert written_version(deep) == "5"


def test_an_object_too_deep_to_be_read_has_no_version(monkeypatch):
    def gives_up(decode, body):
        raise RecursionError

    monkeypatch.setattr("shoal.cluster.query.floor.at_any_depth", gives_up)
    assert written_version(b"{}") == ""


# -- what is remembered --------------------------------------------------------------------------------------


class Asking:
    """In place of a `Reviewer`."""

    def __init__(self, *, allowed=False):
        self.allowed = allowed
        self.asked = 0

    async def access(self, user, attributes):
        self.asked += 1
        return AccessVerdict(self.allowed)


def test_refused_questions_are_remembered_by_digests_and_long_ones_not_at_all():
    async def main():
        reviewer = Asking()
        authorizer = Authorizer(reviewer, AuthorizationSettings())
        for name in ("a" * 7_000, "b" * 7_000, "c" * (REMEMBERED_CHARS + 1)):
            for _ in range(2):
                with pytest.raises(Forbidden):
                    await authorizer.require(JANE, Attributes("get", "", "v1", "pods", name=name))
        assert reviewer.asked == 2 + 2
        held = authorizer._verdicts._held[False]
        assert [len(key) for key in held] == [32, 32]
        await authorizer.aclose()

    run_virtual(main())


def test_digests_tell_questions_apart():
    questions = [("ab", "c"), ("a", "bc"), (("a",), "bc"), ("a", "b", "c"), ("abc",), "abc", ("a'", "b")]
    assert len({digest(question) for question in questions}) == len(questions)
    assert digest(("\ud800",)) != digest(("\ud801",))


def test_what_is_past_its_life_is_swept_though_nobody_asks():
    async def main():
        kept = Verdicts(
            "tests", good_life_s=10, bad_life_s=5, remembered=9, at_once=1, waiting=1, timeout_s=1
        )
        for at in range(3):
            await kept.of(at, lambda: Asking(allowed=True).access(JANE, None))
            await kept.of(f"{at}", lambda: Asking().access(JANE, None))
        assert len(kept) == 6
        await asyncio.sleep(11)
        assert len(kept) == 0
        await kept.of("more", lambda: Asking().access(JANE, None), remember=False)
        assert len(kept) == 0
        await kept.aclose()

    run_virtual(main())


# -- what strangers are told ---------------------------------------------------------------------------------


class Unreachable:
    def open(self, request):
        raise ConnectionFailed("cannot connect to https://10.9.8.7:6443/apis: refused; is it running?")


async def test_the_api_servers_address_is_for_the_log_alone(caplog):
    reviewer = Reviewer(Unreachable())
    with caplog.at_level(logging.WARNING):
        for ask in (reviewer.token("t"), reviewer.access(JANE, Attributes("get")), reviewer.token("u")):
            with pytest.raises(NotReady, match="the API server cannot be asked by") as caught:
                await ask
            assert "10.9.8.7" not in caught.value.message
    assert ["10.9.8.7" in record.problem for record in caplog.records] == [True]


# -- forged tokens -------------------------------------------------------------------------------------------


def test_tokens_of_routes_there_are_none_of_make_nobody_wait_again():
    async def main():
        built = LocalInstallation(1)
        built.hold(PODS, [made(PODS, f"web-{n}", namespace="a") for n in range(3)])
        built.publish()
        asked = collection_query(PODS, [("limit", "1")])
        loop = asyncio.get_running_loop()

        async def taking(epoch):
            token = encode_token(Position(Epoch(epoch), Key("a/web-0"), {}), asked.fingerprint)
            started = loop.time()
            listing = await built.router.list(collection_query(PODS, [("limit", "1"), ("continue", token)]))
            await listing.aclose()
            return loop.time() - started

        waits = [await taking(epoch) for epoch in (2**63, 2**63 - 1, 1_000, 999, 500)]
        assert [wait > 0 for wait in waits] == [True, False, False, False, False]
        await asyncio.sleep(VAIN_S)
        assert await taking(400) > 0

    run_virtual(main())
