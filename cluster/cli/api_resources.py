"""``shoal api-resources``: what a running Shoal follows, in kubectl's manner."""

from __future__ import annotations

import asyncio

import click
import msgspec

from ...shards.model.resources import ResourceType
from .connecting import Target, server_options
from .render import columns_text
from .server import Server


@click.command("api-resources", short_help="List the resources that a running Shoal follows.")
@click.option("--namespaced/--not-namespaced", default=None, help="Only resources that are (not) namespaced.")
@click.option("--api-group", help="Only resources of this group; '' is the core group.")
@click.option("--no-headers", is_flag=True, help="Leave the header line out.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "name", "json"]),
    default="table",
    show_default=True,
    help="wide adds verbs and categories.",
)
@server_options
def api_resources(
    *, namespaced: bool | None, api_group: str | None, no_headers: bool, output: str, server: Target
) -> None:
    """List the resources that a running Shoal follows and answers for."""
    known = [
        kind
        for kind in asyncio.run(_known(server))
        if (namespaced is None or kind.namespaced == namespaced)
        and (api_group is None or kind.resource.group == api_group)
    ]
    match output:
        case "name":
            for kind in known:
                click.echo(kind.resource.qualified_name)
        case "json":
            click.echo(msgspec.json.format(msgspec.json.encode(known)))
        case _:
            headers = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
            headers += ["VERBS", "CATEGORIES"] if output == "wide" else []
            rows = [_row(kind, wide=output == "wide") for kind in known]
            click.echo(columns_text(None if no_headers else headers, rows), nl=False)


async def _known(server: Target) -> list[ResourceType]:
    async with Server(server) as shoal:
        return await shoal.resource_types()


def _row(kind: ResourceType, *, wide: bool) -> list[str]:
    row = [
        kind.resource.name,
        ",".join(kind.short_names),
        kind.resource.api_version,
        str(kind.namespaced).lower(),
        kind.kind,
    ]
    return [*row, ",".join(kind.verbs), ",".join(kind.categories)] if wide else row
