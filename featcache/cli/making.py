"""The command that trains online: finetune.

Stages are imported inside the commands, so that help and completion stay instant.
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from featcache.cli.options import (
    FILE,
    Function,
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
from featcache.core.finetune_spec import (
    UNFREEZE,
    BatchNormPolicy,
    FinetuneSpec,
    Optimizer,
    Schedule,
    Store,
    TrainingPrecision,
)
from featcache.core.machine import place_among_ranks

_STAGES = [name for name in UNFREEZE if name.startswith("layer")]
_STEP = {"step_size", "gamma"}
# What a run that is gone on with may have otherwise than when it was begun.
_FREE = {"resume", "device", "workers", "store", "as_json"}


def _choice(
    name: str,
    values: Any,  # noqa: ANN401
    **settings: Any,  # noqa: ANN401
) -> Callable[[Function], Function]:
    field = name.removeprefix("--").replace("-", "_")
    return click.option(
        name,
        type=click.Choice(get_args(values)),
        default=getattr(FinetuneSpec, field),
        show_default=True,
        **settings,
    )


def _number(
    name: str,
    **settings: Any,  # noqa: ANN401
) -> Callable[[Function], Function]:
    field = name.removeprefix("--").replace("-", "_")
    return click.option(
        name, default=getattr(FinetuneSpec, field), show_default=True, **settings
    )


def _training_options(function: Function) -> Function:
    """Add the options of the recipe that only the online path has."""
    options = [
        _number(
            "--head-lr-mult", help="The head's learning rate over the last stage's."
        ),
        _number(
            "--layer-decay",
            help="A stage's learning rate over that of the next one, 0 to 1.",
        ),
        _choice("--optimizer", Optimizer, help="What steps downhill."),
        _choice("--schedule", Schedule, help="How the learning rate falls."),
        _number("--warmup", help="Epochs in which the learning rate rises to --lr."),
        click.option(
            "--no-norm-decay",
            is_flag=True,
            help="No weight decay on BatchNorm and biases.",
        ),
        _choice(
            "--bn",
            BatchNormPolicy,
            help="Whose BatchNorm statistics move: those of the trained stages, none, "
            "or all, as in the classic tutorial.",
        ),
        _number("--label-smoothing", help="Share of a label spread over all classes."),
        _number("--mixup", help="Alpha of mixup; 0 for none."),
        _number("--accumulate", help="Batches between two steps of the optimizer."),
        _choice(
            "--precision",
            TrainingPrecision,
            help="Of products and convolutions; float16 on CUDA only.",
        ),
        click.option(
            "--patience",
            type=int,
            default=None,
            help="Stop after so many epochs without a better one.",
        ),
        click.option(
            "--no-augment",
            is_flag=True,
            help="Train on the fixed view of each image, as fit-head does.",
        ),
        _choice("--store", Store, help="Where decoded images wait for the next epoch."),
        click.option(
            "--store-size",
            type=int,
            default=None,
            metavar="PIXELS",
            help="Keep images with a shorter side of this; changes the augmentation.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@data_argument
@click.option("--full", is_flag=True, help="Train every layer.")
@click.option(
    "--head-only",
    is_flag=True,
    help="Train the head on augmented images; the backbone stays frozen.",
)
@click.option(
    "--unfreeze",
    type=click.Choice(_STAGES),
    default=None,
    help="Train this stage, those behind it and the head.",
)
@click.option("--from-scratch", is_flag=True, help="Begin with random weights.")
@backbone_option
@weights_option
@click.option(
    "--init-head",
    type=FILE,
    default=None,
    metavar="MODEL",
    help="Begin with the head of a model, such as fit-head made.",
)
@click.option(
    "--from-cache",
    type=FILE,
    default=None,
    metavar="CACHE",
    help="Take the frozen stages' output from a cache of 'extract --layer'.",
)
@sgd_options(FinetuneSpec)
@_training_options
@device_option
@_number("--workers", help="Threads that decode and augment; 0: one per core.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="Name images that cannot be used and stop, or go on without them.",
)
@exif_option
@click.option(
    "--resume",
    type=FILE,
    default=None,
    metavar="RUN",
    help="Go on with an interrupted run, as it was begun.",
)
@out_option
@json_option
@click.pass_context
def finetune(
    ctx: click.Context,
    /,
    full: bool,
    head_only: bool,
    unfreeze: Any,  # noqa: ANN401
    as_json: bool,
    resume: Path | None,
    **given: Any,  # noqa: ANN401
) -> None:
    """Train online on augmented images: every layer, some, or the head alone.

    DATA is what extract takes: a folder of class folders, a list, tar shards, tables,
    or hymenoptera, hotdog or digits.

    Several processes train together by
    torchrun --nproc-per-node K -m featcache finetune ...
    """
    from featcache.stages.finetuning import finetune as run
    from featcache.stages.finetuning import resume_finetuning as go_on

    if resume is not None:
        others = {p.name or "" for p in ctx.command.params} - _FREE
        refuse_others(ctx, others, "--resume, which goes on as the run was begun")
        result = go_on(
            resume,
            device=given["device"],
            workers=given["workers"],
            store=given["store"],
            progress=Terminal(),
        )
    else:
        trained = {"all": full, "head": head_only, unfreeze: unfreeze is not None}
        chosen = [name for name, is_chosen in trained.items() if is_chosen]
        if len(chosen) != 1:
            raise click.UsageError(
                "say what to train: --full, --head-only or --unfreeze"
            )
        _refuse_useless(ctx, chosen[0], given)
        given["norm_decay"] = not given.pop("no_norm_decay")
        given["augment"] = not given.pop("no_augment")
        settings = {f.name for f in fields(FinetuneSpec)} & set(given)
        spec = FinetuneSpec(
            unfreeze=chosen[0], **{name: given.pop(name) for name in settings}
        )
        result = run(given.pop("data"), spec, **given, progress=Terminal())
    place = place_among_ranks()
    if place is None or place[0] == 0:
        show_training(result.report, as_json=as_json)


def _refuse_useless(ctx: click.Context, chosen: str, given: dict[str, Any]) -> None:
    """Refuse options that would do nothing beside others."""
    if chosen == "head":
        refuse_others(
            ctx, {"from_scratch", "head_lr_mult", "layer_decay"}, "--head-only"
        )
    if chosen != "all":
        refuse_others(ctx, {"from_scratch"}, f"--unfreeze {chosen}")
    if given["from_scratch"]:
        refuse_others(ctx, {"weights"}, "--from-scratch")
    if given["schedule"] != "step":
        refuse_others(ctx, _STEP, f"--schedule {given['schedule']}")
    if given["optimizer"] == "adamw":
        refuse_others(ctx, {"momentum", "nesterov"}, "--optimizer adamw")
    if given["from_cache"] is not None:
        images = {"data", "exif", "on_error", "store", "store_size", "no_augment"}
        refuse_others(ctx, {*images, "backbone"}, "--from-cache")
        if ctx.get_parameter_source("weights") is ParameterSource.DEFAULT:
            given["weights"] = None  # those that the cache was made with
