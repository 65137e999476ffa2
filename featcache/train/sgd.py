"""SGD with momentum and StepLR for linear heads: one, or many in one pass.

Step for step what ``torch.nn.Linear`` + ``CrossEntropyLoss`` + ``torch.optim.SGD`` +
``StepLR`` compute, with the gradient written down instead of recorded.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.heads import LinearHead, initial_head
from featcache.core.reports import EpochRecord
from featcache.core.resources import Resources
from featcache.core.shares import Share
from featcache.core.training_specs import STANDARDIZE, SgdSpec
from featcache.train.engines import engine, limits
from featcache.train.feeding import Feed, WindowFeed
from featcache.train.heads import Heads
from featcache.train.judging import SCORED, cross_entropies, selection_key
from featcache.train.standardize import scaling_of
from featcache.train.steps import Epochs, Losses
from featcache.train.windows import Plan, plan_windows

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# Multiply-adds in one product from which a second BLAS thread is worth waiting for:
# below, two threads on busy cores wait for each other: measured up to 100 times slower.
_WORTH_THREADS = 400_000_000

_ANY = Resources()


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
    train: Features,
    val: Features | None,
    *,
    classes: int,
    spec: SgdSpec,
    resources: Resources = _ANY,
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
    resources : Resources
        Memory and device.

    Returns
    -------
    Fitted
        The head after the best epoch, for features as they are in the cache.

    Raises
    ------
    TrainingError
        When the loss stops being finite.
    """
    (fitted,) = fit_sgd_many(
        train, val, classes=classes, specs=[spec], resources=resources
    )
    assert isinstance(fitted, Fitted)  # else it has been raised
    return fitted


def fit_sgd_many(
    train: Features,
    val: Features | None,
    *,
    classes: int,
    specs: Sequence[SgdSpec],
    resources: Resources = _ANY,
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
    resources : Resources
        Memory and device. Training features larger than the memory are visited in
        windows, see `featcache.train.windows`.

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
    memory, resident = limits(resources)
    plan = plan_windows(
        train,
        classes=classes,
        batch_size=specs[0].batch_size,
        memory=resources.share.budget(train, memory),
        resident=resident,
    )
    results: dict[int, Fitted | Diverged] = {}
    for kind in STANDARDIZE:  # other features, hence other products
        places = [i for i, s in enumerate(specs) if s.standardize == kind]
        if places:
            chosen = [specs[i] for i in places]
            group = _Group(chosen, train, val, classes, resources)
            fitted = group.fit(plan)
            results.update(zip(places, fitted, strict=True))
    lost = [r for r in results.values() if isinstance(r, Diverged)]
    if len(lost) == len(specs):
        every = (
            "" if len(lost) == 1 else f"all {len(lost)} heads diverged; in the first "
        )
        raise TrainingError(f"{every}{lost[0]}; try a smaller --lr")
    return [results[i] for i in range(len(specs))]


class _Group:
    """Heads that see the same standardised features, trained together."""

    def __init__(
        self,
        specs: Sequence[SgdSpec],
        train: Features,
        val: Features | None,
        classes: int,
        resources: Resources,
    ) -> None:
        self.specs, self.train, self.val = specs, train, val
        self.resources, self.share = resources, resources.share
        # Once: what of val is a process's own may be a copy.
        self.judged = None if val is None else self.share.holding(val).of(val)
        start = initial_head(classes, train.embed_dim, seed=specs[0].seed)
        self.scaling = scaling_of(train, specs[0].standardize, self.share)
        self.heads = Heads(start, specs)
        self.places = list(range(len(specs)))  # of the heads that are left
        self.best = [start] * len(specs)
        self.best_epoch = [1] * len(specs)
        self.history: list[list[EpochRecord]] = [[] for _ in specs]
        self.lost: dict[int, Diverged] = {}

    def fit(self, plan: Plan | None) -> list[Fitted | Diverged]:
        """Train to the last epoch."""
        shared, n = self.specs[0], len(self.train)
        epochs = engine(self.heads, self.train, self.scaling, shared, self.resources)
        feed = _feed(self.train, plan, shared, self.share)
        # Overflow is dealt with after the epoch, by giving up the head.
        with feed, self._threads(), np.errstate(all="ignore"):
            for epoch in range(shared.epochs):
                began = time.perf_counter()
                loss, right = self._visit(epochs, feed, epoch)
                measured = (loss / n, right / n, *self._judge())
                self._record(epoch, measured, time.perf_counter() - began)
                if not self.places:
                    break
        return [
            self.lost.get(i)
            or Fitted(
                self.scaling.export(self.best[i]),
                tuple(self.history[i]),
                self.best_epoch[i],
                () if plan is None else (plan.note(self.train),),
            )
            for i in range(len(self.specs))
        ]

    def _visit(self, epochs: Epochs, feed: Feed, epoch: int) -> tuple[Losses, Losses]:
        """Train for an epoch; return summed loss and hits (H,) while doing so."""
        loss, right = np.zeros(len(self.heads)), np.zeros(len(self.heads))
        for X, y, order in feed.epoch(epoch):
            epochs.load(X, y)
            sums = epochs.run(order, self.heads.lr(epoch))
            loss += sums[0]
            right += sums[1]
        loss, right = self.share.total(np.stack([loss, right]))
        return loss, right

    def _threads(self) -> AbstractContextManager[object]:
        size = min(self.specs[0].batch_size, len(self.train)) * self.heads.W.size
        limits: AbstractContextManager[object] = _blas().limit(
            limits=1 if size < _WORTH_THREADS else None, user_api="blas"
        )
        return limits

    def _judge(self) -> tuple[Losses | None, Losses | None]:
        """Return loss and accuracy (H,) on val, of all heads at once."""
        if self.val is None or self.judged is None:
            return None, None
        H, C, _ = self.heads.W.shape
        loss, right, n = np.zeros(H), np.zeros(H), len(self.val)
        for rows, X in self.judged.blocks(max(1, SCORED // (H * C))):
            labels, scores = self.judged.y[rows], self.heads.scores(self.scaling(X))
            right += (scores.argmax(axis=2) == labels[:, None]).sum(axis=0)
            loss += cross_entropies(scores, labels)
        loss, right = self.share.total(np.stack([loss, right]))
        return loss / n, right / n

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


def _feed(train: Features, plan: Plan | None, spec: SgdSpec, share: Share) -> Feed:
    holding = share.holding(train)
    if plan is None:
        return Feed(train, spec.seed, holding)
    return WindowFeed(train, plan, spec, holding)


@cache
def _blas() -> "ThreadpoolController":
    """Return who sets BLAS's threads; looking for the libraries takes 2 ms."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
