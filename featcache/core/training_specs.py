"""Settings of training heads by SGD: one, or many at once."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

from featcache.core.checks import (
    AT_LEAST_1,
    BELOW_1,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    one_of,
    require,
)
from featcache.core.errors import SpecError

Standardize = Literal["none", "zscore", "l2"]
SelectionSplit = Literal["val", "train"]

STANDARDIZE: tuple[Standardize, ...] = get_args(Standardize)
AXES = (
    "lr",
    "momentum",
    "nesterov",
    "weight_decay",
    "step_size",
    "gamma",
    "standardize",
)
"""What heads trained together may differ in."""


@dataclass(frozen=True, kw_only=True)
class SgdSpec:
    """SGD with momentum and StepLR, the classic tutorial's numbers as defaults."""

    lr: float = 0.001  # learning rate at the start
    momentum: float = 0.9
    nesterov: bool = False  # look ahead along the momentum; needs momentum above 0
    weight_decay: float = 0.0  # L2 penalty, on weight and bias as torch has it
    epochs: int = 25
    batch_size: int = 4
    step_size: int = 7  # epochs between two drops of the learning rate
    gamma: float = 0.1  # factor of each drop
    seed: int = 0  # of the initial weights and the order of the samples
    standardize: Standardize = "none"  # zscore: each feature; l2: each sample's norm

    def __post_init__(self) -> None:
        require(
            self,
            lr=POSITIVE,
            momentum=BELOW_1,
            nesterov=one_of(False, True),
            weight_decay=NOT_NEGATIVE,
            epochs=AT_LEAST_1,
            batch_size=AT_LEAST_1,
            step_size=AT_LEAST_1,
            gamma=POSITIVE,
            seed=COUNT,
            standardize=one_of(*STANDARDIZE),
        )
        if self.nesterov and not self.momentum:
            raise SpecError("nesterov needs a momentum above 0, got momentum 0")

    def lr_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch (StepLR).

        Parameters
        ----------
        epoch : int
            From 0.

        Returns
        -------
        float
            ``lr * gamma ** (epoch // step_size)``; infinite where that overflows.
        """
        try:
            return self.lr * self.gamma ** (epoch // self.step_size)
        except OverflowError:
            return math.inf


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """Every combination of some settings of SGD, and how the best is chosen.

    The fields of `SgdSpec` in which heads may differ are tuples here.
    """

    lr: tuple[float, ...] = (SgdSpec.lr,)
    l2_lr_mult: float = 1.0  # learning rates of the heads with l2 over those above
    momentum: tuple[float, ...] = (SgdSpec.momentum,)
    nesterov: tuple[bool, ...] = (SgdSpec.nesterov,)
    weight_decay: tuple[float, ...] = (SgdSpec.weight_decay,)
    epochs: int = SgdSpec.epochs
    batch_size: int = SgdSpec.batch_size
    step_size: tuple[int, ...] = (SgdSpec.step_size,)
    gamma: tuple[float, ...] = (SgdSpec.gamma,)
    seed: int = SgdSpec.seed
    standardize: tuple[Standardize, ...] = (SgdSpec.standardize,)
    select_on: SelectionSplit | None = None  # None: val where there is one, else train
    holdout: float = 0.2  # share of train held out where it is chosen on train
    refit: bool = False  # at the end fit the chosen settings on train and val
    seeds: int = 1  # how often the chosen settings are fitted: seed, seed + 1, ...

    def __post_init__(self) -> None:
        for name in AXES:
            object.__setattr__(self, name, _values(name, getattr(self, name)))
        require(
            self,
            l2_lr_mult=POSITIVE,
            select_on=one_of(None, "val", "train"),
            holdout=SHARE,
            refit=one_of(False, True),
            seeds=AT_LEAST_1,
        )
        self.specs()  # every value follows the rules of SgdSpec

    def selects_on(self, *, has_val: bool) -> SelectionSplit:
        """Return what the heads are compared on.

        Parameters
        ----------
        has_val : bool
            Whether there is such a split.

        Returns
        -------
        {"val", "train"}
            As asked for; else val where there is one.
        """
        return self.select_on or ("val" if has_val else "train")

    def specs(self) -> tuple[SgdSpec, ...]:
        """Return every combination, the last axis changing fastest.

        Returns
        -------
        tuple of SgdSpec
            Each once, however often its values were named.
        """
        axes = [dict.fromkeys(getattr(self, name)) for name in AXES]
        shared = {n: getattr(self, n) for n in ("epochs", "batch_size", "seed")}
        grid = (dict(zip(AXES, values, strict=True)) for values in product(*axes))
        return tuple(
            SgdSpec(**shared, **{**settings, "lr": lr})
            for settings in grid
            for lr in [settings["lr"] * self.lr_mult(settings["standardize"])]
        )

    def lr_mult(self, standardize: str) -> float:
        """Return the factor of the learning rates of some heads.

        Parameters
        ----------
        standardize : {"none", "zscore", "l2"}
            Of the heads.

        Returns
        -------
        float
            1 but for l2.
        """
        return self.l2_lr_mult if standardize == "l2" else 1.0

    @classmethod
    def wide(cls) -> "SweepSpec":
        """Return a grid around the settings that were good for frozen ResNets.

        Returns
        -------
        SweepSpec
            54 heads: six learning rates, three weight decays, three
            standardisations.
        """
        # Measured on ResNet-18 features of 244 photographs, whose norms are 12 to 25:
        # the lowest val loss had lr 1e-3 with batches of 4 and 1e-2 with 64, raw and
        # z-scored alike; with unit rows 1000 times that. Above 0.1 accuracy stays and
        # the loss explodes. Weight decay acts where the lr is large: with 1e-3,
        # values up to 1e-2 changed nothing.
        return cls(
            lr=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
            l2_lr_mult=1000.0,
            weight_decay=(0.0, 1e-4, 1e-3),
            standardize=STANDARDIZE,
        )


def _values(name: str, values: object) -> tuple[Any, ...]:
    """Return the values of an axis, numpy's numbers as Python's."""
    if not isinstance(values, tuple) or not values:
        raise SpecError(f"{name} must be a tuple of one or more values, got {values!r}")
    return tuple(v.item() if getattr(v, "ndim", None) == 0 else v for v in values)
