"""The commands that tell something: evaluate, verify, status, info.

Stages are imported inside the commands, so that help and completion stay instant.
"""

from pathlib import Path
from typing import Any

import click

from featcache.cli.options import (
    FILE,
    device_option,
    json_option,
    refuse_others,
    where_option,
)
from featcache.cli.progress import Terminal
from featcache.cli.render import (
    percent,
    print_bad_images,
    print_confusion,
    print_fields,
    print_json,
    print_some,
)
from featcache.core.text import plural, shown, size


@click.command()
@click.argument("model", type=FILE)
@click.argument("data")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Which part of the data.",
)
@click.option(
    "--confusion",
    type=FILE,
    default=None,
    metavar="FILE",
    help="Draw the confusion matrix: a .png or .svg file.",
)
@where_option
@device_option
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    model: Path,
    data: str,
    split: str,
    confusion: Path | None,
    weights: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure a model on labelled images or a cache.

    DATA is a folder or another source that extract takes, a known data set, or a cache
    that the model's backbone made.
    """
    from featcache.stages.evaluation import evaluate as run
    from featcache.stages.pictures import picture_file, save_picture
    from featcache.stages.scoring import is_cache

    if is_cache(data):
        refuse_others(ctx, {"weights", "device"}, "a cache")

    file = None if confusion is None else picture_file("confusion", confusion)
    progress = Terminal()
    report = run(
        model, data, split=split, weights=weights, device=device, progress=progress
    )
    print_bad_images(report.bad_images)
    if file is not None:
        from featcache.stages.plotting import plot_confusion

        save_picture(plot_confusion(report, progress=progress), file)
    if as_json:
        out = {} if file is None else {"out": shown(file)}
        print_json({**report.to_json(), **out})
        return
    print_fields(
        {
            "images": f"{report.images:,} of split {report.split}"
            + (f", {report.skipped:,} skipped" if report.skipped else ""),
            "accuracy": percent(report.accuracy, report.accuracy_interval),
            "mean per-class recall": percent(
                report.mean_per_class_recall, report.mean_per_class_recall_interval
            ),
            **_top5(report.top5_accuracy),
            "log loss": f"{report.log_loss:.4f}",
            "calibration error": f"{report.ece:.4f}",
        }
    )
    print_confusion(report.confusion, report.classes)
    if file is not None:
        click.echo(shown(file))


def _top5(share: float | None) -> dict[str, str]:
    return {} if share is None else {"top-5 accuracy": percent(share)}


@click.command()
@click.argument("cache", type=FILE)
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="Compute this many random rows again from their images, and compare.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Compute the rows of damaged blocks again, and write the file anew.",
)
@click.option(
    "--data",
    default=None,
    metavar="DIR",
    help="Where the images are now, if they moved since extraction.",
)
@where_option
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the choice of the sample.",
)
@device_option
@json_option
def verify(
    cache: Path,
    sample: int,
    repair: bool,
    seed: int,
    as_json: bool,
    **origin: Any,  # noqa: ANN401
) -> None:
    """Check every digest of a cache; on request compute rows again, or repair it.

    CACHE is a file, or a pattern such as 'cache/part-*.h5' of files that must belong
    together.
    """
    from featcache.stages.inspection import verify as run

    if repair and sample:
        raise click.UsageError("--sample does nothing with --repair")
    if repair:
        _repair(cache, as_json=as_json, **origin)
        return
    report = run(cache, sample=sample, seed=seed, progress=Terminal(), **origin)
    if as_json:
        print_json(report.to_json())
        return
    click.echo(
        f"{shown(cache)}: {plural(report.rows, 'row')} in "
        f"{plural(report.blocks, 'block')} match their digests ({size(report.bytes)})"
    )
    if report.largest_error is not None:
        click.echo(
            f"{plural(report.sampled, 'row')} computed again; largest relative error "
            f"{report.largest_error:.2g}"
        )
    click.echo(f"{report.seconds:.2f} s")


def _repair(cache: Path, *, as_json: bool, **origin: Any) -> None:  # noqa: ANN401
    from featcache.stages.repairing import repair as run

    report = run(cache, progress=Terminal(), **origin)
    if as_json:
        print_json(report.to_json())
    elif report.repaired_blocks:
        click.echo(
            f"{shown(cache)}: repaired {plural(report.repaired_rows, 'row')} in "
            f"{plural(report.repaired_blocks, 'block')} of {report.blocks:,}"
        )
    else:
        click.echo(f"{shown(cache)}: nothing to repair")


@click.command()
@click.argument("cache", type=FILE, required=False)
@click.argument("data", required=False)
@json_option
def status(cache: Path | None, data: str | None, as_json: bool) -> None:
    """Say what changed in a folder since its cache was made.

    CACHE is a file that extract made, without it the newest one in cache/; DATA is the
    folder, without it the one that the cache was made of.
    """
    from featcache.stages.changes import status as run

    report = run(cache, data, progress=Terminal())
    if as_json:
        print_json(report.to_json())
        return
    changes = {
        "+": report.added,
        "~": report.changed,
        "-": report.removed,
        ">": [*(f"{a} -> {b}" for a, b in report.renamed), *report.relabelled],
    }
    click.echo(f"{report.data} now, compared with {shown(report.cache)}:")
    counts = " ".join(f"{sign}{len(lines):,}" for sign, lines in changes.items())
    click.echo(
        f"{counts}, unchanged {report.unchanged:,}; extract would compute "
        f"{plural(report.to_compute, 'image')}"
    )
    for sign, lines in changes.items():
        print_some(sign, lines)


@click.command()
@click.argument("file", type=FILE)
@json_option
def info(file: Path, as_json: bool) -> None:
    """Say what is in a cache or a model."""
    from featcache.stages.inspection import describe

    described = describe(file)
    if as_json:
        print_json(described)
    else:
        print_fields(dict(_flat(described)))


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            rows.append((f"{prefix}{name}", ", ".join(map(str, value))))
        else:
            rows.append((f"{prefix}{name}", value))
    return rows
