"""Rendering of what training reached, and of the heads that were compared."""

from collections.abc import Sequence

import click

from featcache.cli.render import percent, print_fields, print_json
from featcache.cli.solvers import WITHOUT_EPOCHS
from featcache.core.reports import HeadRecord, TrainReport
from featcache.core.text import shown
from featcache.core.training_specs import AXES

_ALWAYS = ("lr", "weight_decay", "standardize")


def show_training(report: TrainReport, *, as_json: bool) -> None:
    """Print what a stage that trains has to tell.

    Parameters
    ----------
    report : TrainReport
        Of `fit_head` or `finetune`.
    as_json : bool
        Whether as one JSON object.
    """
    if as_json:
        print_json(report.to_json())
        return
    if len(report.heads) > 1:
        _print_heads(report.heads, report.select_on or "")
    print_fields(_rows(report))


def _rows(report: TrainReport) -> dict[str, str]:
    rows = {"model": shown(report.model), "solver": report.solver, **_course(report)}
    left_out = " (leaving each image out)" if report.solver == "knn" else ""
    rows["train accuracy"] = percent(report.train_accuracy) + left_out
    rows |= _on_val(report)
    if report.batch_norm is not None:
        rows["batch norm"] = report.batch_norm
    rows["seconds"] = f"{report.seconds:.2f}"
    if report.images_per_second is not None:
        rows["seconds"] += f" (training: {report.images_per_second:.1f} images/s)"
    if report.val_accuracy_mean is not None and report.val_accuracy_std is not None:
        rows[f"over {len(report.val_accuracies)} seeds"] = (
            f"{percent(report.val_accuracy_mean)} val accuracy on average, standard "
            f"deviation {100 * report.val_accuracy_std:.2f} points"
        )
    if report.fitted_on:
        rows["fitted on"] = report.fitted_on
    if report.test_accuracy is not None:
        rows["test accuracy"] = percent(
            report.test_accuracy, report.test_accuracy_interval
        )
    return rows


def _course(report: TrainReport) -> dict[str, str]:
    """Return how the head came about: its images, its epochs or what was chosen."""
    rows = {}
    if report.views is not None:
        rows["views"] = str(report.views)
    if report.shots is not None:
        rows["shots"] = f"{report.shots:,} training images of each class"
    for name, value in (report.chosen or {}).items():
        rows[name.replace("_", " ")] = f"{value:.4g}"
    if report.solver not in WITHOUT_EPOCHS:
        rows["epochs"] = f"{report.epochs} (best: {report.best_epoch})"
    return rows


def _on_val(report: TrainReport) -> dict[str, str]:
    loss = "-" if report.val_loss is None else f"{report.val_loss:.4g}"
    rows = {"val accuracy": percent(report.val_accuracy, report.val_accuracy_interval)}
    if report.val_mean_per_class_recall is not None:
        rows["val recall"] = percent(report.val_mean_per_class_recall)
    rows["val loss"] = loss
    if report.val_ece is not None:
        rows["val calibration error"] = f"{report.val_ece:.4f}"
    return rows


def _print_heads(heads: Sequence[HeadRecord], select_on: str) -> None:
    """Print one line per head; of the settings those in which heads differ."""
    axes = [
        name
        for name in AXES
        if name in _ALWAYS or len({getattr(h, name) for h in heads}) > 1
    ]
    on = "val" if select_on == "val" else "held-out"
    titles = [*axes, "best_epoch", f"{on} accuracy", f"{on} loss"]
    lines = [[title.replace("_", " ") for title in titles]]
    for head in heads:
        settings = [_text(getattr(head, name)) for name in axes]
        lines.append([*settings, *_result(head)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells))
    click.echo()


def _result(head: HeadRecord) -> list[str]:
    if head.loss is None:
        return ["-", f"diverged in {head.diverged}", "-"]
    return [str(head.best_epoch), percent(head.accuracy), f"{head.loss:.4g}"]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
