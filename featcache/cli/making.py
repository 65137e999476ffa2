"""The commands that make something: extract, fit-head, finetune.

Stages are imported inside the commands, so that help and completion stay instant.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from featcache.cli.options import (
    FILE,
    backbone_option,
    data_argument,
    device_option,
    exif_option,
    json_option,
    out_option,
    refuse_others,
    sgd_options,
    weights_option,
)
from featcache.cli.progress import Terminal
from featcache.cli.render import percent, print_fields, print_json
from featcache.core.reports import TrainReport
from featcache.core.specs import (
    FinetuneSpec,
    LogRegSpec,
    SgdSpec,
)
from featcache.core.text import shown


@click.command("fit-head")
@click.argument("cache", type=FILE, required=False)
@click.option(
    "--solver",
    type=click.Choice(["sgd", "logreg"]),
    default="sgd",
    show_default=True,
    help="SGD with StepLR, or scikit-learn's logistic regression.",
)
@sgd_options(SgdSpec)
@click.option(
    "--C",
    "C",
    type=float,
    multiple=True,
    help="Inverse penalty of logreg; several are compared on held-out training "
    "images.  [default: 1e-6 to 1e4]",
)
@click.option(
    "--max-iter",
    default=LogRegSpec.max_iter,
    show_default=True,
    help="Iterations of logreg at most.",
)
@out_option
@json_option
@click.pass_context
def fit_head(
    ctx: click.Context,
    /,
    cache: Path | None,
    solver: str,
    out: Path | None,
    as_json: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Fit a linear head on cached features, in a second.

    CACHE is a file that extract made; without it the newest one in cache/.
    """
    from featcache.stages.probing import fit_head as run

    kind = SgdSpec if solver == "sgd" else LogRegSpec
    known = {f.name for f in fields(kind)}
    refuse_others(ctx, set(settings) - known, f"--solver {solver}")
    chosen = {k: v for k, v in settings.items() if k in known and v != ()}
    result = run(cache, kind(**chosen), out=out, progress=Terminal())
    _show_training(result.report, as_json=as_json)


@click.command()
@data_argument
@click.option("--full", is_flag=True, help="Train every layer.")
@click.option(
    "--head-only",
    is_flag=True,
    help="Train the head on augmented images; the backbone stays frozen.",
)
@click.option("--from-scratch", is_flag=True, help="Begin with random weights.")
@backbone_option
@weights_option
@click.option(
    "--head-lr-mult",
    default=FinetuneSpec.head_lr_mult,
    show_default=True,
    help="The head's learning rate over the backbone's.",
)
@sgd_options(FinetuneSpec)
@device_option
@click.option(
    "--workers",
    default=FinetuneSpec.workers,
    help="Threads that decode and augment.  [default: one per core]",
)
@exif_option
@out_option
@json_option
@click.pass_context
def finetune(
    ctx: click.Context,
    /,
    data: str,
    full: bool,
    head_only: bool,
    from_scratch: bool,
    backbone: str,
    weights: str,
    device: str,
    exif: Any,  # noqa: ANN401
    out: Path | None,
    as_json: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Train online on augmented images: every layer, or the head alone.

    DATA is a folder of class folders, or hymenoptera, hotdog or digits.
    """
    if full == head_only:
        raise click.UsageError("say what to train: --full or --head-only")
    if head_only:
        refuse_others(ctx, {"from_scratch", "head_lr_mult"}, "--head-only")
    if from_scratch:
        refuse_others(ctx, {"weights"}, "--from-scratch")
    from featcache.stages.finetuning import finetune as run

    spec = FinetuneSpec(full=full, from_scratch=from_scratch, **settings)
    result = run(
        data,
        spec,
        backbone=backbone,
        weights=weights,
        device=device,
        exif=exif,
        out=out,
        progress=Terminal(),
    )
    _show_training(result.report, as_json=as_json)


def _show_training(report: TrainReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
        return
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
    if report.test_accuracy is not None:
        rows["test accuracy"] = percent(report.test_accuracy)
    print_fields(rows)
