"""examples/controller.py in processes of its own: whatever is killed, in the end every Page has its ConfigMap.

The controller's user may write what it has to and, where it reads through Shoal, list and watch nothing: every object
it knows of came from the shards. Two copies run; one leads. People go on changing things, ConfigMaps included, while
shards and the leading controller are killed with SIGKILL.
"""

import asyncio
import html
import random
import signal
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import psutil
import pytest
import yaml
from support.commands import Command, environment
from support.installation import Running, until

import shoal
from shoal import errors
from shoal.cluster.simulator.write_kubeconfig import write_kubeconfig

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CONTROLLER = (sys.executable, EXAMPLES / "controller.py")
KEYS = [f"{space}/page-{number}" for space in ("default", "kitchen") for number in range(8)]
PAGES, MAPS, LEASES = "example.com/v1/pages", "v1/configmaps", "coordination.k8s.io/v1/leases"
FOLLOWED = ["pages.example.com", "v1/configmaps", "v1/namespaces"]
FOLLOWING = {
    "verbs": ["get", "list", "watch"],
    "resources": ["pages", "configmaps", "namespaces", "customresourcedefinitions"],
}
WRITING = (
    {"verbs": ["get"], "resources": ["pages"]},
    {"verbs": ["patch"], "resources": ["pages/status"]},
    {"verbs": ["create", "update", "delete"], "resources": ["configmaps"]},
    {"verbs": ["get", "create", "update"], "resources": ["leases"]},
)
USERS = [
    {"name": "follower", "token": "token-of-follower", "rules": [FOLLOWING]},
    {"name": "writer", "token": "token-of-writer", "rules": [*WRITING]},
    {"name": "alone", "token": "token-of-alone", "rules": [FOLLOWING, *WRITING]},
]
SEED = 7
PACE_S = 0.05


class Cluster:
    """An embedded API server, its users' kubeconfigs, and an administrator."""

    def __init__(self, url, folder, client):
        self.url = url
        self.folder = folder
        self.client = client

    def kubeconfig(self, user):
        path = self.folder / f"kubeconfig-{user}"
        write_kubeconfig(path, self.url, token=f"token-of-{user}")
        return path

    def controller(self, user, *gateway):
        env = environment(self.folder, KUBECONFIG=str(self.kubeconfig(user)))
        return Command(*gateway, folder=self.folder, env=env, program=CONTROLLER)

    async def leader(self, among):
        """The copy that leads, once one of those that live does."""

        async def leads():
            lease = await self.client.lister(LEASES, "default").get("pages", default=None)
            held_by = lease.get("spec", "holderIdentity", default="") if lease is not None else ""
            return next((one for one in among if held_by.endswith(f"-{one.process.pid}")), None)

        return await until("one of the copies leads", leads)

    async def holder(self):
        """Who has the lease; "" if it was given back."""
        lease = await self.client.lister(LEASES, "default").get("pages")
        return lease.spec.holderIdentity

    async def right(self):
        """Every Page has its ConfigMap and says so, and there is no other.

        Raises:
            ShoalError: names what is not so.
        """
        pages = {page.key: page for page in await self.client.lister(PAGES).list()}
        maps = {
            held.key: held for held in await self.client.lister(MAPS).list(label_selector="example.com/page")
        }
        wrong = [f"{key} is one too many" for key in maps.keys() - pages.keys()]
        for key, page in pages.items():
            held = maps.get(key)
            if held is None:
                wrong.append(f"{key} has none")
            elif held.data != {"index.html": f"<h1>{html.escape(page.spec.title)}</h1>\n"}:
                wrong.append(f"{key} has another text")
            elif [owner.uid for owner in held.metadata.ownerReferences] != [page.uid]:
                wrong.append(f"{key} is of another page")
            elif page.get("status", "observedGeneration") != page.metadata.generation:
                wrong.append(f"{key} does not say so")
        if wrong:
            raise errors.ShoalError("; ".join(wrong))
        return True


@asynccontextmanager
async def running(folder):
    users = folder / "users.yaml"
    users.write_text(yaml.safe_dump(USERS))
    with Command("apiserver", "--token", "token-of-admin", "--users", users, folder=folder) as source:
        source.says(r"\n")
        url = msgspec.json.decode(source.stdout)["url"]
        async with shoal.local(url=url, token="token-of-admin") as client:
            definition = yaml.safe_load((EXAMPLES / "pages.yaml").read_text())
            await client.writer("customresourcedefinitions").create(definition)
            await client.writer("v1/namespaces").create({"metadata": {"name": "kitchen"}})
            # One that is nobody's business, and one whose page went while nobody looked.
            maps = client.writer(MAPS, "default")
            await maps.create({"metadata": {"name": "other"}, "data": {"a": "b"}})
            await maps.create({"metadata": {"name": "orphan", "labels": {"example.com/page": "orphan"}}})
            yield Cluster(url, folder, client)


