"""Settings of the online path: which layers are trained, and by what rule."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from featcache.core.checks import (
    AT_LEAST_1,
    BELOW_1,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    one_of,
    require,
)
from featcache.core.errors import SpecError
from featcache.core.training_specs import SgdSpec

Unfreeze = Literal["all", "layer1", "layer2", "layer3", "layer4", "head"]
BatchNormPolicy = Literal["train", "frozen", "drift"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["step", "cosine", "constant"]
TrainingPrecision = Literal["float32", "bfloat16", "float16"]
Store = Literal["auto", "ram", "disk", "off"]

UNFREEZE: tuple[Unfreeze, ...] = get_args(Unfreeze)
SHALLOWEST_FIRST: tuple[str, ...] = ("stem", "layer1", "layer2", "layer3", "layer4")
"""The stages of a ResNet in the order in which an image passes them."""

_UP_TO_1 = Rule(
    "a number above 0, at most 1",
    lambda v: POSITIVE.holds(v) and v <= 1,
)


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """The online path: augmented images through backbone and head."""

    unfreeze: Unfreeze = "all"  # the first stage that is trained; head: none is
    from_scratch: bool = False  # random weights instead of pretrained ones
    lr: float = SgdSpec.lr  # learning rate at the start, of the last stage
    head_lr_mult: float = 1.0  # the head's learning rate over the last stage's
    layer_decay: float = 1.0  # a stage's learning rate over that of the one behind it
    optimizer: Optimizer = "sgd"
    momentum: float = SgdSpec.momentum  # of SGD; AdamW has torch's betas
    nesterov: bool = False  # look ahead along the momentum; needs momentum above 0
    weight_decay: float = 0.0  # L2 penalty of SGD, decoupled in AdamW
    norm_decay: bool = True  # False: no weight decay on BatchNorm and biases
    epochs: int = SgdSpec.epochs  # 0: only measure the network as it starts
    batch_size: int = SgdSpec.batch_size  # images that BatchNorm sees together
    accumulate: int = 1  # batches whose gradients are averaged before each step
    schedule: Schedule = "step"
    warmup: int = 0  # epochs in which the learning rate rises to lr in equal steps
    step_size: int = SgdSpec.step_size  # epochs between two drops; of step
    gamma: float = SgdSpec.gamma  # factor of each drop; of step
    bn: BatchNormPolicy = "train"  # statistics: of trained stages, of none, of all
    label_smoothing: float = 0.0  # share of a label that is spread over all classes
    mixup: float = 0.0  # alpha of mixup's Beta(alpha, alpha); 0: no mixup
    precision: TrainingPrecision = "float32"  # of products and convolutions
    patience: int | None = None  # epochs without a better one, after which to stop
    seed: int = 0  # of the initial weights, the order and the augmentation
    augment: bool = True  # False: the fixed view in every epoch, as in a cache
    store: Store = "auto"  # where decoded images wait for the next epoch
    store_size: int | None = None  # pixels of their shorter side; None: as they are
    workers: int = 0  # threads that decode and augment; 0: one per core

    def __post_init__(self) -> None:
        require(
            self,
            unfreeze=one_of(*UNFREEZE),
            from_scratch=one_of(False, True),
            lr=POSITIVE,
            head_lr_mult=POSITIVE,
            layer_decay=_UP_TO_1,
            optimizer=one_of(*get_args(Optimizer)),
            momentum=BELOW_1,
            nesterov=one_of(False, True),
            weight_decay=NOT_NEGATIVE,
            norm_decay=one_of(False, True),
            epochs=COUNT,
            batch_size=AT_LEAST_1,
            accumulate=AT_LEAST_1,
            schedule=one_of(*get_args(Schedule)),
            warmup=COUNT,
            step_size=AT_LEAST_1,
            gamma=POSITIVE,
            bn=one_of(*get_args(BatchNormPolicy)),
            label_smoothing=BELOW_1,
            mixup=NOT_NEGATIVE,
            precision=one_of(*get_args(TrainingPrecision)),
            patience=_or_none(AT_LEAST_1),
            seed=COUNT,
            augment=one_of(False, True),
            store=one_of(*get_args(Store)),
            store_size=_or_none(AT_LEAST_1),
            workers=COUNT,
        )
        self._check_optimizer()
        self._check_stages()

    def _check_optimizer(self) -> None:
        if self.nesterov and not (self.momentum and self.optimizer == "sgd"):
            raise SpecError(
                "nesterov needs SGD with a momentum above 0, got "
                f"{self.optimizer} with momentum {self.momentum:g}"
            )
        if not (self.norm_decay or self.weight_decay):
            raise SpecError(
                "norm_decay False leaves BatchNorm and biases without weight decay, "
                "but weight_decay is 0 for all; set it, or leave norm_decay True"
            )
        if self.mixup and self.batch_size == 1:
            raise SpecError("mixup mixes the images of a batch, got batch_size 1")
        if self.epochs and self.warmup >= self.epochs:
            raise SpecError(
                f"warmup must be below epochs ({self.epochs}), got {self.warmup}"
            )

    def _check_stages(self) -> None:
        if self.head_only and self.head_lr_mult != 1:
            raise SpecError(
                f"head_lr_mult is {self.head_lr_mult:g}, but where the backbone is "
                "frozen only the head has a learning rate; set lr, or train more"
            )
        if self.head_only and self.layer_decay != 1:
            raise SpecError(
                f"layer_decay is {self.layer_decay:g}, but no stage of the backbone is "
                "trained; leave it at 1, or train more"
            )
        if self.bn == "drift" and self.full:
            raise SpecError(
                "bn drift lets the statistics of frozen stages move, and with unfreeze "
                "all none is frozen; use train"
            )
        if self.from_scratch and not self.full:
            raise SpecError(
                "from_scratch trains every layer: a frozen backbone of random weights "
                f"has nothing to tell; unfreeze must be all, got {self.unfreeze}"
            )

    @property
    def full(self) -> bool:
        """Whether every layer is trained."""
        return self.unfreeze == "all"

    @property
    def head_only(self) -> bool:
        """Whether nothing but the head is trained."""
        return self.unfreeze == "head"

    @property
    def name(self) -> str:
        """What is trained, for reports: full, head-only, or the first stage."""
        return {"all": "full", "head": "head-only"}.get(self.unfreeze, self.unfreeze)

    @property
    def trained_stages(self) -> tuple[str, ...]:
        """The stages of the backbone that are trained, from the image on."""
        if self.full:
            return SHALLOWEST_FIRST
        if self.head_only:
            return ()
        return SHALLOWEST_FIRST[SHALLOWEST_FIRST.index(self.unfreeze) :]

    @property
    def frozen_stages(self) -> tuple[str, ...]:
        """The stages of the backbone that are not, from the image on."""
        return SHALLOWEST_FIRST[: len(SHALLOWEST_FIRST) - len(self.trained_stages)]

    def stage_lr(self, stage: str) -> float:
        """Return the learning rate of a stage at the start, without warm-up.

        Parameters
        ----------
        stage : str
            One of `SHALLOWEST_FIRST`, or head.

        Returns
        -------
        float
            ``lr * layer_decay ** (stages behind it)``; the head's is
            ``lr * head_lr_mult``.
        """
        if stage == "head":
            return self.lr * self.head_lr_mult
        behind = len(SHALLOWEST_FIRST) - 1 - SHALLOWEST_FIRST.index(stage)
        return self.lr * self.layer_decay**behind

    def lr_factor(self, epoch: int) -> float:
        """Return what the learning rates of an epoch are multiplied by.

        Parameters
        ----------
        epoch : int
            From 0.

        Returns
        -------
        float
            ``(epoch + 1) / (warmup + 1)`` while it warms up; then, counted from there,
            that of torch's StepLR or CosineAnnealingLR, or 1.
        """
        if epoch < self.warmup:
            return (epoch + 1) / (self.warmup + 1)
        after = epoch - self.warmup
        if self.schedule == "step":
            try:
                return self.gamma ** (after // self.step_size)
            except OverflowError:
                return math.inf
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * after / (self.epochs - self.warmup))) / 2
        return 1.0


def _or_none(rule: Rule) -> Rule:
    def holds(value: Any) -> bool:  # noqa: ANN401 - whatever was passed
        return value is None or rule.holds(value)

    return Rule(f"{rule.expected}, or None", holds)
