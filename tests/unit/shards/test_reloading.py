"""Credentials that are read again: kept while they are good, renewed when they are not, and not in vain."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from support.clock import run_virtual

from shoal.shards.api.client import Endpoint
from shoal.shards.api.plugin import PluginCredentials
from shoal.shards.api.reloading import (
    RELOAD_S,
    RENEW_AT_MOST_EVERY_S,
    Found,
    ReloadedCredentials,
    TokenGone,
)
from shoal.shards.api.tokens import AGAIN_S
from shoal.shards.model.errors import KubeconfigError


def endpoint(token):
    return Endpoint("https://192.0.2.1", headers=(("Authorization", f"Bearer {token}"),))


class Source:
    """What is read: a token, or an error. With `life` it is a plug-in's, and good for so long."""

    def __init__(self, token="one", *, life=None):
        self.token = token
        self.life = life
        self.broken = None
        """Nothing can be read at all."""
        self.error = None
        """What a run of the plug-in ends with."""
        self.hangs_s = 0.0
        self.reads = 0
        self.runs = 0
        """Of the plug-in."""

    async def read(self, plugin):
        self.reads += 1
        if self.broken is not None:
            raise self.broken
        if plugin is None or plugin.expired:
            self.runs += 1
            if self.hangs_s:
                await asyncio.sleep(self.hangs_s)
            if self.error is not None:
                raise self.error
            expires = None if self.life is None else datetime.now(UTC) + self.life
            plugin = PluginCredentials(token=self.token, expires=expires)
        return Found(endpoint(plugin.token), plugin, renewable=True)

    @property
    def credentials(self):
        return ReloadedCredentials(self.read)


def failing(source, text="no net"):
    """From now on nothing can be read."""
    source.broken = KubeconfigError(text)


# -- what cannot be read for a moment ----------------------------------------------------------------------------


def test_what_cannot_be_read_for_a_moment_leaves_the_last_credentials(caplog):
    """A key that is being replaced, or a plug-in without a network, ended every request for as long."""

    async def main():
        source = Source()
        credentials = source.credentials
        first = await credentials.endpoint()
        await asyncio.sleep(RELOAD_S)
        failing(source)
        for _ in range(5):
            assert await credentials.endpoint() is first
            assert await credentials.endpoint() is first
            await asyncio.sleep(AGAIN_S)
        assert source.reads == 6, "once, then every AGAIN_S"
        source.broken = None
        assert await credentials.endpoint() is first
        await asyncio.sleep(RELOAD_S - 1)
        assert source.reads == 7

    with caplog.at_level(logging.WARNING, "shoal"):
        run_virtual(main())
    (said,) = caplog.records  # once, not for every request
    assert said.message == "credentials cannot be read again, the last ones are kept"
    assert said.problem == "no net"


def test_what_could_never_be_read_is_an_error():
    async def main():
        source = Source()
        failing(source)
        credentials = source.credentials
        for _ in range(2):
            with pytest.raises(KubeconfigError, match="no net"):
                await credentials.endpoint()

    run_virtual(main())


def test_credentials_that_were_rejected_are_not_kept_when_they_cannot_be_renewed():
    async def main():
        source = Source()
        credentials = source.credentials
        first = await credentials.endpoint()
        source.error = KubeconfigError("no net")
        assert credentials.rejected(first)
        for _ in range(10):
            with pytest.raises(KubeconfigError, match="no net"):
                await credentials.endpoint()
        assert source.runs == 2, "the plug-in is not started for every request"
        source.error, source.token = None, "two"
        await asyncio.sleep(AGAIN_S)
        assert await credentials.endpoint() == endpoint("two")

    run_virtual(main())


def test_a_token_that_is_being_written_is_kept_even_after_it_was_rejected():
    async def main():
        source = Source()
        credentials = source.credentials
        first = await credentials.endpoint()
        source.error = TokenGone("is empty")
        assert credentials.rejected(first)
        assert await credentials.endpoint() is first

    run_virtual(main())


