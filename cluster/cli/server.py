"""A running Shoal as the commands ask it: over HTTP, through the same connection that follows API servers.

Also resolves what people type (``po``, ``deploy``, ``Deployment``, ``deployments.apps``, ``widgets.v1.example.com``)
to a resource, by the gateway's own discovery and with kubectl's precedence: the order of discovery.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import msgspec

from ...shards.api.client import fetch
from ...shards.api.requests import DISCOVERY_V2, JSON, ApiRequest
from ...shards.model.errors import ConnectionFailed, Garbage, NotFound, ShoalError, Upstream
from ...shards.model.resources import Resource, ResourceType
from ..gateway.status import InstallationStatus
from .connecting import Target
from .refusals import refused, unreachable


class Server(AbstractAsyncContextManager["Server"]):
    """One gateway, or another API server."""

    def __init__(self, target: Target | str) -> None:
        """Nothing is asked yet; a text is the URL of a server that asks nobody who they are.

        Raises:
            BadRequest: it is no URL.
            SettingsError: a certificate cannot be used.
        """
        self._target = Target(target) if isinstance(target, str) else target
        self.url = self._target.where.rstrip("/")
        self._connection = self._target.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.aclose()

    async def fetch(self, path: str, query: tuple[tuple[str, str], ...] = (), *, accept: str = JSON) -> bytes:
        """The body of a GET.

        Raises:
            ShoalError: nothing answers at the URL, or it answered with an error; in kubectl's words.
        """
        return await self._ask(ApiRequest("GET", path, query, (("Accept", accept),)))

    async def post_json(self, path: str, document: Any) -> bytes:
        """Sends a document; what is answered. Raises as `fetch`."""
        headers = (("Accept", JSON), ("Content-Type", JSON))
        return await self._ask(ApiRequest("POST", path, headers=headers, body=msgspec.json.encode(document)))

    async def put_json(self, path: str, document: Any) -> None:
        """Sends a document; only the embedded API server's controls take one. Raises as `fetch`."""
        headers = (("Accept", JSON), ("Content-Type", JSON))
        await self._ask(ApiRequest("PUT", path, headers=headers, body=msgspec.json.encode(document)))

    async def _ask(self, request: ApiRequest) -> bytes:
        try:
            return (await fetch(self._connection, request))[1]
        except ConnectionFailed as error:
            raise ShoalError(unreachable(self._target, error)) from error
        except Upstream as error:
            status = error.upstream_status
            reason = f" ({status['reason']})" if status and status.get("reason") else ""
            message = status["message"] if status and status.get("message") else str(error)
            what = refused(self._target, error.http_status, request.path, message)
            raise ShoalError(f"from server{reason}: {what}") from error

    async def readiness(self) -> tuple[bool, str]:
        """Whether it is ready, and what it says about that; answered to everybody. Raises ConnectionFailed."""
        async with self._connection.open(ApiRequest("GET", "/readyz")) as response:
            return response.status == 200, (await response.read()).decode(errors="replace")

    async def fetch_json(
        self, path: str, query: tuple[tuple[str, str], ...] = (), *, accept: str = JSON
    ) -> Any:
        """The parsed body of a GET. Raises as `fetch`, and Garbage if it is not JSON."""
        body = await self.fetch(path, query, accept=accept)
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise Garbage(f"{self.url}{path} did not answer JSON: is it a Shoal? ({error})") from error

    async def status(self) -> InstallationStatus:
        """What the installation reports about itself. Raises as `fetch_json`."""
        body = await self.fetch("/shoal/v1/status")
        try:
            return msgspec.json.decode(body, type=InstallationStatus)
        except msgspec.DecodeError as error:
            raise Garbage(f"{self.url} is not a Shoal of this version: {error}") from error

    async def resource_types(self) -> list[ResourceType]:
        """Everything the gateway serves, in the order of its discovery."""
        found = []
        for path in ("/api", "/apis"):
            document = await self.fetch_json(path, accept=DISCOVERY_V2)
            for group in document.get("items", ()):
                name = group.get("metadata", {}).get("name", "")
                for version in group.get("versions", ()):
                    found += [
                        _resource_type(name, version["version"], entry) for entry in version["resources"]
                    ]
        return found


def _resource_type(group: str, version: str, entry: dict[str, Any]) -> ResourceType:
    return ResourceType(
        resource=Resource(group, version, entry["resource"]),
        kind=entry["responseKind"]["kind"],
        namespaced=entry["scope"] == "Namespaced",
        singular=entry.get("singularResource", ""),
        short_names=tuple(entry.get("shortNames", ())),
        categories=tuple(entry.get("categories", ())),
        verbs=tuple(entry.get("verbs", ())),
    )


def resolve(typed: str, known: list[ResourceType]) -> ResourceType:
    """The resource somebody means.

    Raises:
        NotFound: none, in kubectl's words.
    """
    word = typed.lower()
    for candidate in known:
        resource = candidate.resource
        names = {resource.name, candidate.singular, candidate.kind.lower(), *candidate.short_names}
        if word in names or any(
            word in (f"{name}.{resource.group}", f"{name}.{resource.version}.{resource.group}")
            for name in names
            if name
        ):
            return candidate
    raise NotFound(
        f'the server doesn\'t have a resource type "{typed}"; `shoal api-resources` lists what there is'
    )
