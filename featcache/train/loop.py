"""The online loop: images through backbone and head, trained by SGD with StepLR.

It is the classic tutorial's loop, with what it leaves open decided: a frozen backbone
stays in evaluation mode, the best epoch is kept, and equal seeds give equal weights.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from featcache.core.errors import TrainingError
from featcache.core.reports import EpochRecord
from featcache.core.specs import FinetuneSpec
from featcache.train.classifier import (
    Batch,
    Classifier,
    Measured,
    Prepare,
    measure,
    measure_inputs,
)
from featcache.train.sgd import selection_key


def fit_epochs(
    model: Classifier,
    train: Callable[[int], Iterable[Batch]],
    val: Iterable[Batch] | None,
    spec: FinetuneSpec,
    prepare: Prepare,
) -> Iterator[EpochRecord]:
    """Train a classifier, one epoch for each record that is taken.

    Parameters
    ----------
    model : Classifier
        Changed in place; on the device where it is to be trained.
    train : callable
        From an epoch, counted from 0, to its batches.
    val : iterable of Batch or None
        Gone through after each epoch, or only once where the backbone is frozen.
    spec : FinetuneSpec
        Learning rates, momentum, weight decay, epochs, step size, gamma.
    prepare : callable
        From pixels to what the backbone takes.

    Yields
    ------
    EpochRecord
        After each epoch, while the model holds that epoch's weights.

    Raises
    ------
    TrainingError
        When the loss is no longer finite.
    """
    optimizer = sgd(model, spec)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, spec.step_size, spec.gamma)
    measure_val = _repeated_measure(model, val, prepare)
    for epoch in range(1, spec.epochs + 1):
        started = time.perf_counter()
        tally = _Tally(epoch, lr=float(scheduler.get_last_lr()[0]))
        model.train()
        for images, labels in train(epoch - 1):
            inputs = prepare(images)
            targets = torch.from_numpy(labels).to(inputs.device)
            scores = model(inputs)
            loss = cross_entropy(scores, targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            tally.add(loss, scores, targets)
        scheduler.step()
        yield tally.record(measure_val(), time.perf_counter() - started)


def sgd(model: Classifier, spec: FinetuneSpec) -> torch.optim.SGD:
    """Return the optimizer.

    Parameters
    ----------
    model : Classifier
        Whose parameters are trained.
    spec : FinetuneSpec
        ``lr`` is the backbone's, or the head's where the backbone is frozen.

    Returns
    -------
    torch.optim.SGD
        One parameter group for the backbone, if it is trained, and one for the head,
        whose rate is then ``lr * head_lr_mult``.
    """
    groups = [{"params": list(model.head.parameters()), "lr": spec.lr}]
    if model.full:
        groups[0]["lr"] = spec.lr * spec.head_lr_mult
        groups.insert(0, {"params": list(model.backbone.parameters()), "lr": spec.lr})
    return torch.optim.SGD(
        groups,
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        weight_decay=spec.weight_decay,
    )


def _repeated_measure(
    model: Classifier, batches: Iterable[Batch] | None, prepare: Prepare
) -> Callable[[], Measured | None]:
    """Return the measure to take after each epoch."""
    if batches is None:
        return lambda: None
    if model.full:
        return lambda: measure(model, batches, prepare)
    with torch.no_grad():  # a frozen backbone's features of fixed views never change
        features = [
            (model.backbone(prepare(images)), labels) for images, labels in batches
        ]
    return lambda: measure_inputs(model.head, features)


@dataclass
class _Tally:
    """Loss and accuracy of one epoch so far, while the weights move."""

    epoch: int
    lr: float
    steps: int = 0
    images: int = 0
    loss: float = 0.0
    correct: int = 0

    def add(self, loss: Tensor, scores: Tensor, targets: Tensor) -> None:
        value = loss.item()
        self.steps += 1
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at epoch {self.epoch}, step {self.steps}, with "
                f"lr {self.lr:g}; try a smaller lr, such as {self.lr / 10:g}, or a "
                "larger batch size"
            )
        self.images += len(targets)
        self.loss += value * len(targets)
        self.correct += int((scores.argmax(1) == targets).sum())

    def record(self, val: Measured | None, seconds: float) -> EpochRecord:
        return EpochRecord(
            epoch=self.epoch,
            lr=self.lr,
            train_loss=self.loss / self.images,
            train_accuracy=self.correct / self.images,
            val_loss=None if val is None else val.loss,
            val_accuracy=None if val is None else val.accuracy,
            seconds=seconds,
        )


class Best:
    """The weights of the best epoch so far, as `selection_key` has it.

    Parameters
    ----------
    network : torch.nn.Module
        What is trained: its weights are kept and put back.

    Attributes
    ----------
    record : EpochRecord or None
        Of the best epoch; None before the first.
    """

    def __init__(self, network: nn.Module) -> None:
        self.record: EpochRecord | None = None
        self._network = network
        self._kept: dict[str, Tensor] = {}

    def offer(self, record: EpochRecord) -> None:
        """Keep the network's present weights if their epoch is the best.

        Parameters
        ----------
        record : EpochRecord
            Of the epoch that gave these weights.
        """
        if self.record is None or selection_key(record) > selection_key(self.record):
            state = self._network.state_dict()
            kept = {k: v.detach().to("cpu", copy=True) for k, v in state.items()}
            self.record, self._kept = record, kept

    def restore(self) -> None:
        """Put the best weights back into the network."""
        self._network.load_state_dict(self._kept)


@contextmanager
def repeatable() -> Iterator[None]:
    """Have cuDNN use only algorithms that give the same bits every time.

    Yields
    ------
    None
        The setting is put back afterwards.
    """
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
