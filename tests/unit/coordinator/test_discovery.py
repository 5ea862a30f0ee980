import asyncio
from contextlib import asynccontextmanager

import pytest
from support.clock import run_virtual
from support.discovery import DEFINITIONS, Answer, DiscoveryServer, recorded

from shoal.coordinator.discovery import Discovery
from shoal.coordinator.settings import DiscoverySettings
from shoal.shards.model.errors import ConnectionFailed, Garbage, Upstream

SETTINGS = DiscoverySettings(timeout_s=5, vanish_s=3, vanish_defined_s=60, definitions_poll_s=30)


def names(snapshot):
    return sorted(
        str(known.resource)
        for group in snapshot.groups
        for version in group.versions
        for known in version.resources
    )


def resource(snapshot, name):
    return next(
        known
        for group in snapshot.groups
        for version in group.versions
        for known in version.resources
        if str(known.resource) == name
    )


def server(**kwargs):
    made = DiscoveryServer(**kwargs)
    made.add("pods", subresources=("status", "log"))
    made.add("deployments", group="apps")
    return made


async def looks(discovery, seconds):
    """One look a second; the last snapshot."""
    for _ in range(seconds):
        await asyncio.sleep(1)
        snapshot = await discovery.look()
    return snapshot


class Recorded:
    """Answers with recorded exchanges, 404 for everything else."""

    def __init__(self, **by_path):
        self.by_path = by_path
        self.requests = []

    @asynccontextmanager
    async def open(self, request):
        self.requests.append(request)
        name = self.by_path.get(request.path.strip("/").replace("/", "_"))
        if name is None:
            yield Answer(404, {}, b"404 page not found\n")
            return
        response = recorded(name)
        headers = {key.lower(): value for key, value in response["headers"].items()}
        if headers.get("etag") and dict(request.headers).get("If-None-Match") == headers["etag"]:
            yield Answer(304, {"etag": headers["etag"]}, b"")
        else:
            yield Answer(response["status"], headers, response["body"].encode())


def test_a_recorded_server_is_read_and_then_answers_304():
    async def main():
        connection = Recorded(
            api="discovery-aggregated-api", apis="discovery-aggregated-apis", version="version"
        )
        discovery = Discovery(connection, SETTINGS)
        snapshot = await discovery.look()
        assert snapshot.form == "aggregated"
        assert b'"gitVersion": "v1.36.2"' in snapshot.server_version
        assert len(names(snapshot)) == 68
        assert await discovery.look() == snapshot
        conditional = [dict(request.headers).get("If-None-Match") for request in connection.requests[-2:]]
        assert conditional == [
            recorded(name)["headers"]["Etag"]
            for name in ("discovery-aggregated-api", "discovery-aggregated-apis")
        ]
        accept = dict(connection.requests[0].headers)["Accept"]
        assert accept.split(",")[0] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        assert accept.endswith(",application/json")

    run_virtual(main())


def test_a_recorded_server_without_aggregation_is_read_group_by_group():
    async def main():
        connection = Recorded(
            api="discovery-legacy-api",
            apis="discovery-legacy-apis",
            api_v1="discovery-legacy-api-v1",
            apis_apps_v1="discovery-legacy-apps-v1",
            version="version",
        )
        snapshot = await Discovery(connection, SETTINGS).look()
        assert snapshot.form == "legacy"
        assert {"v1/pods", "apps/v1/deployments"} <= set(names(snapshot))
        assert not any("/status" in name for name in names(snapshot))

    run_virtual(main())


