"""SGD with momentum and StepLR for a linear head, in numpy.

Step for step what ``torch.nn.Linear`` + ``CrossEntropyLoss`` + ``torch.optim.SGD`` +
``StepLR`` compute, with the gradient written down instead of recorded.
"""

import time
from dataclasses import dataclass

import numpy as np

from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.heads import Floats, LinearHead, initial_head
from featcache.core.metrics import Labels, accuracy, cross_entropy
from featcache.core.reports import EpochRecord
from featcache.core.seeds import epoch_order
from featcache.core.specs import SgdSpec


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted head and how it came about."""

    head: LinearHead
    history: tuple[EpochRecord, ...]
    best_epoch: int  # from 1; the head is the one after this epoch
    notes: tuple[str, ...] = ()  # worth telling the user


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
        The head after the best epoch.

    Raises
    ------
    TrainingError
        When the loss stops being finite.
    """
    optimizer = _Sgd(initial_head(classes, train.X.shape[1], seed=spec.seed), spec)
    X, y = np.asarray(train.X, np.float32), train.y
    history: list[EpochRecord] = []
    best, best_epoch, best_key = optimizer.head(), 1, (-np.inf, -np.inf)
    for epoch in range(spec.epochs):
        began = time.perf_counter()
        lr = spec.lr_at(epoch)
        order = epoch_order(len(y), seed=spec.seed, epoch=epoch)
        with np.errstate(over="ignore", invalid="ignore"):  # it is an error below
            loss, correct = optimizer.run_epoch(X[order], y[order], lr)
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss stopped being finite in epoch {epoch + 1} with lr {lr:g}; "
                "try a smaller --lr"
            )
        head = optimizer.head()
        val_loss, val_accuracy = judge(head, val)
        record = EpochRecord(
            epoch=epoch + 1,
            lr=lr,
            train_loss=loss,
            train_accuracy=correct,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.perf_counter() - began,
        )
        history.append(record)
        key = selection_key(record)
        if key > best_key:
            best, best_key, best_epoch = head, key, epoch + 1
    return Fitted(best, tuple(history), best_epoch)


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


class _Sgd:
    """The state of torch.optim.SGD: parameters and their momentum.

    Weight and bias are one matrix (D + 1, C), so that a step is one update. Letters:
    X (b, D), P (b, C) probabilities, G (D + 1, C) gradient, W (D + 1, C), V momentum.
    """

    def __init__(self, head: LinearHead, spec: SgdSpec) -> None:
        self.W = np.ascontiguousarray(np.vstack([head.weight.T, head.bias[None]]))
        self.V = np.zeros_like(self.W)
        self.G = np.empty_like(self.W)
        self.momentum = np.float32(spec.momentum)
        self.weight_decay = np.float32(spec.weight_decay)
        self.batch_size = spec.batch_size

    def head(self) -> LinearHead:
        """Return a copy of the parameters."""
        weight = np.ascontiguousarray(self.W[:-1].T)
        return LinearHead(weight, self.W[-1].copy())

    def run_epoch(self, X: Floats, y: Labels, lr: float) -> tuple[float, float]:
        """Visit the samples in order; return mean loss (nats) and accuracy."""
        n, loss, correct = len(y), 0.0, 0
        for start in range(0, n, self.batch_size):
            stop = min(start + self.batch_size, n)
            a, b = self._step(X[start:stop], y[start:stop], np.float32(lr))
            loss, correct = loss + a, correct + b
        return loss / n, correct / n

    def _step(self, X: Floats, y: Labels, lr: np.float32) -> tuple[float, int]:
        rows = np.arange(len(y))
        P = X @ self.W[:-1]
        P += self.W[-1]
        right = int((P.argmax(axis=1) == y).sum())
        P -= P.max(axis=1, keepdims=True)
        at_label = P[rows, y]
        np.exp(P, out=P)
        total = P.sum(axis=1, keepdims=True)
        loss = float((np.log(total[:, 0]) - at_label).sum())
        # d(mean cross-entropy)/d(scores) = (softmax - one-hot) / b
        P /= total
        P[rows, y] -= 1
        P /= np.float32(len(y))
        np.matmul(X.T, P, out=self.G[:-1])
        P.sum(axis=0, out=self.G[-1])
        if self.weight_decay:
            self.G += self.weight_decay * self.W
        # torch: v = momentum * v + g (the first step has v = g), w -= lr * v
        self.V *= self.momentum
        self.V += self.G
        self.W -= lr * self.V
        return loss, right
