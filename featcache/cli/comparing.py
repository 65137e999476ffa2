"""The command that compares two models.

Stages are imported inside the command, so that help and completion stay instant.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featcache.cli.options import FILE, device_option, json_option
from featcache.cli.progress import Terminal
from featcache.cli.render import interval, percent, print_bad_images, print_json

if TYPE_CHECKING:
    from featcache.stages.comparing import ComparisonReport


@click.command()
@click.argument("model_a", type=FILE)
@click.argument("model_b", type=FILE)
@click.argument("data", nargs=-1)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Which part of the data.",
)
@device_option
@json_option
def compare(
    model_a: Path,
    model_b: Path,
    data: tuple[str, ...],
    split: str,
    device: str,
    as_json: bool,
) -> None:
    """Say whether one model is really better than another, on the same images.

    DATA are caches, folders or known data sets: each model takes the first cache that
    its backbone made, else the first folder. Without DATA the newest fitting caches in
    cache/ are taken.
    """
    from featcache.stages.comparing import compare as run

    report = run(
        model_a, model_b, data, split=split, device=device, progress=Terminal()
    )
    print_bad_images(report.bad_images)
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)


def _show(report: "ComparisonReport") -> None:
    for letter, result in (("A", report.a), ("B", report.b)):
        click.echo(f"{letter}  {result.model}, on {result.data}")
    click.echo(f"\n{'':<16}{'accuracy':<16}95 % interval")
    for letter, result in (("A", report.a), ("B", report.b)):
        click.echo(
            f"{letter:<16}{percent(result.accuracy):<16}"
            f"{interval(result.accuracy_interval)}"
        )
    low, high = report.difference_interval
    click.echo(
        f"{'A - B, points':<16}{100 * report.difference:<+16.2f}"
        f"{100 * low:+.2f} to {100 * high:+.2f}"
    )
    click.echo(
        f"\n{report.images:,} images of split {report.split}: right in both "
        f"{report.both_right:,}, in A alone {report.only_a_right:,}, in B alone "
        f"{report.only_b_right:,}, in neither {report.both_wrong:,}; exact McNemar "
        f"test p = {report.p_value:.2g}"
    )
    click.echo(report.verdict)
