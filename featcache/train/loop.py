"""The online loop: inputs through the classifier, its loss, and a step downhill.

It is the classic tutorial's loop, with what that leaves open decided: who moves
BatchNorm's statistics, what a short last batch weighs, and that equal seeds give equal
weights.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featcache.core.errors import TrainingError
from featcache.core.finetune_spec import FinetuneSpec
from featcache.train.classifier import Classifier
from featcache.train.memory import out_of_memory
from featcache.train.mixing import Mix
from featcache.train.optimizer import make_optimizer, set_epoch
from featcache.train.ranks import Ranks

Inputs = npt.NDArray[Any] | Tensor  # (b, ...): pixels, or what frozen stages made
Batch = tuple[Inputs, npt.NDArray[np.int64]]  # and labels (b,)
Prepare = Callable[[Inputs], Tensor]  # to what the classifier takes

_LOOKED_AT = 50  # steps on a GPU after which their losses are brought to the host


@dataclass(frozen=True)
class Passed:
    """One epoch of training: means over its images, while the weights moved."""

    loss: float  # nats
    accuracy: float
    seconds: float


class Trainer:
    """A classifier in training.

    Parameters
    ----------
    model : Classifier
        Changed in place; on the device where it is trained.
    spec : FinetuneSpec
        The recipe.
    prepare : callable
        From what a batch holds to what the classifier takes, on its device.
    images : int
        In an epoch, of all processes together.
    ranks : Ranks, optional
        The processes that train together; each gets its share of every batch.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer
        Its momentum is part of a training's state.
    """

    def __init__(
        self,
        model: Classifier,
        spec: FinetuneSpec,
        prepare: Prepare,
        *,
        images: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.model = model
        self.spec = spec
        self.prepare = prepare
        self.images = images
        self.ranks = ranks or Ranks.alone()
        self.network = self.ranks.wrap(model)
        self.optimizer = make_optimizer(model, spec)
        self.device = next(model.head.parameters()).device
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=spec.precision == "float16"
        )

    def train_epoch(self, epoch: int, batches: Iterable[Batch]) -> Passed:
        """Train for one epoch.

        Parameters
        ----------
        epoch : int
            From 0; learning rates and draws follow from it.
        batches : iterable of Batch
            This process's share of each batch.

        Returns
        -------
        Passed
            Of all processes together.

        Raises
        ------
        TrainingError
            When the loss is no longer finite.
        DeviceError
            When the device's memory is too small for the batch.
        """
        spec, model, optimizer, scaler = (
            self.spec,
            self.model,
            self.optimizer,
            self.scaler,
        )
        set_epoch(optimizer, spec, epoch)
        tally = _Tally(epoch, self.ranks, lr=spec.lr * spec.lr_factor(epoch))
        trial = self._autocast if self.ranks.count == 1 else None
        model.train()
        optimizer.zero_grad()  # of an epoch that was broken off
        for step, (images, labels) in enumerate(batches):
            inputs = self.prepare(images)
            targets = torch.from_numpy(labels).to(self.device, non_blocking=True)
            mix = Mix.drawn(spec, len(labels), epoch, step).to(self.device)
            last, weight = self._place(step)
            with self._shared(last), out_of_memory(model, inputs, spec, trial=trial):
                with self._autocast():
                    scores = self.network(mix.images(inputs))
                loss = mix.loss(scores, targets, label_smoothing=spec.label_smoothing)
                scaler.scale(loss * weight).backward()  # type: ignore[no-untyped-call]
                if last:
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
            tally.add(loss, scores, targets)
        return tally.passed()

    def _place(self, step: int) -> tuple[bool, float]:
        """Return whether the optimizer steps now, and the weight of an image's loss.

        Gradients are those of the mean over all images between two steps, as if they
        had been one batch; torch averages over the processes.
        """
        size, accumulate = self.spec.batch_size, self.spec.accumulate
        steps = math.ceil(self.images / size)
        last = (step + 1) % accumulate == 0 or step + 1 == steps
        before = step // accumulate * accumulate * size
        together = min(self.images - before, accumulate * size)
        return last, self.ranks.count / together

    def _shared(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.ranks.no_sync(self.network)

    def _autocast(self) -> AbstractContextManager[None]:
        if self.spec.precision == "float32":
            return nullcontext()
        dtype = getattr(torch, self.spec.precision)
        return torch.autocast(self.device.type, dtype)


@dataclass
class _Tally:
    """Loss and accuracy of one epoch so far, while the weights move."""

    epoch: int  # from 0
    ranks: Ranks
    lr: float
    began: float = field(default_factory=time.perf_counter)
    images: int = 0
    steps: int = 0  # whose losses have been looked at
    loss: float = 0.0
    correct: float = 0.0
    waiting: list[Tensor] = field(default_factory=list)

    def add(self, loss: Tensor, scores: Tensor, targets: Tensor) -> None:
        correct = (scores.detach().argmax(1) == targets).sum()
        self.images += len(targets)
        self.waiting.append(torch.stack([loss.detach(), correct.to(loss.dtype)]))
        if not loss.is_cuda or len(self.waiting) == _LOOKED_AT:
            self._look()

    def _look(self) -> None:
        """Bring losses to the host; on a GPU that waits for it, so not at each step."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        found = torch.stack(waiting).flatten().tolist()
        found = self.ranks.sum(found)  # of all processes, which then stop together
        for loss, correct in zip(found[::2], found[1::2], strict=True):
            self.steps += 1
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at epoch {self.epoch + 1}, step {self.steps}, "
                    f"with lr {self.lr:g}; try a smaller lr, such as "
                    f"{self.lr / 10:g}, or a larger batch size"
                )
            self.loss += loss
            self.correct += correct

    def passed(self) -> Passed:
        self._look()
        [images] = self.ranks.sum([self.images])
        seconds = time.perf_counter() - self.began
        return Passed(self.loss / images, self.correct / images, seconds)


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
