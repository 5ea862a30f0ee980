"""``shoal get`` and ``shoal api-resources``: reading from a running Shoal, in kubectl's manner."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click
import msgspec
from rich.console import Console

from ...shards.api.requests import JSON
from ...shards.model.errors import BadRequest
from ...shards.model.resources import ResourceType
from .render import plain_table
from .server import Server, resolve, server_option

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
YAML = "application/yaml"


@click.command()
@click.argument("type_", metavar="TYPE")
@click.argument("name", required=False)
@click.option("-n", "--namespace", help="Namespace to look in; default: default.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Look in all namespaces.")
@click.option("-l", "--selector", default="", help="Label selector: app=web,tier in (a,b),!legacy.")
@click.option("--field-selector", default="", help="Field selector: spec.nodeName=node-1.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml", "name"]),
    default="table",
    show_default=True,
)
@server_option
def get(**options: Any) -> None:
    """Show objects of TYPE, or the one called NAME."""
    asyncio.run(_get(**options))


async def _get(
    *,
    type_: str,
    name: str | None,
    namespace: str | None,
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    output: str,
    server: str,
) -> None:
    if name and (selector or field_selector or all_namespaces):
        raise BadRequest("a NAME goes neither with selectors nor with --all-namespaces")
    async with Server(server) as shoal:
        kind = resolve(type_, await shoal.resource_types())
        where = None if all_namespaces or not kind.namespaced else namespace or "default"
        selectors = (("labelSelector", selector), ("fieldSelector", field_selector))
        query = tuple((key, value) for key, value in selectors if value)
        path = kind.resource.path(where, name)
        match output:
            case "json" | "yaml":
                body = await shoal.fetch(path, query, accept=YAML if output == "yaml" else JSON)
                sys.stdout.write(body.decode())
            case "name":
                _print_names(kind, await shoal.fetch_json(path, query))
            case _:
                table = await shoal.fetch_json(path, query, accept=TABLE)
                _print_table(table, wide=output == "wide", with_namespace=all_namespaces and kind.namespaced, where=where)


def _print_names(kind: ResourceType, document: dict[str, Any]) -> None:
    group = kind.resource.group
    prefix = (kind.singular or kind.kind.lower()) + (f".{group}" if group else "")
    for item in document.get("items", [document]):
        click.echo(f"{prefix}/{item['metadata']['name']}")


def _print_table(table: dict[str, Any], *, wide: bool, with_namespace: bool, where: str | None) -> None:
    rows = table.get("rows") or []
    if not rows:
        click.echo(f"No resources found{f' in {where} namespace' if where else ''}.", err=True)
        return
    shown = [at for at, column in enumerate(table["columnDefinitions"]) if wide or not column.get("priority")]
    columns = [table["columnDefinitions"][at]["name"] for at in shown]
    lines = [[row["cells"][at] for at in shown] for row in rows]
    if with_namespace:
        columns.insert(0, "Namespace")
        for row, line in zip(rows, lines, strict=True):
            line.insert(0, row["object"]["metadata"].get("namespace", ""))
    _console().print(plain_table(columns, [[_cell(cell) for cell in line] for line in lines]))


def _cell(value: Any) -> str:
    """As kubectl prints a cell: absent is ``<none>``, lists and maps are JSON."""
    if value is None:
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _console() -> Console:
    # A pipe has no width; tables must come out whole there.
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 10_000, soft_wrap=True)


@click.command("api-resources")
@click.option("--namespaced/--not-namespaced", default=None, help="Only resources that are (not) namespaced.")
@click.option("-o", "--output", type=click.Choice(["table", "name", "json"]), default="table", show_default=True)
@server_option
def api_resources(*, namespaced: bool | None, output: str, server: str) -> None:
    """List the resources that a running Shoal follows."""
    asyncio.run(_api_resources(namespaced=namespaced, output=output, server=server))


async def _api_resources(*, namespaced: bool | None, output: str, server: str) -> None:
    async with Server(server) as shoal:
        known = [
            kind
            for kind in await shoal.resource_types()
            if namespaced is None or kind.namespaced == namespaced
        ]
    match output:
        case "name":
            for kind in known:
                click.echo(kind.resource.qualified_name)
        case "json":
            click.echo(msgspec.json.format(msgspec.json.encode(known)).decode())
        case _:
            rows = [
                (
                    kind.resource.name,
                    ",".join(kind.short_names),
                    kind.resource.api_version,
                    str(kind.namespaced).lower(),
                    kind.kind,
                )
                for kind in known
            ]
            _console().print(plain_table(("Name", "Shortnames", "Apiversion", "Namespaced", "Kind"), rows))
