"""What a client does about answers that come right by themselves, and about those that do not; in virtual time."""

import asyncio
import random
from contextlib import asynccontextmanager

import msgspec
import pytest
from support.apiserver import Caller, InProcessConnection, in_virtual_time, virtual_apiserver

from shoal import errors
from shoal.cluster.client.connect import Client
from shoal.cluster.client.errors import refused
from shoal.cluster.simulator.faults import Fault
from shoal.shards.api.requests import ApiRequest, refusal
from shoal.shards.model.errors import ShoalError

MAPS = "/api/v1/namespaces/default/configmaps"


class World:
    """An API server, and a client of it, in virtual time."""

    def __init__(self, settings=None, **options):
        self.app = virtual_apiserver(settings)
        self.connection = InProcessConnection(self.app)
        self.client = Client(self.connection, where="there", rng=random.Random(7), **options)
        self.maps = self.client.lister("v1/configmaps")

    async def fill(self, count):
        caller = Caller(self.app)
        for number in range(count):
            await caller.create(MAPS, f"c{number:03}", labels={"n": str(number % 3)})

    def asked(self, path=MAPS):
        """Requests for the collection so far."""
        return [request for request in self.connection.requests if request.path == path]


def playing(scenario):
    """A test in virtual time, with a world that knows its resource already."""

    def test():
        async def play():
            world = World()
            await world.fill(7)
            await world.maps.resource_type()
            await scenario(world)
            await world.client.aclose()

        in_virtual_time(play())

    test.__name__ = scenario.__name__
    return test