class Changes:
    """What people do: they make, change and delete pages, and tamper with what is made of them."""

    def __init__(self, client):
        self.made = 0
        self._over = False
        self._client = client
        self._pages, self._maps = client.writer(PAGES), client.writer(MAPS)
        self._rng = random.Random(SEED)
        self._task = asyncio.create_task(self._go_on(), name="changes")

    async def more(self, count):
        """Waits until so many more have been made."""
        wanted = self.made + count

        async def enough():
            if self._task.done():
                self._task.result()
            return self.made >= wanted

        await until(f"{count} more changes", enough)

    async def end(self):
        """No more of them. The last ones leave something of each kind to be done."""
        self._over = True
        await self._task
        for number, key in enumerate(KEYS):
            page = await self._client.lister(PAGES).get(key, default=None) or await self._make(key, "the end")
            match number % 4:
                case 0:
                    await self._pages.delete(page)
                case 1:
                    await self._make_again(page)
                case 2:
                    await self._maps.delete(key, missing_ok=True)
                case _:
                    await self._pages.patch(page, {"spec": {"title": "the very end"}})

    async def _go_on(self):
        while not self._over:
            key = self._rng.choice(KEYS)
            # The controller may be there in between.
            with suppress(errors.NotFound, errors.AlreadyExists, errors.Conflict):
                await self._change(key, self._rng.random())
            self.made += 1
            await asyncio.sleep(PACE_S)

    async def _change(self, key, chance):
        page = await self._client.lister(PAGES).get(key, default=None)
        title = f"<{self.made}> & more"
        if page is None:
            await self._make(key, title)
        elif chance < 0.5:
            await self._pages.patch(page, {"spec": {"title": title}})
        elif chance < 0.65:
            await self._pages.delete(page)
        elif chance < 0.8:
            await self._make_again(page)
        elif chance < 0.9:
            await self._maps.delete(key)
        else:
            await self._maps.patch(key, {"data": {"index.html": "defaced", "more": "than there was"}})

    async def _make(self, key, title):
        namespace, _, name = key.partition("/")
        return await self._pages.create({"metadata": {"name": name}, "spec": {"title": title}}, namespace)

    async def _make_again(self, page):
        """Another page, that looks like the one before; mostly before anybody has noticed."""
        await self._pages.delete(page)
        await self._pages.create({"metadata": {"name": page.name}, "spec": page.spec}, page.namespace)


async def kill_shard(installation, partition):
    """Kills the process of the shard that has the partition, once there is one."""

    async def living():
        pid = await installation.pid_of(await installation.shard_of(partition))
        # What the shards say of themselves may be a second old, and a shard that died before then replaced.
        return pid if psutil.pid_exists(pid) else None

    psutil.Process(await until(f"a shard has {partition}", living)).kill()


async def kill(copy):
    assert copy.process.poll() is None, copy.stderr
    copy.process.kill()
    await asyncio.to_thread(copy.process.wait)


@pytest.fixture
def place(folder, tmp_path_factory):
    return tmp_path_factory.mktemp("controller")


async def test_it_survives_the_death_of_shards_and_of_itself(place):
    settings = place / "shoal.yaml"
    settings.write_text(yaml.safe_dump({"shards": 2, "follow": {"include": FOLLOWED}}))
    async with running(place) as cluster:
        up = (
            "up",
            "--kubeconfig",
            cluster.kubeconfig("follower"),
            "--config",
            settings,
            "--listen",
            "127.0.0.1:0",
        )
        with Command(*up, folder=place) as command:
            gateway = command.says(r"Shoal answers at (http://127.0.0.1:\d+)")[1]
            installation = Running(gateway, cluster.url)
            await until("Shoal is ready", installation.ready)
            with (
                cluster.controller("writer", gateway) as first,
                cluster.controller("writer", gateway) as second,
            ):
                copies = [first, second]
                changes = Changes(cluster.client)
                await changes.more(20)
                await cluster.leader(copies)
                await kill_shard(installation, "example.com/v1/pages")
                await changes.more(20)
                dead = await cluster.leader(copies)
                await kill(dead)
                copies.remove(dead)
                await changes.more(20)
                with cluster.controller("writer", gateway) as again:
                    copies.append(again)
                    await kill_shard(installation, "v1/configmaps")
                    dead = await cluster.leader(copies)
                    await kill(dead)
                    copies.remove(dead)
                    await changes.more(20)
                    await cluster.leader(copies)
                    await changes.more(20)
                    await changes.end()
                    await until("everything is as it should be", cluster.right)
                    await until("Shoal is ready again", installation.ready)
                    assert await cluster.right()
                    assert (await cluster.client.lister(MAPS).get("default/other")).data == {"a": "b"}
                    for copy in copies:
                        assert copy.process.poll() is None, copy.stderr
                        assert "parked" not in copy.stderr
                        assert "Traceback" not in copy.stderr
                    assert changes.made >= 100


async def test_straight_from_the_api_server_it_gives_way_when_it_is_told_to_end(place):
    async with running(place) as cluster:
        with cluster.controller("alone") as first:
            changes = Changes(cluster.client)
            await cluster.leader([first])
            await changes.more(20)
            await kill(first)
            with cluster.controller("alone") as second:
                await changes.more(20)
                await cluster.leader([second])
                await changes.end()
                await until("everything is as it should be", cluster.right)
                assert "Traceback" not in second.stderr
                second.ends(signal.SIGINT)
                assert await cluster.holder() == "", "given back, so that nobody has to wait"
        with cluster.controller("alone") as third:
            await cluster.leader([third])
            assert third.ends(signal.SIGTERM) == 0, "as Kubernetes ends a pod"
            assert await cluster.holder() == ""
            assert "Traceback" not in third.stderr
