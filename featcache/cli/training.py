"""Rendering of what training reached, and of the heads that were compared."""

from collections.abc import Sequence

import click

from featcache.cli.render import percent, print_fields, print_json
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
    loss = "-" if report.val_loss is None else f"{report.val_loss:.4g}"
    rows = {
        "model": shown(report.model),
        "solver": report.solver,
        "epochs": f"{report.epochs} (best: {report.best_epoch})",
        "train accuracy": percent(report.train_accuracy),
        "val accuracy": percent(report.val_accuracy),
        "val loss": loss,
        "seconds": f"{report.seconds:.2f}",
    }
    if report.val_accuracy_mean is not None and report.val_accuracy_std is not None:
        rows[f"over {len(report.val_accuracies)} seeds"] = (
            f"{percent(report.val_accuracy_mean)} val accuracy on average, standard "
            f"deviation {100 * report.val_accuracy_std:.2f} points"
        )
    if report.fitted_on:
        rows["fitted on"] = report.fitted_on
    if report.test_accuracy is not None:
        rows["test accuracy"] = percent(report.test_accuracy)
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
