"""SGD with momentum and StepLR for linear heads: one, or many in one pass.

Step for step what ``torch.nn.Linear`` + ``CrossEntropyLoss`` + ``torch.optim.SGD`` +
``StepLR`` compute, with the gradient written down instead of recorded.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.heads import Floats, LinearHead, initial_head
from featcache.core.metrics import Labels, accuracy, cross_entropy
from featcache.core.reports import EpochRecord
from featcache.core.seeds import epoch_order
from featcache.core.training_specs import STANDARDIZE, SgdSpec
from featcache.train.heads import Heads
from featcache.train.standardize import Scaling, fit_scaling
from featcache.train.steps import Epochs, Losses, NumpyEpochs

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# Multiply-adds in one product from which a second BLAS thread is worth waiting for:
# below, two threads on busy cores wait for each other: measured up to 100 times slower.
_WORTH_THREADS = 400_000_000

# What numpy takes for a step besides the arithmetic, and what compiled code must save
# to pay for loading numba (0.4 s; 3 s more the first time, when it compiles).
_STEP_SECONDS = 35e-6
_LOADING_SECONDS = 1.0
_COMPILED_FLOATS = 32_768  # of a head: larger ones do not stay in the L1/L2 cache
_WIDE, _LARGE_STEP = 32, 500_000  # columns and multiply-adds from which BLAS wins
_COMPILED_BYTES = 256 << 20  # of standardised features, which are copied for this

_SCORED = 1 << 22  # scores of val computed at once


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted head and how it came about."""

    head: LinearHead
    history: tuple[EpochRecord, ...]
    best_epoch: int  # from 1; the head is the one after this epoch
    notes: tuple[str, ...] = ()  # worth telling the user

    @property
    def best(self) -> EpochRecord:
        """The record of the best epoch."""
        return self.history[self.best_epoch - 1]


@dataclass(frozen=True)
class Diverged:
    """A head that was given up because its loss was no longer finite."""

    spec: SgdSpec
    epoch: int  # from 1

    def __str__(self) -> str:
        lr = self.spec.lr_at(self.epoch - 1)
        return f"the loss stopped being finite in epoch {self.epoch} with lr {lr:g}"


def fit_sgd(
    train: Features, val: Features | None, *, classes: int, spec: SgdSpec
) -> Fitted:
    """Fit a linear head by SGD with momentum and StepLR.

    Parameters
    ----------
    train : Features
        X (n, D), y (n,).
    val : Features, optional
        Chooses the epoch: highest accuracy, then lowest loss, then earliest. Without
        it the last epoch counts.
    classes : int
        C.
    spec : SgdSpec
        Learning rate and the rest.

    Returns
    -------
    Fitted
        The head after the best epoch, for features as they are in the cache.

    Raises
    ------
    TrainingError
        When the loss stops being finite.
    """
    (fitted,) = fit_sgd_many(train, val, classes=classes, specs=[spec])
    assert isinstance(fitted, Fitted)  # else it has been raised
    return fitted


def fit_sgd_many(
    train: Features, val: Features | None, *, classes: int, specs: Sequence[SgdSpec]
) -> list[Fitted | Diverged]:
    """Fit many linear heads in one pass over the features, each as if it were alone.

    Parameters
    ----------
    train : Features
        X (n, D), y (n,).
    val : Features, optional
        Chooses each head's epoch, as in `fit_sgd`.
    classes : int
        C.
    specs : sequence of SgdSpec
        One per head, H in all; epochs, batch size and seed are the same in all.

    Returns
    -------
    list of Fitted or Diverged
        One per head, in order. In the histories ``seconds`` are those of all heads
        that were trained together.

    Raises
    ------
    TrainingError
        When the loss of every head stops being finite.
    ValueError
        When heads differ in what they must share.
    """
    if len({(s.epochs, s.batch_size, s.seed) for s in specs}) != 1:
        raise ValueError("heads trained together share epochs, batch_size and seed")
    results: dict[int, Fitted | Diverged] = {}
    for kind in STANDARDIZE:  # other features, hence other products
        places = [i for i, s in enumerate(specs) if s.standardize == kind]
        if places:
            scaling = fit_scaling(train.X, kind)
            group = _Group([specs[i] for i in places], train, val, classes, scaling)
            results.update(zip(places, group.fit(), strict=True))
    lost = [r for r in results.values() if isinstance(r, Diverged)]
    if len(lost) == len(specs):
        every = (
            "" if len(lost) == 1 else f"all {len(lost)} heads diverged; in the first "
        )
        raise TrainingError(f"{every}{lost[0]}; try a smaller --lr")
    return [results[i] for i in range(len(specs))]


def judge(head: LinearHead, val: Features | None) -> tuple[float | None, float | None]:
    """Return a head's loss and accuracy on validation features.

    Parameters
    ----------
    head : LinearHead
        As it is now.
    val : Features, optional
        Without it there is nothing to judge by.

    Returns
    -------
    (float, float) or (None, None)
        Mean cross-entropy in nats, and accuracy.
    """
    if val is None:
        return None, None
    scores = head.scores(val.X)
    return cross_entropy(scores, val.y), accuracy(scores, val.y)


def selection_key(record: EpochRecord) -> tuple[float, float]:
    """Return what the best epoch has the most of.

    Parameters
    ----------
    record : EpochRecord
        One epoch.

    Returns
    -------
    (float, float)
        Validation accuracy, then minus the loss; without validation the epoch.
    """
    if record.val_accuracy is None or record.val_loss is None:
        return (float(record.epoch), 0.0)
    return (record.val_accuracy, -record.val_loss)


