"""The command tree. Commands live in modules of their own; this one parses options and renders errors.

The only reader of the environment and of argv. An error of Shoal's own tree ends a command with one sentence on
stderr and exit code 1, wrong usage with 2; anything else is a bug and shows its traceback. A command that a signal
breaks off ends with 128 and the signal's number; one that is meant to run until it is told to end (`up`, `apiserver`)
ends with 0 when it is.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from ... import __version__
from ...shards.logs import configure_logging
from ...shards.model.errors import ShoalError
from . import api_resources, apiserver, demo, down, get, operating, status, up

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
INTERRUPTED = 130
"""128 and the number of SIGINT, as shells report it."""
BROKEN_PIPE = 141


class _Commands(click.Group):
    """Turns Shoal's errors into sentences."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader of our output (head, less) has gone: nothing to say, and nothing to say it to. The
            # interpreter flushes once more at its end, which would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            click.echo("error: the output cannot be written: no space is left there", err=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except (ShoalError, ExceptionGroup) as error:
            sentences = _sentences(error)
            if sentences is None:
                raise
            for sentence in sentences:
                click.echo(f"error: {sentence}", err=True)
            ctx.exit(1)
        return result


def _sentences(error: Exception) -> list[str] | None:
    """The messages of Shoal's own errors, also from a task group; None if there is another among them."""
    if not isinstance(error, ExceptionGroup):
        return [str(error)] if isinstance(error, ShoalError) else None
    parts = [_sentences(part) for part in error.exceptions]
    if any(part is None for part in parts):
        return None
    return list(dict.fromkeys(sentence for part in parts if part for sentence in part))


@click.group(cls=_Commands, context_settings=CONTEXT_SETTINGS)
@click.version_option(__version__, prog_name="shoal")
def root() -> None:
    """Shoal follows a Kubernetes cluster with shards on Ray and answers for it.

    `shoal demo` shows it on a made-up cluster; `shoal up` follows the one of your kubeconfig.
    """
    configure_logging("warning")


for _command in (
    demo.demo,
    apiserver.apiserver,
    up.up,
    down.down,
    status.status,
    api_resources.api_resources,
    get.get,
    operating.explain,
    operating.rebalance,
    operating.move,
    operating.split,
    operating.drain,
    operating.unpin,
):
    root.add_command(_command)


def main() -> None:
    """Entry point of the ``shoal`` command."""
    root(prog_name="shoal")
