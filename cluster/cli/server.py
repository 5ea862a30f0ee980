"""A running Shoal as the commands ask it: over HTTP, through the same connection that follows API servers.

Also resolves what people type (``po``, ``deploy``, ``Deployment``, ``deployments.apps``, ``widgets.v1.example.com``)
to a resource, by the gateway's own discovery and with kubectl's precedence: the order of discovery.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from ...shards.api.client import HttpConnection, PlainCredentials, fetch
from ...shards.api.requests import DISCOVERY_V2, JSON, ApiRequest
from ...shards.model.errors import BadRequest, ConnectionFailed, Garbage, NotFound, ShoalError, Upstream
from ...shards.model.resources import Resource, ResourceType
from ..gateway.status import InstallationStatus
from ..settings import DEFAULT_LISTEN

server_option: Callable[[Any], Any] = click.option(
    "--server",
    envvar="SHOAL_SERVER",
    default=f"http://{DEFAULT_LISTEN}",
    show_default=True,
    help="URL of a running Shoal; also $SHOAL_SERVER.",
)


class Server(AbstractAsyncContextManager["Server"]):
    """One gateway."""

    def __init__(self, url: str) -> None:
        """Nothing is asked yet. Raises BadRequest if it is no URL."""
        _check_url(url)
        self.url = url.rstrip("/")
        self._connection = HttpConnection(PlainCredentials(self.url))

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

    async def put_json(self, path: str, document: Any) -> None:
        """Sends a document; only the embedded API server's controls take one. Raises as `fetch`."""
        headers = (("Accept", JSON), ("Content-Type", JSON))
        await self._ask(ApiRequest("PUT", path, headers=headers, body=msgspec.json.encode(document)))

    async def _ask(self, request: ApiRequest) -> bytes:
        try:
            return (await fetch(self._connection, request))[1]
        except ConnectionFailed as error:
            raise ShoalError(
                f"no Shoal answers at {self.url} ({error}). Start one with `shoal up`, or name it with --server."
            ) from error
        except Upstream as error:
            status = error.upstream_status
            reason = f" ({status['reason']})" if status and status.get("reason") else ""
            message = status["message"] if status and status.get("message") else str(error)
            raise ShoalError(f"from server{reason}: {message}") from error

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


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        # NB: reading the port raises if it is no number.
        good = (
            parts.scheme in ("http", "https")
            and parts.hostname
            and parts.port != 0
            and parts.netloc[-1] != ":"
        )
    except ValueError:
        good = False
    if not good:
        raise BadRequest(f"server {url!r}: expected a URL such as http://{DEFAULT_LISTEN}")


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
