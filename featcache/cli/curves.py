"""The command that measures what further training images bring.

Stages are imported inside the command, so that help and completion stay instant.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featcache.cli.options import FILE, json_option, out_option
from featcache.cli.progress import Terminal
from featcache.cli.render import percent, print_json
from featcache.cli.solvers import (
    COUNTS,
    NUMBERS,
    settings_of,
    single_spec,
    solver_options,
)
from featcache.core.text import plural, shown

if TYPE_CHECKING:
    from featcache.core.curves import CurvePoint, CurveReport


@click.command()
@click.argument("cache", type=FILE, required=False)
@click.option(
    "--shots",
    type=COUNTS,
    default=None,
    help="Training images of each class.  [default: 1,2,4,8,... and all]",
)
@click.option(
    "--shares",
    type=NUMBERS,
    default=None,
    help="Instead of --shots: shares of the training images, such as 0.01,0.1,0.5.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How often images are drawn; each draw takes others.",
)
@solver_options
@out_option
@json_option
@click.pass_context
def curve(
    ctx: click.Context,
    /,
    cache: Path | None,
    shots: tuple[int, ...] | None,
    shares: tuple[float, ...] | None,
    seeds: int,
    solver: str,
    out: Path | None,
    as_json: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Measure accuracy on val against training images: a table and a picture.

    CACHE is a file that extract made; without it the newest one in cache/. For each
    number of images, heads are fitted on several draws of as many; all training
    images are the last point. Val chooses nothing: SGD keeps its last epoch.
    """
    from featcache.stages.curves import curve as run

    if shots and shares:
        raise click.UsageError("--shares does nothing with --shots")
    given = settings_of(ctx, solver, settings, also={"seed"})
    report = run(
        cache,
        single_spec(solver, given, "curve"),
        shots=shots,
        shares=shares,
        seeds=seeds,
        shots_seed=settings["seed"],
        out=out,
        progress=Terminal(),
    )
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)


def _show(report: "CurveReport") -> None:
    click.echo(
        f"accuracy of {report.solver} on {plural(report.val_images, 'image')} of val, "
        f"{report.data}, {report.backbone}"
    )
    click.echo()
    titles = ("per class", "images", "accuracy", "deviation", "lowest", "highest")
    lines = [titles, *(_line(point) for point in report.points)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells))
    click.echo()
    names = ", ".join(report.files)
    click.echo(f"{shown(report.out)}: {names}; {report.seconds:.2f} s")


def _line(point: "CurvePoint") -> tuple[str, ...]:
    std = point.accuracy_std
    return (
        f"{point.images_per_class:,.4g}" if point.share != 1 else "all",
        f"{point.images:,}",
        percent(point.accuracy_mean),
        "-" if std is None else f"{100 * std:.2f}",
        percent(min(point.accuracies)),
        percent(max(point.accuracies)),
    )
