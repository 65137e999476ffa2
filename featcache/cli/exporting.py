"""The command that writes files for other programs: export."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.cli.options import FILE, json_option
from featcache.cli.progress import Terminal
from featcache.cli.render import print_json
from featcache.core.text import plural, shown, size

if TYPE_CHECKING:
    from featcache.stages.exporting import Target


@click.command()
@click.argument("source", type=FILE)
@click.option(
    "--to",
    type=click.Choice(["npy", "parquet", "csv"]),
    required=True,
    help="A folder of .npy files, one Parquet file, or one CSV file.",
)
@click.option(
    "--out",
    type=FILE,
    default=None,
    metavar="PATH",
    help="What to make.  [default: beside SOURCE, and named after it]",
)
@click.option("--overwrite", is_flag=True, help="Replace an export of that name.")
@json_option
def export(
    source: Path, to: "Target", out: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Write a cache as files that other programs read.

    SOURCE is a file that extract made, or a pattern such as 'cache/part-*.h5'. Rows of
    images that could not be used are left out.
    """
    from featcache.stages.exporting import export as run

    report = run(source, to, out=out, overwrite=overwrite, progress=Terminal())
    if as_json:
        print_json(report.to_json())
        return
    click.echo(
        f"{shown(report.out)}: {plural(report.images, 'image')} x {report.embed_dim} "
        f"({size(report.bytes)}), skipped {report.skipped:,} in {report.seconds:.1f} s"
    )
