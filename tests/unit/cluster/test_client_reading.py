"""Listers, the same for a Shoal and an API server, asynchronous and blocking: one suite, four clients."""

import asyncio
import re

import pytest
from support.client_faces import COLORS, FACES, PODS, SPACE, Face, cluster, create, delete

from shoal import errors
from shoal.cluster.client.answers import Freshness
from shoal.cluster.informers.errors import UnknownResource
from shoal.shards.model.resources import Resource


@pytest.fixture(scope="module")
def shared():
    with cluster() as found:
        yield found


@pytest.fixture(params=FACES)
async def client(request, shared):
    found = Face(await asyncio.to_thread(shared.client, request.param))
    found.through_shoal = request.param.endswith("connect")
    yield found
    await found.aclose()


@pytest.fixture
def pods(client):
    return client.lister("v1/pods")


# -- one object ----------------------------------------------------------------------------------------------


async def test_get_gives_one_object(client, pods):
    web = await pods.get("web-0", SPACE)
    assert (web.key, web.kind, web.labels) == ("shop/web-0", "Pod", {"app": "web"})
    assert web.spec.containers[0].image == "nginx:1.29"
    assert (await pods.in_namespace(SPACE).get("web-0")) == web
    assert (await client.lister("pods", SPACE).get("web-0")) == web
    assert (await pods.get("shop/web-0")) == web
    assert (await client.lister("v1/nodes").get("node-1")).name == "node-1"


async def test_get_of_what_is_not_there_raises_unless_there_is_a_default(pods):
    with pytest.raises(errors.NotFound, match='^pods "web-7" not found\n') as found:
        await pods.get("web-7", SPACE)
    assert found.value.details == {"name": "web-7", "kind": "pods"}
    assert (found.value.code, found.value.reason) == (404, "NotFound")
    assert found.value.__notes__ == ["asked: GET /api/v1/namespaces/shop/pods/web-7"]
    assert await pods.get("web-7", SPACE, default=None) is None
    assert await pods.get("web-7", SPACE, default="gone") == "gone"


async def test_a_missing_resource_is_never_the_default(client):
    with pytest.raises(UnknownResource, match="serves no resource 'v1/podz'; did you mean v1/pods"):
        await client.lister("v1/podz").get("a", SPACE, default=None)


async def test_names_and_namespaces_have_to_make_sense(client, pods):
    with pytest.raises(errors.BadRequest, match="v1/pods are in namespaces: say in which 'web-0' is"):
        await pods.get("web-0")
    with pytest.raises(errors.BadRequest, match="v1/nodes are not in namespaces: leave 'shop' out"):
        await client.lister("v1/nodes").get("node-0", SPACE)
    with pytest.raises(errors.BadRequest, match="v1/nodes are not in namespaces: leave 'shop' out"):
        await client.lister("v1/nodes").list(SPACE)
    for name in ("", "a/b/c", "..", "shop/"):
        with pytest.raises(errors.BadRequest, match="is not the name of an object"):
            await pods.get(name)
    for namespace in ("..", ".", "a/b"):
        with pytest.raises(errors.BadRequest, match="is not the name of a namespace"):
            await pods.get("web-0", namespace)
        with pytest.raises(errors.BadRequest, match="is not the name of a namespace"):
            await pods.list(namespace)


# -- several -------------------------------------------------------------------------------------------------


async def test_list_gives_objects_of_one_state_in_order(client, pods):
    found = await pods.list(SPACE)
    assert [pod.name for pod in found] == sorted(PODS)
    assert [pod.kind for pod in found] == ["Pod"] * 3
    assert found[0].apiVersion == "v1"
    assert [pod.name for pod in found[1:]] == ["web-0", "web-1"]
    assert len(found) == len(found.items) == 3
    assert int(found.resource_version) >= int(found[0].resource_version)
    assert found.continue_token == ""
    assert [pod.key for pod in await pods.list()] == [f"shop/{name}" for name in sorted(PODS)]
    assert len(await pods.list("elsewhere")) == 0


