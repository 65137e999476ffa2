"""The command that writes a report.

Stages are imported inside the command, so that help and completion stay instant.
"""

from pathlib import Path

import click

from featcache.cli.options import FILE, device_option, json_option
from featcache.cli.progress import Terminal
from featcache.cli.render import interval, percent, print_bad_images, print_json
from featcache.core.text import plural, shown, size


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--data",
    multiple=True,
    metavar="CACHE_OR_FOLDER",
    help="What the runs are measured on; several times for several.  [default: the "
    "newest fitting cache in cache/, else the folder that a run was trained on]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Which part of the data.",
)
@click.option(
    "--out",
    type=FILE,
    default=None,
    metavar="FILE",
    help="The file, replaced if it is there.  [default: report.html, of one run in "
    "its folder]",
)
@device_option
@json_option
def report(
    runs: tuple[str, ...],
    data: tuple[str, ...],
    split: str,
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Write runs as one HTML file: numbers, curves, mistakes, map, audit.

    A RUN is the folder of one, or a model file; several are also compared. The file
    needs no network and no other file, and stays under 5 MB: as many thumbnails are
    in it as have room, mistakes first.
    """
    from featcache.stages.reporting import report as run

    made = run(
        *runs, data=data, split=split, out=out, device=device, progress=Terminal()
    )
    print_bad_images(made.bad_images)
    if as_json:
        print_json(made.to_json())
        return
    first = "" if made.runs == 1 else "run A: "
    click.echo(
        f"{first}{percent(made.accuracy)} of {plural(made.images, 'image')} of {split} "
        f"({interval(made.accuracy_interval)})"
    )
    click.echo(
        f"{shown(made.report)}: {size(made.bytes)}, "
        f"{plural(made.pictures, 'picture')}, {made.seconds:.1f} s"
    )