@pytest.mark.parametrize(("life", "good"), [(timedelta(seconds=30), True), (timedelta(seconds=-1), False)])
def test_a_plug_in_that_fails_leaves_its_token_until_that_has_really_expired(life, good):
    """It is asked for another a minute before; failing then is no reason to stop."""

    async def main():
        source = Source(life=life)
        credentials = source.credentials
        first = await credentials.endpoint()
        await asyncio.sleep(RELOAD_S)
        source.error = KubeconfigError("no net")
        if good:
            assert await credentials.endpoint() is first
        else:
            with pytest.raises(KubeconfigError, match="no net"):
                await credentials.endpoint()
        assert source.runs == 2

    run_virtual(main())


def test_a_plug_in_that_hangs_delays_one_request():
    async def main():
        loop = asyncio.get_running_loop()
        source = Source(life=timedelta(seconds=30))
        credentials = source.credentials
        first = await credentials.endpoint()
        await asyncio.sleep(RELOAD_S)
        source.hangs_s, source.token = 40.0, "two"
        began = loop.time()
        renewing = asyncio.create_task(credentials.endpoint())
        await asyncio.sleep(1)
        assert await asyncio.gather(*(credentials.endpoint() for _ in range(50))) == [first] * 50
        assert loop.time() == began + 1
        assert await renewing == endpoint("two")
        assert source.runs == 2

    run_virtual(main())


# -- what is rejected ----------------------------------------------------------------------------------------------


def test_credentials_that_rotate_twice_in_a_moment_are_renewed_twice():
    """The second time every request was answered 401 for half a minute."""

    async def main():
        source = Source()
        credentials = source.credentials
        for token in ("two", "three", "four"):
            known = await credentials.endpoint()
            source.token = token
            assert credentials.rejected(known)
            assert await credentials.endpoint() == endpoint(token)
            await asyncio.sleep(1)
        assert source.runs == 4

    run_virtual(main())


def test_a_plug_in_that_gives_the_same_again_is_left_alone_for_a_while():
    async def main():
        source = Source()
        credentials = source.credentials
        first = await credentials.endpoint()
        assert credentials.rejected(first)
        assert await credentials.endpoint() is first
        for _ in range(29):
            assert not credentials.rejected(first)
            await asyncio.sleep(1)
        assert source.runs == 2
        await asyncio.sleep(RENEW_AT_MOST_EVERY_S - 29)
        assert credentials.rejected(first)

    run_virtual(main())


def test_a_plug_in_whose_every_token_is_another_and_rejected_is_left_alone_for_a_while():
    """As that of a user who was removed: each run signs another token."""

    async def main():
        source = Source("0")
        credentials = source.credentials
        await credentials.endpoint()

        async def request():
            known = await credentials.endpoint()
            if credentials.rejected(known):
                source.token = str(source.runs)
                known = await credentials.endpoint()
                credentials.rejected(known, again=True)

        for _ in range(5):
            await asyncio.gather(*(request() for _ in range(100)))
        assert source.runs == 2
        await asyncio.sleep(RENEW_AT_MOST_EVERY_S)
        await asyncio.gather(*(request() for _ in range(100)))
        assert source.runs == 3

    run_virtual(main())


def test_what_is_read_again_and_is_the_same_stays_the_same():
    async def main():
        source = Source()
        credentials = source.credentials
        first = await credentials.endpoint()
        await asyncio.sleep(RELOAD_S)
        assert await credentials.endpoint() is first
        assert source.reads == 2

    run_virtual(main())


def test_a_server_that_cannot_be_connected_to_makes_files_be_read_again_but_not_all_the_time():
    async def main():
        source = Source()
        credentials = source.credentials
        first = await credentials.endpoint()
        assert not credentials.doubted(first), "they were read just now"
        await asyncio.sleep(AGAIN_S)
        assert credentials.doubted(first)
        assert await credentials.endpoint() is first
        assert not credentials.doubted(first)
        assert (source.reads, source.runs) == (2, 1), "no plug-in is run because of that"

    run_virtual(main())