class _Group:
    """Heads that see the same standardised features, trained together."""

    def __init__(
        self,
        specs: Sequence[SgdSpec],
        train: Features,
        val: Features | None,
        classes: int,
        scaling: Scaling,
    ) -> None:
        self.specs, self.train, self.val, self.scaling = specs, train, val, scaling
        start = initial_head(classes, train.X.shape[1], seed=specs[0].seed)
        self.heads = Heads(start, specs)
        self.places = list(range(len(specs)))  # of the heads that are left
        self.best = [start] * len(specs)
        self.best_epoch = [1] * len(specs)
        self.history: list[list[EpochRecord]] = [[] for _ in specs]
        self.lost: dict[int, Diverged] = {}

    def fit(self) -> list[Fitted | Diverged]:
        """Train to the last epoch."""
        shared, n = self.specs[0], len(self.train)
        epochs = self._epochs()
        # Overflow is dealt with after the epoch, by giving up the head.
        with self._threads(), np.errstate(all="ignore"):
            for epoch in range(shared.epochs):
                began = time.perf_counter()
                order = epoch_order(n, seed=shared.seed, epoch=epoch)
                loss, right = epochs.run(order, self.heads.lr(epoch))
                measured = (loss, right, *self._judge())
                self._record(epoch, measured, time.perf_counter() - began)
                if not self.places:
                    break
        return [
            self.lost.get(i)
            or Fitted(
                self.scaling.export(self.best[i]),
                tuple(self.history[i]),
                self.best_epoch[i],
            )
            for i in range(len(self.specs))
        ]

    def _epochs(self) -> Epochs:
        X, y, batch_size = self.train.X, self.train.y, self.specs[0].batch_size
        if _compiling_pays(self.heads, len(y), self.specs[0]):
            from featcache.train.kernels import CompiledEpochs

            return CompiledEpochs(self.heads, self.scaling(X), y, batch_size)
        return NumpyEpochs(self.heads, X, y, self.scaling, batch_size)

    def _threads(self) -> AbstractContextManager[object]:
        size = min(self.specs[0].batch_size, len(self.train)) * self.heads.W.size
        limits: AbstractContextManager[object] = _blas().limit(
            limits=1 if size < _WORTH_THREADS else None, user_api="blas"
        )
        return limits

    def _judge(self) -> tuple[Losses | None, Losses | None]:
        """Return loss and accuracy (H,) on val, of all heads at once."""
        if self.val is None:
            return None, None
        X, y, (H, C, _) = self.val.X, self.val.y, self.heads.W.shape
        loss, right = np.zeros(H), np.zeros(H)
        block = max(1, _SCORED // (H * C))
        for start in range(0, len(y), block):
            labels = y[start : start + block]
            scores = self.heads.scores(self.scaling(X[start : start + block]))
            right += (scores.argmax(axis=2) == labels[:, None]).sum(axis=0)
            loss += _cross_entropies(scores, labels)
        return loss / len(y), right / len(y)

    def _record(
        self,
        epoch: int,
        measured: tuple[Losses, Losses, Losses | None, Losses | None],
        seconds: float,
    ) -> None:
        """Note an epoch of every head; keep the best weights, give up the lost."""
        loss, right, val_loss, val_right = measured
        finite = self.heads.finite() & np.isfinite(loss)
        if val_loss is not None:
            finite &= np.isfinite(val_loss)
        for h, place in enumerate(self.places):
            if not finite[h]:
                self.lost[place] = Diverged(self.specs[place], epoch + 1)
                continue
            record = EpochRecord(
                epoch=epoch + 1,
                lr=self.specs[place].lr_at(epoch),
                train_loss=float(loss[h]),
                train_accuracy=float(right[h]),
                val_loss=None if val_loss is None else float(val_loss[h]),
                val_accuracy=None if val_right is None else float(val_right[h]),
                seconds=seconds,
            )
            self._keep_if_best(h, place, record)
        if not finite.all():
            self.heads.keep(finite)
            self.places = [p for h, p in enumerate(self.places) if finite[h]]

    def _keep_if_best(self, h: int, place: int, record: EpochRecord) -> None:
        history = self.history[place]
        best = history[self.best_epoch[place] - 1] if history else None
        history.append(record)
        if best is None or selection_key(record) > selection_key(best):
            self.best[place] = self.heads.head(h)
            self.best_epoch[place] = record.epoch


@cache
def _blas() -> "ThreadpoolController":
    """Return who sets BLAS's threads; looking for the libraries takes 2 ms."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _cross_entropies(scores: Floats, y: Labels) -> Losses:
    """Return the summed cross-entropy (H,) of scores (n, H, C), in float64."""
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=2, keepdims=True)
    at_label = shifted[np.arange(len(y)), :, y]
    losses: Losses = (np.log(np.exp(shifted).sum(axis=2)) - at_label).sum(axis=0)
    return losses


def _compiled_is_faster(heads: Heads, n: int, batch_size: int) -> bool:
    """Tell whether compiled loops take less time than numpy's matrix products."""
    H, C, columns = heads.W.shape
    if C * columns > _COMPILED_FLOATS or 4 * n * columns > _COMPILED_BYTES:
        return False
    # BLAS is at its best where many heads make wide products of large batches.
    wide = H * C >= _WIDE and min(batch_size, n) * heads.W.size > _LARGE_STEP
    return not wide and find_spec("numba") is not None


def _compiling_pays(heads: Heads, n: int, spec: SgdSpec) -> bool:
    """Tell whether loops compiled by numba will be done sooner, loading included."""
    steps = spec.epochs * -(-n // spec.batch_size)
    loaded = "featcache.train.kernels" in sys.modules
    worth = loaded or steps * _STEP_SECONDS > _LOADING_SECONDS
    return worth and _compiled_is_faster(heads, n, spec.batch_size)
