"""The command that writes files for other programs: export."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from featcache.cli.options import FILE, json_option, refuse_others, where_option
from featcache.cli.progress import Terminal
from featcache.cli.render import print_json
from featcache.core.reports import Report
from featcache.core.text import plural, shown, size

if TYPE_CHECKING:
    from featcache.stages.exporting import Target
    from featcache.stages.model_exporting import ModelTarget

_OF_CACHES = ("npy", "parquet", "csv")
_OF_MODELS = ("torch", "onnx", "pt2")


@click.command()
@click.argument("source", type=FILE)
@click.option(
    "--to",
    type=click.Choice([*_OF_CACHES, *_OF_MODELS]),
    required=True,
    help="Of a cache: a folder of .npy files, one Parquet file, or one CSV file. Of a "
    "model: torchvision's state dict, ONNX, or a program of torch.export.",
)
@click.option(
    "--out",
    type=FILE,
    default=None,
    metavar="PATH",
    help="What to make.  [default: beside SOURCE, and named after it]",
)
@where_option
@click.option("--overwrite", is_flag=True, help="Replace an export of that name.")
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    source: Path,
    to: str,
    out: Path | None,
    weights: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a cache or a model as files that other programs read.

    SOURCE is a file that extract made, or a pattern such as 'cache/part-*.h5'; rows of
    images that could not be used are left out. Or it is a model, or the folder of a
    run: a network that takes normalised images runs without featcache, and a JSON file
    beside it has the class names and the view. --out FILE.safetensors with --to torch
    makes such a file instead of a .pth.
    """
    if to in _OF_MODELS:
        report, line = _model(source, to, out, weights, overwrite)
    else:
        refuse_others(ctx, {"weights"}, f"--to {to}")
        report, line = _cache(source, to, out, overwrite)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(line)


def _cache(
    source: Path, to: str, out: Path | None, overwrite: bool
) -> tuple[Report, str]:
    from featcache.stages.exporting import export as run

    report = run(
        source, cast("Target", to), out=out, overwrite=overwrite, progress=Terminal()
    )
    return report, (
        f"{shown(report.out)}: {plural(report.images, 'image')} x {report.embed_dim} "
        f"({size(report.bytes)}), skipped {report.skipped:,} in {report.seconds:.1f} s"
    )


def _model(
    source: Path, to: str, out: Path | None, weights: str | None, overwrite: bool
) -> tuple[Report, str]:
    from featcache.stages.model_exporting import export_model as run

    report = run(
        source,
        cast("ModelTarget", to),
        out=out,
        weights=weights,
        overwrite=overwrite,
        progress=Terminal(),
    )
    return report, (
        f"{shown(report.out)}: {report.backbone} with {report.head} head, "
        f"{plural(report.classes, 'class')} ({size(report.bytes)}), and "
        f"{shown(report.about.name)} in {report.seconds:.1f} s"
    )