async def elapsed(call):
    """What a call raised or returned, and the seconds it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        found = await call
    except ShoalError as error:
        found = error
    return found, loop.time() - began


@playing
async def test_an_overloaded_server_is_asked_again_after_the_seconds_it_says(world):
    for kind in ("status-429", "status-503"):
        world.app.faults.arm(Fault(kind=kind, retry_after_s=4, count=2))
        found, took = await elapsed(world.maps.list("default"))
        assert len(found) == 7
        # Twice what was said, and a little by chance, so that not all come back at once.
        assert 8.0 < took < 9.0


@playing
async def test_without_retry_after_pauses_double(world):
    world.app.faults.arm(Fault(kind="status-503", retry_after_s=None, count=5))
    found, took = await elapsed(world.maps.list("default"))
    assert len(found) == 7
    assert (0.25 + 0.5 + 1 + 2 + 4) / 2 < took < 0.25 + 0.5 + 1 + 2 + 4


@playing
async def test_the_last_word_of_a_server_that_does_not_come_right_is_the_error(world):
    world.app.faults.arm(Fault(kind="status-503", retry_after_s=7, count=None))
    found, took = await elapsed(world.maps.get("c001", "default"))
    assert isinstance(found, errors.NotReady)
    assert (found.code, found.retry_after_s) == (503, 7)
    assert took < 30.0
    assert "given up: it would be asked again later than 30 s allow" in found.__notes__


@playing
async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(world):
    world.app.faults.arm(Fault(kind="status-429", retry_after_s=60, count=None))
    found, took = await elapsed(world.maps.list("default"))
    assert isinstance(found, errors.TooManyRequests)
    assert took == 0.0


@playing
async def test_a_connection_that_breaks_is_opened_again(world):
    world.app.faults.arm(Fault(kind="drop", count=2))
    assert len(await world.maps.list("default")) == 7
    world.app.faults.arm(Fault(kind="cut", verb="list", count=1))
    assert len(await world.maps.list("default")) == 7


@playing
async def test_a_server_that_was_there_is_waited_for(world):
    world.connection.away = True
    asyncio.get_running_loop().call_later(10.0, setattr, world.connection, "away", False)
    found, took = await elapsed(world.maps.count("default"))
    assert found == 7
    assert 10.0 <= took < 20.0


@playing
async def test_a_server_that_stays_away_is_told_within_the_deadline(world):
    world.connection.away = True
    found, took = await elapsed(world.maps.count("default", timeout_s=5))
    assert isinstance(found, errors.ConnectionFailed)
    assert took < 5.0


@playing
async def test_an_answer_that_does_not_come_is_not_waited_for_longer_than_the_deadline(world):
    world.app.faults.arm(Fault(kind="slow", seconds=3600, count=None))
    found, took = await elapsed(world.maps.list("default"))
    assert isinstance(found, errors.TimedOut)
    assert found.message == f"no answer to GET {MAPS} within 30 s"
    assert took == 30.0
    found, took = await elapsed(world.maps.list("default", timeout_s=2.5))
    assert isinstance(found, errors.TimedOut)
    assert took == 2.5


@playing
async def test_the_deadline_is_of_the_whole_call(world):
    # Discovery and all pages together.
    world.client.discovery.forget(await world.maps.resource_type())
    world.app.faults.arm(Fault(kind="slow", seconds=4, count=None))
    found, took = await elapsed(world.maps.list("default", timeout_s=6))
    assert isinstance(found, errors.TimedOut)
    assert took == 6.0


@playing
async def test_pages_have_a_deadline_each(world):
    world.app.faults.arm(Fault(kind="slow", seconds=4, count=None))
    pages, took = await elapsed(gathered(world.maps.pages("default", limit=2, timeout_s=6)))
    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert took == 16.0


async def gathered(found):
    return [each async for each in found]


@playing
async def test_a_version_that_is_not_reached_yet_is_waited_for(world):
    newest = int((await world.maps.list("default")).resource_version)

    async def write():
        await asyncio.sleep(8)
        await Caller(world.app).create(MAPS, "late")

    writing = asyncio.create_task(write())
    found, took = await elapsed(world.maps.list("default", not_older_than=newest + 1))
    assert len(found) == 8
    assert 8.0 <= took < 13.0
    found, took = await elapsed(world.maps.count("default", not_older_than=newest + 2))
    assert isinstance(found, errors.TimedOut)
    assert "Too large resource version" in found.message
    assert took <= 30.0
    await writing


@playing
async def test_errors_that_stay_are_told_at_once(world):
    world.app.faults.arm(Fault(kind="status-500", count=1))
    found, took = await elapsed(world.maps.list("default"))
    assert isinstance(found, errors.Upstream)
    assert found.http_status == 500
    assert took == 0.0
    assert len(world.asked()) == 1


# -- lists that cannot be continued ----------------------------------------------------------------------------


def test_a_long_list_whose_state_is_forgotten_begins_again_in_one_piece():
    async def play():
        world = World()
        await world.fill(1200)
        original = world.connection.open
        written = []

        @asynccontextmanager
        async def opened(request):
            # Between two pages something is written, and what was before it forgotten.
            if any(name == "continue" for name, _ in request.query):
                written.append(await Caller(world.app).create(MAPS, f"later-{len(written)}"))
                world.app.storage.compact()
            async with original(request) as response:
                yield response

        world.connection.open = opened
        found = await world.maps.list("default")
        assert len(found) == 1201
        limits = [dict(request.query).get("limit") for request in world.asked()]
        assert limits == ["500", "500", None]
        pages = world.maps.pages("default", limit=500)
        assert len(await anext(pages)) == 500
        with pytest.raises(
            errors.Expired, match=r"the list of v1/configmaps cannot be continued: .*begin again"
        ):
            await anext(pages)

    in_virtual_time(play())


# -- counting on an API server ---------------------------------------------------------------------------------


@playing
async def test_everything_is_counted_with_one_short_page(world):
    assert await world.maps.count("default") == 7
    assert await world.maps.count("default") == 7
    asked = world.asked()
    assert [dict(request.query) for request in asked] == [{"limit": "1"}] * 2
    assert all("PartialObjectMetadataList" in dict(request.headers)["Accept"] for request in asked)
    # That it is no Shoal is found out once.
    assert len(world.asked("/shoal/v1/count")) == 1


@playing
async def test_selections_and_groups_are_counted_by_their_metadata(world):
    assert await world.maps.count("default", label_selector="n=1") == 2
    assert await world.maps.group_by("metadata.labels[n]", "default") == {"0": 3, "1": 2, "2": 2}
    asked = world.asked()
    assert len(asked) == 2
    assert all("PartialObjectMetadataList" in dict(request.headers)["Accept"] for request in asked)


@playing
async def test_who_may_see_no_other_paths_counts_all_the_same(world):
    original = world.connection.open

    @asynccontextmanager
    async def opened(request):
        async with original(request) as response:
            if request.path.startswith("/shoal/"):
                response.status = 403
            yield response

    world.connection.open = opened
    assert await world.maps.count("default") == 7
    assert await world.maps.group_by("metadata.namespace") == {"default": 7}


# -- errors ----------------------------------------------------------------------------------------------------


def status(code, reason="", message="m", **more):
    document = {
        "kind": "Status",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
        **more,
    }
    return refused(ApiRequest("GET", "/a"), refusal(code, {}, msgspec.json.encode(document)))


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (405, "MethodNotAllowed", errors.MethodNotAllowed),
        (406, "NotAcceptable", errors.NotAcceptable),
        (409, "Conflict", errors.Conflict),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "", errors.Conflict),
        (410, "Expired", errors.Expired),
        (410, "Gone", errors.Expired),
        (415, "UnsupportedMediaType", errors.UnsupportedMediaType),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.Upstream),
        (500, "", errors.Upstream),
        (503, "ServiceUnavailable", errors.NotReady),
        (504, "Timeout", errors.TimedOut),
        (502, "", errors.Upstream),
    ],
)
def test_a_status_is_the_error_of_its_reason(code, reason, kind):
    error = status(code, reason, details={"name": "x", "causes": []}, metadata={"continue": "t"})
    assert type(error) is kind
    if kind is not errors.Upstream:
        assert (error.message, error.code) == ("m", code)
        assert error.details["name"] == "x"
        assert error.metadata == {"continue": "t"}


def test_answers_that_are_no_status_say_what_was_asked():
    error = refused(ApiRequest("GET", "/api/v1/x"), refusal(404, {}, b"404 page not found\n"))
    assert type(error) is errors.NotFound
    assert error.message == "GET /api/v1/x was answered 404: 404 page not found"
