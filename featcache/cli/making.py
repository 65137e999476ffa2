"""The command that trains online: finetune.

Stages are imported inside the commands, so that help and completion stay instant.
"""

from pathlib import Path
from typing import Any

import click

from featcache.cli.options import (
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
from featcache.cli.training import show_training
from featcache.core.specs import FinetuneSpec


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
@click.option(
    "--no-augment",
    is_flag=True,
    help="Train on the fixed view of each image, as fit-head does.",
)
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
    no_augment: bool,
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

    settings["augment"] = not no_augment
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
    show_training(result.report, as_json=as_json)
