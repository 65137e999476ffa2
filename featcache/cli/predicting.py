"""The command that asks a model about images."""

import json
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.cli.options import (
    FILE,
    device_option,
    json_option,
    refuse_others,
    where_option,
)
from featcache.cli.progress import Terminal
from featcache.cli.render import print_json
from featcache.core.text import plural, shown

if TYPE_CHECKING:
    from featcache.core.predictions import Entry, PredictReport
    from featcache.stages.predicting import PredictionRun


@click.command()
@click.argument("model", type=FILE)
@click.argument("images", type=FILE, nargs=-1)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="K",
    help="How many of the most probable classes to tell of each image.",
)
@click.option(
    "--out",
    type=FILE,
    default=None,
    metavar="FILE",
    help="Write to a .csv, .jsonl or .parquet file, as it goes; the same command goes "
    "on with it after an interruption. Bad images have a row with the error.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace what is in FILE instead of going on."
)
@click.option(
    "--watch",
    type=FILE,
    default=None,
    metavar="DIR",
    help="Instead of IMAGES: a folder that fills up. Each image is taken once it has "
    "stopped changing, until Ctrl-C.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks at the folder; a file that is the same at both is taken.",
)
@click.option(
    "--grid",
    type=FILE,
    default=None,
    metavar="FILE",
    help="Draw a .png or .svg file: the most confident mistakes first, if the images "
    "lie in folders named as classes.",
)
@click.option(
    "--grid-size",
    type=click.IntRange(1, 400),
    default=24,
    show_default=True,
    metavar="N",
    help="Images in the grid, at most.",
)
@where_option
@device_option
@json_option
@click.pass_context
def predict(
    ctx: click.Context,
    /,
    model: Path,
    images: tuple[Path, ...],
    top: int,
    out: Path | None,
    overwrite: bool,
    watch: Path | None,
    interval: float,
    grid: Path | None,
    grid_size: int,
    weights: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Classify images: one line each, with the class and its probability.

    MODEL is a model file or the folder of a run; IMAGES are files, folders and patterns
    such as 'photos/**/*.jpg'.
    """
    _require_sense(ctx, images, watch, out, as_json=as_json)
    from featcache.stages.image_files import list_images
    from featcache.stages.pictures import picture_file
    from featcache.stages.predicting import predicting
    from featcache.stages.prediction_grids import with_grid

    progress = Terminal()
    tell = partial(_tell, progress, lines=out is None and not as_json)
    picture = None if grid is None else picture_file("predictions", grid)
    files = [] if watch else list_images(images, progress)
    with predicting(
        model,
        out=out,
        top=top,
        overwrite=overwrite,
        weights=weights,
        device=device,
        expected=None if watch else len(files),
        progress=progress,
    ) as run:
        if watch is None:
            with with_grid(picture, grid_size, run, files, tell) as told:
                run.work(files, told)
        else:
            # A service manager ends a command by SIGTERM: that is a Ctrl-C as well.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            run.watch(watch, interval, tell)
        _show(run, as_json=as_json)
    ctx.exit(1 if run.report.bad else 0)


def _require_sense(
    ctx: click.Context,
    images: tuple[Path, ...],
    watch: Path | None,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Refuse what cannot be meant."""
    if bool(images) == bool(watch):
        raise click.UsageError("name IMAGES, or a folder with --watch DIR")
    if watch is None:
        refuse_others(ctx, {"interval"}, "IMAGES")
    if out is None:
        refuse_others(ctx, {"overwrite"}, "--out", word="without")
    if watch:
        refuse_others(ctx, {"grid", "grid_size"}, "--watch")
    if ctx.params["grid"] is None:
        refuse_others(ctx, {"grid_size"}, "--grid", word="without")
    if watch and as_json and out is None:
        raise click.UsageError("--watch has no end to print --json at; add --out FILE")


def _tell(progress: Terminal, entry: "Entry", *, lines: bool) -> None:
    if not entry.ranked:
        progress.say(f"{entry.path}: {entry.error}")
    elif lines:
        pairs = (f"{shown(name)}\t{share:.4f}" for name, share in entry.ranked)
        click.echo("\t".join((entry.path, *pairs)))


def _show(run: "PredictionRun", *, as_json: bool) -> None:
    report = run.report
    if report.bad:
        click.echo(f"{plural(report.bad, 'image')} could not be used", err=True)
    if report.out is None:
        if as_json:
            _print_array(run.file.entries(), run.predictor.top)
    elif as_json:
        print_json(report.to_json())
    else:
        _summarise(report)


def _summarise(report: "PredictReport") -> None:
    speed = f" ({report.images_per_second:.0f} images/s)" if report.seconds else ""
    click.echo(
        f"{shown(report.out or '')}: {plural(report.images, 'image')}, "
        f"{report.reused:,} of them there before, {report.bad:,} bad, in "
        f"{report.seconds:.1f} s{speed}"
    )


def _print_array(entries: "Iterable[Entry]", top: int) -> None:
    """Print a JSON array as `json.dumps` would, one element at a time."""
    click.echo("[", nl=False)
    before = ""
    for entry in entries:
        if not entry.ranked:
            continue
        label, probability = entry.ranked[0]
        told: dict[str, object] = {
            "path": entry.path,
            "label": label,
            "probability": probability,
        }
        if top > 1:
            told["top"] = [{"label": c, "probability": p} for c, p in entry.ranked]
        click.echo(before + json.dumps(told), nl=False)
        before = ", "
    click.echo("]")
