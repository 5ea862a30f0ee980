"""An API server with RBAC and a gateway in front of its copy, in virtual time: for asking both the same as somebody.

Everything but the network is real: the embedded server decides by the roles stored in it; two shards follow it with a
token of Shoal's own; the gateway asks it about tokens and permissions and passes writes on to it.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from support.apiserver import Caller, InProcessConnection, Lines, virtual_now

from shoal.cluster.gateway.assembly import Upstream, assemble
from shoal.cluster.gateway.settings import AuthenticationSettings
from shoal.cluster.query.routing import Routing
from shoal.cluster.settings import GatewaySettings
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings, User
from shoal.coordinator.coordinator import Coordinator
from shoal.coordinator.handle import LocalCoordinatorHandle
from shoal.coordinator.settings import CoordinatorSettings, FollowSettings
from shoal.shards.api.requests import ApiRequest
from shoal.shards.local import LocalShardProvider
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

RBAC = "/apis/rbac.authorization.k8s.io/v1"
API_GROUP = "rbac.authorization.k8s.io"
SHOAL = User(name="shoal", token="token-of-shoal", groups=("shoal",))
ROOT = User(name="root", token="token-of-root", groups=("system:masters",))
TOKENS = AuthenticationSettings(tokens=True, anonymous=True)
"""Like a kube-apiserver, which knows tokens and lets anonymous requests be judged."""


class Away(InProcessConnection):
    """Shoal's connection to the API server, with a token. `away` makes new requests fail."""

    def __init__(self, app: Any, token: str) -> None:
        super().__init__(app)
        self._token = token

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[Any]:
        headers = (*request.headers, ("Authorization", f"Bearer {self._token}"))
        known = ApiRequest(request.method, request.path, request.query, headers, request.body, request.stream)
        async with super().open(known) as response:
            yield response

    def reviews(self, kind: str) -> int:
        """How many reviews of a kind were asked."""
        return sum(request.path.endswith(f"/{kind}") for request in self.requests)


class Guarded:
    """Both, and ways to ask them."""

    def __init__(self, *users: User, settings: GatewaySettings | None = None, **simulator: Any) -> None:
        self.source = build_app(
            SimulatorSettings(seed=1, users=(SHOAL, ROOT, *users), rbac=True, **simulator), now=virtual_now
        )
        self.settings = settings or GatewaySettings(authentication=TOKENS)
        self.api = Caller(self.source)
        self.ours = Away(self.source, SHOAL.token)
        self.nobodys = InProcessConnection(self.source)

    @asynccontextmanager
    async def running(
        self, *, follow: tuple[str, ...] | FollowSettings = ("namespaces", "pods", "configmaps")
    ) -> AsyncIterator[Guarded]:
        """With the gateway ready to read."""
        await self.cluster_role(
            "follows", {"verbs": ["get", "list", "watch"], "apiGroups": ["*"], "resources": ["*"]}
        )
        await self.bind_cluster("follows", "follows", "User", "shoal")
        await self.bind_cluster("reviews", "system:auth-delegator", "User", "shoal")
        provider = LocalShardProvider(
            lambda shard_id: Shard(
                shard_id,
                connection=Away(self.source, SHOAL.token),
                permits=NoPermits(),
                settings=ShardSettings(),
                incarnation=shard_id,
                rng=random.Random(1),
            )
        )
        coordinator = Coordinator(
            connection=Away(self.source, SHOAL.token),
            provider=provider,
            settings=CoordinatorSettings(
                follow=follow if isinstance(follow, FollowSettings) else FollowSettings(include=follow)
            ),
            shard_count=2,
        )
        await coordinator.start()
        handle = LocalCoordinatorHandle(coordinator)
        routing = Routing(handle)
        following = asyncio.create_task(routing.run(), name="routing")
        self.app = assemble(
            routing, provider.handles.__getitem__, handle, Upstream(self.ours, self.nobodys), self.settings
        )
        self.gateway = Caller(self.app)
        try:
            async with asyncio.timeout(60):
                while (await self.gateway.ask("GET", "/readyz"))[0] != 200:
                    await asyncio.sleep(0.1)
            yield self
        finally:
            following.cancel()
            await self.app.aclose()
            await coordinator.stop()
            for shard in list(provider.handles):
                await provider.retire(shard)

    # -- writing ---------------------------------------------------------------------------------------------

    async def root(self, method: str, path: str, document: Any = None) -> Any:
        """Asks the API server as an administrator, who must succeed."""
        status, answer = await self.api.ask(method, path, document, headers=bearer(ROOT.token))
        assert status < 300, answer
        return answer

    async def cluster_role(self, name: str, *rules: Mapping[str, Any]) -> None:
        await self.root("POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": list(rules)})

    async def role(self, namespace: str, name: str, *rules: Mapping[str, Any]) -> None:
        path = f"{RBAC}/namespaces/{namespace}/roles"
        await self.root("POST", path, {"metadata": {"name": name}, "rules": list(rules)})

    async def bind_cluster(self, name: str, role: str, kind: str, subject: str, **more: str) -> None:
        await self.root(
            "POST", f"{RBAC}/clusterrolebindings", binding(name, "ClusterRole", role, kind, subject, **more)
        )

    async def bind(
        self,
        where: str,
        name: str,
        role: str,
        kind: str,
        subject: str,
        *,
        role_kind: str = "Role",
        **more: str,
    ) -> None:
        path = f"{RBAC}/namespaces/{where}/rolebindings"
        await self.root("POST", path, binding(name, role_kind, role, kind, subject, **more))

    # -- asking ----------------------------------------------------------------------------------------------

    async def both(self, method: str, path: str, token: str = "", **headers: str) -> tuple[Any, Any]:
        """What the API server and the gateway answer to the same request."""
        given = {**(bearer(token) if token else {}), **headers}
        return (
            await self.api.ask(method, path, headers=given),
            await self.gateway.ask(method, path, headers=given),
        )

    @asynccontextmanager
    async def watch(self, path: str, token: str, **headers: str) -> AsyncIterator[Lines]:
        """A watch through the gateway."""
        bare, _, query = path.partition("?")
        pairs = (("watch", "1"), *parse_qsl(query, keep_blank_values=True))
        given = (("Accept", "application/json"), *bearer(token).items(), *headers.items())
        request = ApiRequest("GET", bare, pairs, given, stream=True)
        async with self.gateway.connection.open(request) as response:
            assert response.status == 200, json.loads(await response.read())
            yield Lines(response)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def binding(name: str, role_kind: str, role: str, kind: str, subject: str, **more: str) -> Any:
    group = {} if kind == "ServiceAccount" else {"apiGroup": API_GROUP}
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": API_GROUP, "kind": role_kind, "name": role},
        "subjects": [{"kind": kind, "name": subject, **group, **more}],
    }
