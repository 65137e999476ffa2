"""The command that joins caches: merge."""

from pathlib import Path

import click

from featcache.cli.options import FILE, json_option
from featcache.cli.progress import Terminal
from featcache.cli.render import print_json
from featcache.core.text import plural, shown


@click.command()
@click.argument("sources", type=FILE, nargs=-1, required=True)
@click.option(
    "--cache", type=FILE, required=True, metavar="FILE", help="The file to make."
)
@click.option("--overwrite", is_flag=True, help="Replace a file of that name.")
@json_option
def merge(
    sources: tuple[Path, ...], cache: Path, overwrite: bool, as_json: bool
) -> None:
    """Join caches of parts of a data set into one.

    SOURCES are caches made with the same settings. An image that stands in several is
    taken once; classes are united by name.
    """
    from featcache.stages.merging import merge as run

    report = run(sources, cache, overwrite=overwrite, progress=Terminal())
    if as_json:
        print_json(report.to_json())
        return
    repeated = f", {report.repeated:,} repeated" if report.repeated else ""
    click.echo(
        f"{shown(cache)}: {plural(report.images, 'image')} x {report.embed_dim}, "
        f"{plural(report.classes, 'class')}, of {plural(report.sources, 'cache')}"
        f"{repeated}, skipped {report.skipped:,} in {report.seconds:.1f} s"
    )
