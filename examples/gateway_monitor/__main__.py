"""``python -m examples.gateway_monitor``, from the root of the repository: ``run`` and ``demo``."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import click
import msgspec

import shoal

from .demo import Failed, demonstrate
from .lastgood import StateInvalid
from .links import bare, server_of
from .monitor import Monitor
from .operators import WriteRefused
from .settings import Alertmanager, Settings, SettingsInvalid, Webhook, read_settings

_STANDARD = frozenset(vars(logging.makeLogRecord({})))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Monitor an API gateway: outages, relaxed policies, limits, routes, and what changed."""


@main.command()
@click.option(
    "--kubeconfig", metavar="FILE", help="Of the API server; default: $KUBECONFIG, or this pod's account."
)
@click.option("--context", metavar="NAME", help="Of the kubeconfig.")
@click.option("--shoal", "shoal_url", metavar="URL", help="Follow through the gateway of a Shoal instead.")
@click.option("--settings", "settings_file", metavar="FILE", help="YAML; settings.yaml shows all there are.")
@click.option("--enforce", is_flag=True, help="Put forbidden changes back. Without, the patch is only shown.")
@click.option(
    "--alertmanager", "alertmanagers", multiple=True, metavar="URL", help="Alert there; may be repeated."
)
@click.option("--webhook", "webhooks", multiple=True, metavar="URL", help="A Slack-style incoming webhook.")
@click.option(
    "--state-file", metavar="FILE", help="Keep here what is good, and what was told, over restarts."
)
@click.option("--audit-file", metavar="FILE", help="Add a line for each rollback.")
def run(
    *,
    kubeconfig: str | None,
    context: str | None,
    shoal_url: str | None,
    settings_file: str | None,
    enforce: bool,
    alertmanagers: tuple[str, ...],
    webhooks: tuple[str, ...],
    state_file: str | None,
    audit_file: str | None,
) -> None:
    """Monitor until Ctrl-C or SIGTERM."""
    _log(logging.INFO)
    settings = read_settings(settings_file) if settings_file else Settings()
    try:
        more = [Alertmanager(url=url) for url in alertmanagers], [Webhook(url=url) for url in webhooks]
    except ValueError as error:
        raise SettingsInvalid(str(error)) from error
    alerts = msgspec.structs.replace(
        settings.alerts,
        alertmanagers=(*settings.alerts.alertmanagers, *more[0]),
        webhooks=(*settings.alerts.webhooks, *more[1]),
    )
    settings = msgspec.structs.replace(
        settings,
        alerts=alerts,
        rollback=msgspec.structs.replace(settings.rollback, enforce=enforce or settings.rollback.enforce),
        state_file=state_file or settings.state_file,
        audit_file=audit_file or settings.audit_file,
    )

    async def monitor() -> None:
        client = (
            shoal.connect(shoal_url, kubeconfig=kubeconfig, context=context)
            if shoal_url
            else shoal.local(kubeconfig, context)
        )
        async with client:
            links = bare(shoal_url) if shoal_url else server_of(kubeconfig, context)
            await Monitor(client, settings, links=links).run()

    _until_signalled(monitor())


@main.command()
@click.option("--alertmanager", "alertmanagers", multiple=True, metavar="URL", help="Send alerts there, too.")
@click.option("--webhook", "webhooks", multiple=True, metavar="URL", help="Send messages there, too.")
@click.option("--verbose", is_flag=True, help="The monitor's own log as well.")
def demo(*, alertmanagers: tuple[str, ...], webhooks: tuple[str, ...], verbose: bool) -> None:
    """Show an outage, a relaxed policy and a rollback on an embedded API server."""
    _log(logging.INFO if verbose else logging.CRITICAL)
    detected = _until_signalled(demonstrate(alertmanagers, webhooks))
    sys.exit(0 if detected else 1)


def _until_signalled(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs it to its end, or until Ctrl-C or SIGTERM; then it may still tell what there is to tell."""
    received: list[int] = []

    async def signalled() -> Any:
        task = asyncio.current_task()
        assert task is not None

        def end(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        return await work

    try:
        return asyncio.run(signalled())
    except asyncio.CancelledError:
        sys.exit(128 + received[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]


def _log(level: int) -> None:
    class Formatter(logging.Formatter):
        """The message, then what was said beside it as ``name=value``."""

        def format(self, record: logging.LogRecord) -> str:
            more = " ".join(f"{key}={value}" for key, value in vars(record).items() if key not in _STANDARD)
            return f"{super().format(record)} {more}".rstrip()

    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


KNOWN = (shoal.errors.ShoalError, SettingsInvalid, StateInvalid, Failed, WriteRefused)


def entry() -> None:
    """`main`, with errors that people can do something about as one line each."""
    try:
        main(prog_name="python -m examples.gateway_monitor")
    except (*KNOWN, ExceptionGroup) as error:
        leaves = _leaves(error)
        if not all(isinstance(leaf, KNOWN) for leaf in leaves):
            raise
        for leaf in leaves:
            click.echo(f"error: {leaf}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    entry()
