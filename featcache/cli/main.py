"""The ``featcache`` command: its group, and the one border for errors."""

import io
import os
import sys
from typing import Any

import click

from featcache import __version__
from featcache.cli.asking import evaluate, info, status, verify
from featcache.cli.auditing import audit
from featcache.cli.comparing import compare
from featcache.cli.curves import curve
from featcache.cli.exporting import export
from featcache.cli.extracting import extract
from featcache.cli.heads import fit_head
from featcache.cli.joining import merge
from featcache.cli.making import finetune
from featcache.cli.plotting import history, map_cache
from featcache.cli.predicting import predict
from featcache.cli.render import show_error
from featcache.cli.reporting import report
from featcache.cli.showing import show
from featcache.cli.supervise import HUNG, is_child, supervised, with_allocator
from featcache.core.errors import (
    DecoderHungError,
    FeatcacheError,
    Interrupted,
    PeerError,
)
from featcache.core.machine import among_ranks, end_now, end_with_parent


class Border(click.Group):
    """Errors of ours become one line and exit code 1; bugs keep their traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of work, not of the alphabet."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's type
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DecoderHungError as error:
            show_error(error, as_json=False)
            sys.stderr.flush()
            os._exit(HUNG if is_child() else 1)  # its thread would never end
        except PeerError as error:
            show_error(error, as_json=False)  # stdout is that of another process
            ctx.exit(1)
        except FeatcacheError as error:
            show_error(error, as_json=ctx.meta.get("featcache.json", False))
            ctx.exit(1)
        except KeyboardInterrupt as stop:
            line = str(stop) if isinstance(stop, Interrupted) else "stopped"
            click.echo(f"\n{line}", err=True)
            ctx.exit(130)  # as a shell reports a program that Ctrl-C ended


@click.group(
    cls=Border,
    context_settings={
        "auto_envvar_prefix": "FEATCACHE",
        "help_option_names": ["-h", "--help"],
    },
)
@click.version_option(__version__, prog_name="featcache")
def main() -> None:
    """Transfer learning on a folder of labelled images, from cached features.

    Run a pretrained ResNet once over every image, keep the features in one HDF5 file,
    and fit classifiers from it in a second:

    \b
      featcache extract --backbone resnet50
      featcache fit-head
      featcache finetune --full

    Every option can also be set by an environment variable, such as
    FEATCACHE_EXTRACT_DEVICE=cpu for 'featcache extract --device cpu'.
    """  # noqa: D301 - click wants the character itself
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold any letter
            stream.reconfigure(errors="backslashreplace")


for _command in (
    *(show, extract, fit_head, curve, finetune, predict, evaluate, compare),
    *(history, map_cache, audit, report, status, verify, merge, export, info),
):
    main.add_command(_command)


def run() -> None:
    """Run the command that was typed; what decodes alone, in a child that may crash."""
    if sys.argv[1:2] == ["finetune"]:
        with_allocator(sys.argv[1:])
    if not is_child() and sys.argv[1:2] in (["extract"], ["predict"]):
        sys.exit(supervised(sys.argv[1:]))  # among_ranks, too: one of n parts each
    if not (is_child() or among_ranks()):
        main(prog_name="featcache")
    end_with_parent()
    try:
        main(prog_name="featcache")
    except SystemExit as end:
        # Everything is written and closed. What is left, the destructors of native
        # thread pools, aborts now and then after an interrupted forward pass, and
        # after training in several processes.
        if isinstance(end.code, str):
            raise
        end_now(end.code or 0)
