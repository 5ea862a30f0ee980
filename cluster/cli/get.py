"""``shoal get``: objects from a running Shoal, in kubectl's manner.

Lists are read in pages, as kubectl does, so that no answer is too large for one; all pages are one state. What is
printed is kubectl's form: a list's objects each with kind and apiVersion, JSON and YAML indented for people.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import click
import msgspec

from ...shards.api.requests import JSON
from ...shards.model.errors import BadRequest, Garbage
from ...shards.model.resources import ResourceType
from ..serving.documents import to_yaml
from .connecting import Target, server_options
from .render import columns_text
from .server import Server, resolve

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
CHUNK = "500"
"""Objects a page, kubectl's --chunk-size."""


@click.command(short_help="Show objects of TYPE, or the one called NAME.")
@click.argument("type_", metavar="TYPE")
@click.argument("name", required=False)
@click.option("-n", "--namespace", help="Namespace to look in; default: default.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Look in all namespaces.")
@click.option("-l", "--selector", default="", help="Label selector, such as 'app=web,tier in (a,b),!legacy'.")
@click.option("--field-selector", default="", help="Field selector, such as spec.nodeName=node-1.")
@click.option("--no-headers", is_flag=True, help="Leave the header line out.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml", "name"]),
    default="table",
    show_default=True,
    help="wide adds columns; json and yaml are the objects themselves.",
)
@server_options
def get(**options: Any) -> None:
    """Show objects of TYPE, or the one called NAME.

    TYPE is a plural, singular, short name or kind, with its group where that is needed: po, pod, pods, deploy,
    deployments.apps, widgets.v1.example.com. TYPE/NAME is the same as TYPE NAME.
    """
    asyncio.run(_get(**options))


async def _get(
    *,
    type_: str,
    name: str | None,
    namespace: str | None,
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    no_headers: bool,
    output: str,
    server: Target,
) -> None:
    type_, name = _split(type_, name)
    if name and (selector or field_selector or all_namespaces):
        raise BadRequest("a NAME goes neither with selectors nor with --all-namespaces")
    if namespace and all_namespaces:
        raise BadRequest("--namespace and --all-namespaces exclude each other")
    async with Server(server) as shoal:
        kind = resolve(type_, await shoal.resource_types())
        where = None if all_namespaces or not kind.namespaced else namespace or "default"
        selectors = (("labelSelector", selector), ("fieldSelector", field_selector))
        question = _Question(shoal, kind, where, name, tuple(pair for pair in selectors if pair[1]))
        match output:
            case "json" | "yaml":
                document = msgspec.json.encode(await question.document())
                text = (
                    to_yaml(document) if output == "yaml" else msgspec.json.format(document, indent=4) + b"\n"
                )
                click.echo(text, nl=False)
            case "name":
                await question.print_names()
            case _:
                with_namespace = all_namespaces and kind.namespaced
                await question.print_table(
                    wide=output == "wide", with_namespace=with_namespace, headers=not no_headers
                )


def _split(type_: str, name: str | None) -> tuple[str, str | None]:
    """Reads TYPE/NAME."""
    if "," in type_:
        raise BadRequest(f"{type_!r} names several types; ask for one at a time")
    if "/" not in type_:
        return type_, name
    type_, _, found = type_.partition("/")
    if name or not type_ or not found:
        raise BadRequest("expected TYPE, TYPE NAME or TYPE/NAME")
    return type_, found


class _Question:
    """What is asked for, and its answer in each of the forms."""

    def __init__(
        self,
        server: Server,
        kind: ResourceType,
        namespace: str | None,
        name: str | None,
        selectors: tuple[tuple[str, str], ...],
    ) -> None:
        self._server = server
        self._kind = kind
        self._namespace = namespace
        self._name = name
        self._selectors = selectors

    async def document(self) -> dict[str, Any]:
        """The object, or a List of all of them."""
        if self._name:
            return await self._one(JSON)
        kind = self._kind
        identity = {"apiVersion": kind.resource.api_version, "kind": kind.kind}
        items = [{**identity, **item} async for page in self._pages(JSON) for item in page.get("items") or ()]
        return {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}

    async def print_names(self) -> None:
        """``pod/web-0``, a line each."""
        group = self._kind.resource.group
        prefix = (self._kind.singular or self._kind.kind.lower()) + (f".{group}" if group else "")
        if self._name:
            click.echo(f"{prefix}/{(await self._one(METADATA))['metadata']['name']}")
            return
        async for page in self._pages(METADATA_LIST):
            names = [f"{prefix}/{item['metadata']['name']}\n" for item in page.get("items") or ()]
            click.echo("".join(names), nl=False)

    async def print_table(self, *, wide: bool, with_namespace: bool, headers: bool) -> None:
        """Columns."""
        columns: list[dict[str, Any]] = []
        lines: list[list[str]] = []
        shown: list[int] = []
        pages = [await self._one(TABLE)] if self._name else [page async for page in self._pages(TABLE)]
        for table in pages:
            if not columns:  # later pages may come without
                columns = table.get("columnDefinitions") or []
                shown = [at for at, column in enumerate(columns) if wide or not column.get("priority")]
            for row in table.get("rows") or ():
                namespace = [row["object"]["metadata"].get("namespace", "")] if with_namespace else []
                lines.append(namespace + [_cell(row["cells"][at]) for at in shown])
        if not lines:
            where = f" in {self._namespace} namespace" if self._namespace else ""
            click.echo(f"No resources found{where}.", err=True)
            return
        names: Sequence[str] = [columns[at]["name"].upper() for at in shown]
        click.echo(
            columns_text([*(["NAMESPACE"] if with_namespace else []), *names] if headers else None, lines),
            nl=False,
        )

    async def _one(self, accept: str) -> dict[str, Any]:
        return await self._document(self._selectors, accept)

    async def _pages(self, accept: str) -> AsyncIterator[dict[str, Any]]:
        token = ""
        while True:
            query = (*self._selectors, ("limit", CHUNK), *((("continue", token),) if token else ()))
            page = await self._document(query, accept)
            yield page
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    async def _document(self, query: tuple[tuple[str, str], ...], accept: str) -> dict[str, Any]:
        path = self._kind.resource.path(self._namespace, self._name)
        document = await self._server.fetch_json(path, query, accept=accept)
        if not isinstance(document, dict):
            raise Garbage(f"{self._server.url}{path} did not answer an object: is it a Shoal?")
        return document


def _cell(value: Any) -> str:
    """As kubectl prints a cell: absent is ``<none>``, lists and maps are JSON."""
    if value is None:
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
