"""The command that compares models.

Stages are imported inside the command, so that help and completion stay instant.
"""

from typing import TYPE_CHECKING

import click

from featcache.cli.options import device_option, json_option
from featcache.cli.progress import Terminal
from featcache.cli.render import interval, percent, print_bad_images, print_json

if TYPE_CHECKING:
    from featcache.stages.comparing import ComparisonReport
    from featcache.stages.worth import ModelResult, PairResult


@click.command()
@click.argument("given", nargs=-1, required=True, metavar="RUN RUN... [DATA...]")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Which part of the data.",
)
@device_option
@json_option
def compare(given: tuple[str, ...], split: str, device: str, as_json: bool) -> None:
    """Say whether one model is really better than others, on the same images.

    A RUN is the folder of one, or a model file; two are compared, or more, each with
    each. DATA are caches, folders or known data sets: each model takes the first cache
    that its backbone made, else the first folder. Without DATA the newest fitting
    caches in cache/ are taken, and for fine-tuned models the folder that they were
    trained on. With a fine-tuned model and a head, one sentence says whether
    fine-tuning was worth it.
    """
    from featcache.stages.comparing import compare as run

    report = run(*given, split=split, device=device, progress=Terminal())
    print_bad_images(report.bad_images)
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)


def _show(report: "ComparisonReport") -> None:
    from featcache.stages.comparing import letter

    models = {letter(at): result for at, result in enumerate(report.models)}
    for name, result in models.items():
        click.echo(f"{name}  {result.model}, {result.kind}, on {result.data}")
    click.echo(
        f"\n{'':<16}{'accuracy':<16}{'95 % interval':<20}"
        f"{'seconds':>10}{'images/s':>10}"
    )
    for name, result in models.items():
        click.echo(
            f"{name:<16}{percent(result.accuracy):<16}"
            f"{interval(result.accuracy_interval):<20}"
            f"{_number(result.seconds, 2)}{_number(result.images_per_second, 1)}"
        )
    if len(report.pairs) == 1:
        _show_pair(report, report.pairs[0])
    else:
        _show_pairs(report)
    _show_worth(report, list(models.values()))


def _show_pair(report: "ComparisonReport", pair: "PairResult") -> None:
    click.echo(f"{'A - B, points':<16}{_points(pair)}")
    test = (
        "" if pair.p_value is None else f"; exact McNemar test p = {pair.p_value:.2g}"
    )
    click.echo(
        f"\n{report.images:,} images of split {report.split}: right in both "
        f"{pair.both_right:,}, in A alone {pair.only_a_right:,}, in B alone "
        f"{pair.only_b_right:,}, in neither {pair.both_wrong:,}{test}"
    )
    click.echo(pair.verdict)


def _show_pairs(report: "ComparisonReport") -> None:
    """Print one line per pair."""
    click.echo(
        f"\n{report.images:,} images of split {report.split}; exact McNemar tests, p "
        f"with Holm's correction for {len(report.pairs)} pairs\n"
    )
    click.echo(f"{'points':<16}{'':<16}{'95 % interval':<20}{'alone':<10}p")
    for pair in report.pairs:
        alone = f"{pair.only_a_right:,}, {pair.only_b_right:,}"
        p = "-" if pair.adjusted_p_value is None else f"{pair.adjusted_p_value:.2g}"
        click.echo(
            f"{f'{pair.a} - {pair.b}':<16}{_points(pair):<36}{alone:<10}{p:<10}"
            f"{pair.verdict}"
        )


def _points(pair: "PairResult") -> str:
    low, high = pair.difference_interval
    return f"{100 * pair.difference:<+16.2f}{100 * low:+.2f} to {100 * high:+.2f}"


def _show_worth(report: "ComparisonReport", models: list["ModelResult"]) -> None:
    if len({result.kind for result in models}) > 1 and any(
        result.kind == "cached head" for result in models
    ):
        click.echo(
            "seconds of a cached head are those of its fit; a cache does not record "
            "those of its extraction"
        )
    if report.worth:
        click.echo(f"\n{report.worth}")


def _number(value: float | None, digits: int) -> str:
    return f"{'-':>10}" if value is None else f"{value:>10,.{digits}f}"