@pytest.mark.parametrize("legacy", [False, True])
def test_resources_come_and_go(legacy):
    async def main():
        api = server(legacy=legacy)
        discovery = Discovery(api, SETTINGS)
        assert names(await discovery.look()) == ["apps/v1/deployments", "v1/pods"]
        api.add("things", group="example.com")
        assert "example.com/v1/things" in names(await looks(discovery, 1))
        api.remove("things", group="example.com")
        snapshot = await looks(discovery, 2)
        assert "example.com/v1/things" in names(snapshot), "kept for a moment"
        assert snapshot.notes == ("discovery does not show example.com/v1/things at the moment",)
        assert names(await looks(discovery, 3)) == ["apps/v1/deployments", "v1/pods"]

    run_virtual(main())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_group_that_cannot_be_asked_keeps_its_resources(legacy):
    async def main():
        api = server(legacy=legacy)
        api.add("metrics", group="metrics.example.com")
        discovery = Discovery(api, SETTINGS)
        before = names(await discovery.look())
        api.stale.add(("metrics.example.com", "v1"))
        api.statuses["/apis/metrics.example.com/v1"] = 503
        snapshot = await looks(discovery, 200)
        assert names(snapshot) == before
        assert snapshot.notes == (
            "discovery of metrics.example.com/v1 is stale: its resources are those known before",
        )
        api.stale.clear()
        api.statuses.clear()
        assert (await looks(discovery, 1)).notes == ()
        api.remove("metrics", group="metrics.example.com")
        assert "metrics.example.com/v1/metrics" not in names(await looks(discovery, 5))

    run_virtual(main())


def test_a_server_that_starts_and_does_not_list_everything_yet_drops_nothing():
    async def main():
        api = server()
        api.define("widgets")
        discovery = Discovery(api, SETTINGS)
        before = names(await discovery.look())
        whole = api.groups
        api.groups = {"": whole[""], "apiextensions.k8s.io": whole["apiextensions.k8s.io"]}
        await asyncio.sleep(100)
        assert names(await discovery.look()) == before
        assert "example.com/v1/widgets" in names(await looks(discovery, 20)), "its definition is still there"
        api.groups = whole
        assert names(await looks(discovery, 1)) == before

    run_virtual(main())


def test_definitions_bring_columns_and_fields_and_are_read_again_only_when_they_change():
    async def main():
        api = server()
        api.define("widgets", fields=(".spec.color",))
        discovery = Discovery(api, SETTINGS)
        widgets = resource(await discovery.look(), "example.com/v1/widgets")
        assert widgets.custom
        assert widgets.selectable_fields == ("spec.color",)
        assert widgets.printer_columns[0].json_path == ".spec.size"
        one = f"{DEFINITIONS}/widgets.example.com"
        await looks(discovery, 29)
        assert api.paths().count(DEFINITIONS) == 1
        await looks(discovery, 60)
        assert (api.paths().count(DEFINITIONS), api.paths().count(one)) == (3, 1)
        definition = api.definitions["widgets.example.com"]
        definition["metadata"]["generation"] = 2
        definition["spec"]["versions"][0]["selectableFields"] = []
        assert resource(await looks(discovery, 30), "example.com/v1/widgets").selectable_fields == ()
        assert api.paths().count(one) == 2
        api.define("gadgets", fields=(".spec.size",))
        assert resource(await looks(discovery, 1), "example.com/v1/gadgets").selectable_fields == (
            "spec.size",
        )
        api.undefine("gadgets")
        assert "example.com/v1/gadgets" not in names(await looks(discovery, 4))

    run_virtual(main())


def test_without_permission_to_read_definitions_it_goes_on_without():
    async def main():
        api = server()
        api.define("widgets", fields=(".spec.color",))
        api.statuses[DEFINITIONS] = 403
        discovery = Discovery(api, SETTINGS)
        snapshot = await discovery.look()
        widgets = resource(snapshot, "example.com/v1/widgets")
        assert widgets.custom, "discovery itself says so"
        assert widgets.selectable_fields == ()
        (note,) = snapshot.notes
        assert note.startswith(
            "custom resources have no columns and selectable fields: the API server answered GET"
        )
        api.statuses.clear()
        assert resource(await looks(discovery, 30), "example.com/v1/widgets").selectable_fields == (
            "spec.color",
        )

    run_virtual(main())


def test_a_passing_failure_to_read_definitions_keeps_those_known():
    async def main():
        api = server()
        api.define("widgets", fields=(".spec.color",))
        discovery = Discovery(api, SETTINGS)
        await discovery.look()
        api.statuses[DEFINITIONS] = 500
        snapshot = await looks(discovery, 31)
        assert resource(snapshot, "example.com/v1/widgets").selectable_fields == ("spec.color",)
        assert len(snapshot.notes) == 1

    run_virtual(main())