async def test_selectors_are_the_servers(pods):
    names = lambda found: [obj.name for obj in found]  # noqa: E731
    assert names(await pods.list(label_selector="app=web")) == ["web-0", "web-1"]
    assert names(await pods.list(label_selector="app notin (web)")) == ["db-0"]
    assert names(await pods.list(field_selector="spec.nodeName=node-0")) == ["web-0"]
    assert names(await pods.list(SPACE, label_selector="app=web", field_selector="spec.nodeName=node-1")) == [
        "web-1"
    ]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"label_selector": "app in web"}, r"found 'web' expected: '\('"),
        ({"field_selector": "spec.nodeName"}, "invalid selector: 'spec.nodeName'"),
        ({"field_selector": "spec.nope=1"}, "spec.nope"),
        ({"not_older_than": "soon"}, "not_older_than: 'soon' is not a resource version"),
        ({"not_older_than": -1}, "not_older_than: '-1' is not a resource version"),
        ({"limit": 0}, "limit is 0: expected at least 1"),
        ({"timeout_s": 0}, "timeout_s is 0: expected seconds, more than 0"),
    ],
)
async def test_what_makes_no_sense_is_refused(pods, selection, message):
    with pytest.raises(errors.BadRequest, match=message):
        await pods.list(**selection)


async def test_a_misspelled_selector_does_not_select_everything(pods):
    for call in (pods.list, pods.count, lambda **given: pods.by_index("spec.nodeName", "node-0", **given)):
        with pytest.raises(
            TypeError, match="no parameter is called lable_selector; there are field_selector, label"
        ):
            await call(lable_selector="app=web")


async def test_pages_are_of_one_state(client):
    maps = client.lister("v1/configmaps", SPACE)
    try:
        version, sizes, names = None, [], []
        async for page in maps.pages(limit=2):
            if version is None:
                # Neither what is added nor what is deleted meanwhile is seen.
                await client.run(create, "v1/configmaps", "c9")
            version = version or page.resource_version
            assert page.resource_version == version
            sizes.append(len(page))
            names += [each.name for each in page]
    finally:
        await client.run(delete, "v1/configmaps", "c9")
    assert sizes == [2, 2, 1]
    assert names == [f"c{number}" for number in range(len(COLORS))]


async def test_one_page_can_be_asked_for_and_the_next(client):
    maps = client.lister("v1/configmaps", SPACE)
    first = await maps.list(limit=3)
    assert [each.name for each in first] == ["c0", "c1", "c2"]
    assert first.continue_token
    assert first.remaining == 2
    rest = await maps.list(limit=3, continue_token=first.continue_token)
    assert [each.name for each in rest] == ["c3", "c4"]
    assert rest.continue_token == ""


async def test_objects_come_one_by_one(client):
    maps = client.lister("v1/configmaps")
    assert [each.name async for each in maps.objects(SPACE, limit=2, label_selector="even=True")] == [
        "c0",
        "c2",
        "c4",
    ]
    async for each in maps.objects(SPACE, limit=1):
        assert each.name == "c0"
        break


async def test_a_continue_token_that_is_none_is_refused(pods):
    with pytest.raises(errors.ShoalError) as found:
        await pods.list(continue_token="nonsense")
    assert found.value.code in (400, 410)


# -- indexes and numbers -------------------------------------------------------------------------------------


async def test_by_index_takes_labels_and_selectable_fields(client, pods):
    assert [pod.name for pod in await pods.by_index("metadata.labels[app]", "web")] == ["web-0", "web-1"]
    assert [pod.name for pod in await pods.by_index("spec.nodeName", "node-1", SPACE)] == ["db-0", "web-1"]
    narrowed = await pods.by_index("spec.nodeName", "node-1", label_selector="app=db")
    assert [pod.name for pod in narrowed] == ["db-0"]
    assert len(await pods.by_index("spec.nodeName", "a,b=c\\d")) == 0


async def test_by_index_takes_what_the_settings_of_a_shoal_declare(client):
    maps = client.lister("v1/configmaps", SPACE)
    if client.through_shoal:
        assert [each.name for each in await maps.by_index("data.color", "red")] == ["c1", "c2", "c3"]
    else:
        with pytest.raises(
            errors.BadRequest, match=r"cannot be looked up by data\.color: .*indexed_fields: "
        ):
            await maps.by_index("data.color", "red")
    with pytest.raises(
        errors.BadRequest, match=r"v1/configmaps cannot be looked up by data\.size: .*add_index"
    ):
        await maps.by_index("data.size", "3")


async def test_counts(client, pods):
    maps = client.lister("v1/configmaps")
    assert await maps.count(SPACE) == len(COLORS)
    assert await maps.count() == len(COLORS)
    assert await maps.count("elsewhere") == 0
    assert await maps.count(label_selector="even=False") == 2
    assert await pods.count(SPACE, field_selector="spec.nodeName=node-1") == 2
    counted = await pods.count()
    assert counted == 3
    assert int(counted.resource_version) > 0
    assert counted.freshness.from_shoal == client.through_shoal


