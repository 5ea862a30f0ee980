"""The command tree. Commands live in modules of their own; this one parses options and renders errors.

The only reader of the environment and of argv. An error of Shoal's own tree ends a command with one sentence on
stderr and exit code 1; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console

from ... import __version__
from ...shards.model.errors import ShoalError
from . import apiserver, demo, get, status, up

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Commands(click.Group):
    """Turns Shoal's errors into one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ShoalError as error:
            Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
            ctx.exit(1)
        except BrokenPipeError:
            # The reader of our output (head, less) has gone: nothing to say, and nothing to say it to.
            sys.stderr.close()
            ctx.exit(141)


@click.group(cls=_Commands, context_settings=CONTEXT_SETTINGS)
@click.version_option(__version__, prog_name="shoal")
def root() -> None:
    """Shoal follows a Kubernetes cluster with shards on Ray and answers for it."""


for _command in (
    demo.demo,
    apiserver.apiserver,
    up.up,
    up.down,
    status.status,
    get.api_resources,
    get.get,
):
    root.add_command(_command)


def main() -> None:
    """Entry point of the ``shoal`` command."""
    root(prog_name="shoal")