@pytest.mark.parametrize("damage", ["garbage", "refused", "absent spec"])
def test_a_definition_that_cannot_be_read_is_named_and_leaves_the_others_alone(damage):
    async def main():
        api = server()
        api.define("widgets", fields=(".spec.color",))
        api.define("gadgets", fields=(".spec.size",))
        path = f"{DEFINITIONS}/gadgets.example.com"
        if damage == "refused":
            api.statuses[path] = 403
        elif damage == "garbage":
            api.definitions["gadgets.example.com"]["spec"]["versions"] = "many"
        else:
            whole = api.definitions["gadgets.example.com"]
            api.definitions["gadgets.example.com"] = {"metadata": whole["metadata"]}
        discovery = Discovery(api, SETTINGS)
        snapshot = await discovery.look()
        assert resource(snapshot, "example.com/v1/widgets").selectable_fields == ("spec.color",)
        assert resource(snapshot, "example.com/v1/widgets").printer_columns
        gadgets = resource(snapshot, "example.com/v1/gadgets")
        assert (gadgets.custom, gadgets.selectable_fields) == (True, ())
        (note,) = snapshot.notes
        assert note.startswith("the definition gadgets.example.com cannot be read")
        # It is read again, and until then the others are not.
        api.statuses.clear()
        api.undefine("gadgets")
        api.define("gadgets", fields=(".spec.size",))
        api.requests.clear()
        snapshot = await looks(discovery, 31)
        assert resource(snapshot, "example.com/v1/gadgets").selectable_fields == ("spec.size",)
        assert snapshot.notes == ()
        assert f"{DEFINITIONS}/widgets.example.com" not in api.paths()

    run_virtual(main())


def test_a_new_definition_that_may_not_be_read_costs_the_others_nothing():
    async def main():
        api = server()
        api.define("widgets", fields=(".spec.color",))
        discovery = Discovery(api, SETTINGS)
        await discovery.look()
        api.define("gadgets", fields=(".spec.size",))
        api.statuses[f"{DEFINITIONS}/gadgets.example.com"] = 403
        snapshot = await looks(discovery, 1)
        assert resource(snapshot, "example.com/v1/widgets").selectable_fields == ("spec.color",)
        (note,) = snapshot.notes
        assert note.startswith("the definition gadgets.example.com cannot be read")

    run_virtual(main())


def test_a_definition_that_cannot_be_read_any_more_keeps_what_it_said():
    async def main():
        api = server()
        api.define("widgets", fields=(".spec.color",))
        discovery = Discovery(api, SETTINGS)
        await discovery.look()
        api.definitions["widgets.example.com"]["metadata"]["generation"] = 2
        api.definitions["widgets.example.com"]["spec"]["versions"] = "many"
        snapshot = await looks(discovery, 31)
        assert resource(snapshot, "example.com/v1/widgets").selectable_fields == ("spec.color",)
        (note,) = snapshot.notes
        assert "widgets.example.com" in note

    run_virtual(main())


def test_the_version_is_mirrored_byte_for_byte_and_renewed():
    async def main():
        api = server()
        discovery = Discovery(api, SETTINGS)
        api.statuses["/version"] = 503
        assert (await discovery.look()).server_version == b""
        api.statuses.clear()
        assert (await looks(discovery, 1)).server_version == api.version
        api.version = b'{"gitVersion": "v1.37.0"}'
        assert (await looks(discovery, 31)).server_version == api.version

    run_virtual(main())


@pytest.mark.parametrize("path", ["/api", "/apis"])
def test_a_look_that_fails_says_why_and_changes_nothing(path):
    async def main():
        api = server()
        discovery = Discovery(api, SETTINGS)
        before = await discovery.look()
        api.away = True
        with pytest.raises(ConnectionFailed, match="connection refused"):
            await discovery.look()
        api.away = False
        api.statuses[path] = 401
        with pytest.raises(Upstream, match=f"answered GET {path} with 401"):
            await discovery.look()
        api.statuses.clear()
        api.slow[path] = 60
        with pytest.raises(ConnectionFailed, match=f"no answer to GET {path} within 5 s"):
            await discovery.look()
        api.slow.clear()
        assert await discovery.look() == before

    run_virtual(main())


def test_garbage_is_reported():
    async def main():
        with pytest.raises(Garbage, match="discovery at /api"):
            await Discovery(Recorded(api="list-full", apis="discovery-aggregated-apis"), SETTINGS).look()

    run_virtual(main())
