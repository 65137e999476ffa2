"""The optimizer: a group of parameters for each stage, and the rate of each epoch."""

from collections.abc import Iterator

import torch
from torch import nn

from featcache.core.errors import TrainingError
from featcache.core.finetune_spec import SHALLOWEST_FIRST, FinetuneSpec
from featcache.train.classifier import Classifier

Group = dict[str, object]

_LARGEST = torch.finfo(torch.float32).max


def make_optimizer(model: Classifier, spec: FinetuneSpec) -> torch.optim.Optimizer:
    """Return the optimizer of what is trained.

    Parameters
    ----------
    model : Classifier
        Whose trained stages and head become groups, from the image on.
    spec : FinetuneSpec
        ``sgd`` or ``adamw``, and the rule of each group's learning rate.

    Returns
    -------
    torch.optim.Optimizer
        Each group has its ``stage``, and its learning rate at the start as
        ``start_lr``.
    """
    groups = list(_groups(model, spec))
    # On the CPU torch's fused step is slower than its plain one (12 against 9 ms for
    # ResNet-18); on CUDA it is one kernel instead of hundreds.
    fused = next(model.head.parameters()).is_cuda
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=spec.lr, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        fused=fused,
    )


def set_epoch(optimizer: torch.optim.Optimizer, spec: FinetuneSpec, epoch: int) -> None:
    """Give every group the learning rate of an epoch.

    The rate follows from the epoch alone, so a schedule has no state to be resumed.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        From `make_optimizer`.
    spec : FinetuneSpec
        The schedule.
    epoch : int
        From 0.

    Raises
    ------
    TrainingError
        When a rate has grown beyond what float32 holds.
    """
    factor = spec.lr_factor(epoch)
    for group in optimizer.param_groups:
        lr = group["start_lr"] * factor
        if not lr <= _LARGEST:
            raise TrainingError(
                f"the learning rate is {lr:g} in epoch {epoch + 1}, which float32 does "
                "not hold; try a smaller gamma or lr"
            )
        group["lr"] = lr


def _groups(model: Classifier, spec: FinetuneSpec) -> Iterator[Group]:
    named = [
        *((_stage(name), p) for name, p in model.backbone.named_parameters()),
        *(("head", p) for p in model.head.parameters()),
    ]
    for stage in (*SHALLOWEST_FIRST, "head"):
        parameters = [p for of, p in named if of == stage]
        for decays in (True, False):
            members = [p for p in parameters if _decays(p, spec) == decays]
            if members:
                lr = spec.stage_lr(stage)
                yield {
                    "params": members,
                    "lr": lr,
                    "start_lr": lr,
                    "weight_decay": spec.weight_decay if decays else 0.0,
                    "stage": stage,
                }


def _decays(parameter: nn.Parameter, spec: FinetuneSpec) -> bool:
    # Biases and BatchNorm's scale and shift are vectors, all other weights are not.
    return spec.norm_decay or parameter.ndim > 1


def _stage(name: str) -> str:
    first = name.split(".", 1)[0]
    return first if first in SHALLOWEST_FIRST else SHALLOWEST_FIRST[0]