async def test_group_by(client, pods):
    maps = client.lister("v1/configmaps")
    assert list((await pods.group_by("metadata.labels[app]")).items()) == [("web", 2), ("db", 1)]
    assert await pods.group_by("metadata.labels[tier]") == {"": 3}
    assert await pods.group_by("metadata.namespace") == {SPACE: 3}
    assert await pods.group_by("spec.nodeName", SPACE) == {"node-0": 1, "node-1": 2}
    assert await pods.group_by("spec.hostNetwork") == {"false": 3}
    colors = await maps.group_by("data.color", label_selector="even=True")
    assert list(colors.items()) == [("green", 2), ("red", 1)]
    assert colors.freshness.from_shoal == client.through_shoal
    with pytest.raises(errors.BadRequest, match="expected a path"):
        await pods.group_by("")


async def test_a_shoal_groups_by_what_it_has_an_index_of(client):
    maps = client.lister("v1/configmaps", SPACE)
    if client.through_shoal:
        with pytest.raises(errors.BadRequest, match=r"cannot group by 'data\.n'.*follow\.indexed_fields"):
            await maps.group_by("data.n")
    else:
        assert await maps.group_by("data.n") == {str(number): 1 for number in range(len(COLORS))}


@pytest.mark.parametrize(
    "path",
    [
        "spec.containers",
        "spec.containers.image",
        "spec.containers[0].image",
        "spec.nodeSelector[disk]",
        "metadata.annotations[x]",
        "metadata.labels[",
        "metadata.labels[]",
        "metadata.labels",
        "metadata.labels.app",
        "spec..nodeName",
        " spec.nodeName",
    ],
)
async def test_no_objects_are_grouped_by_what_is_no_value(client, pods, path):
    """An API server's objects were counted as if none of them had such a path."""
    with pytest.raises(errors.BadRequest, match=f"cannot group by {re.escape(repr(path))}"):
        await pods.group_by(path, SPACE)


# -- freshness -----------------------------------------------------------------------------------------------


async def test_a_shoal_says_what_its_answers_rest_on(client, pods):
    found = await pods.list(SPACE)
    if not client.through_shoal:
        assert found.freshness == Freshness()
        assert (found.frontier, found.age_s, found.shards) == ("", None, ())
        return
    assert found.frontier == found.resource_version
    assert found.age_s is None or found.age_s >= 0
    assert set(found.shards) <= {"shard-0", "shard-1"}
    assert found.shards
    assert (await pods.list(SPACE, partial=True)).freshness.missing == ""


async def test_what_was_written_is_read_with_its_version(client):
    maps = client.lister("v1/configmaps", SPACE)
    version = await client.run(create, "v1/configmaps", "written")
    try:
        assert (await maps.get("written", not_older_than=version)).resource_version == version
        assert "written" in [each.name for each in await maps.list(not_older_than=int(version))]
        assert await maps.count(not_older_than=version) == len(COLORS) + 1
        pages = [page async for page in maps.pages(limit=2, not_older_than=version)]
        assert sum(map(len, pages)) == len(COLORS) + 1
    finally:
        await client.run(delete, "v1/configmaps", "written")


async def test_a_version_that_is_never_reached_is_waited_for_until_the_deadline(pods):
    with pytest.raises(errors.TimedOut) as found:
        await pods.list(not_older_than=10**9, timeout_s=0.5)
    assert "Too large resource version" in found.value.message or "within 0.5 s" in found.value.message


# -- discovery -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["v1/pods", "pods", "po", "Pod", "pod", "v1/pod", Resource("", "v1", "pods")]
)
async def test_resources_are_found_by_all_their_names(client, text):
    assert (await client.lister(text).resource_type()).resource == Resource("", "v1", "pods")
    assert await client.lister(text).count() == 3


async def test_discovery_tells_what_is_served(client):
    served = await client.discovery.resources()
    assert {"Pod", "ConfigMap", "Deployment"} <= {known.kind for known in served}
    assert (await client.discovery.resolve("deploy")).resource == Resource("apps", "v1", "deployments")
    with pytest.raises(errors.BadRequest, match="names no resource: expected a form like v1/pods"):
        await client.discovery.resolve("a/b/c/d")
    with pytest.raises(UnknownResource) as found:
        await client.discovery.resolve("apps/v1/deploments")
    assert "apps/v1/deployments" in found.value.close


# -- life ----------------------------------------------------------------------------------------------------


async def test_a_closed_client_says_so(client, pods):
    await client.aclose()
    await client.aclose()
    with pytest.raises(errors.ConnectionFailed, match="client.* was closed"):
        await pods.list()
