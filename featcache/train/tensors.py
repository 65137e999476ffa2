"""SGD steps as torch operations, on a device."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featcache.core.heads import Floats
from featcache.core.metrics import Labels
from featcache.train.heads import Heads
from featcache.train.standardize import Scaling
from featcache.train.steps import Losses, Rows

_UPLOADED = 64 << 20  # bytes sent at once


class TorchEpochs:
    """Epochs of SGD by torch: on a GPU, or on the CPU to be compared.

    Letters: x (b, D) features, W (H * C, D) weights, P (b, H, C)
    scores, then probabilities, then d(loss)/d(scores). Weights and momenta go to the
    device at the start of a run and come back at its end.

    Parameters
    ----------
    heads : Heads
        Trained in place.
    scaling : Scaling
        Applied to the features as they are fetched.
    batch_size : int
        b; the last batch may be smaller.
    device : str
        torch's name of it.
    """

    def __init__(
        self, heads: Heads, scaling: Scaling, batch_size: int, device: str
    ) -> None:
        self.heads, self.scaling, self.batch_size = heads, scaling, batch_size
        self.device = torch.device(device)
        self.X = torch.empty(0, device=self.device)
        self._given: npt.NDArray[np.floating] | None = None

    def load(self, X: npt.NDArray[np.floating], y: Labels) -> None:
        """Take the samples that are visited next, to the device.

        Parameters
        ----------
        X : ndarray of float32 or float16, shape (n, D)
            Features as in the cache; may be memory-mapped. The same array is not sent
            again.
        y : ndarray of int32, shape (n,)
            Labels.
        """
        if X is self._given:
            return
        self._given = X
        self.y = self._tensor(y.astype(np.int64))
        kind = torch.float16 if X.dtype == np.float16 else torch.float32
        # Made anew only if it must be larger: windows are nearly of one size.
        if len(self.X) < len(X):
            self.X = torch.empty(X.shape, dtype=kind, device=self.device)
        rows = max(1, _UPLOADED // (X.shape[1] * X.itemsize))
        for start in range(0, len(X), rows):
            block = np.array(X[start : start + rows])  # torch wants no read-only map
            self.X[start : start + len(block)] = torch.from_numpy(block)

    def run(self, order: Rows, lr: Floats) -> tuple[Losses, Losses]:
        """Visit samples in order, changing the heads.

        Parameters
        ----------
        order : ndarray of int64, shape (m,)
            Rows of the samples taken; only the last batch may be smaller than b.
        lr : ndarray of float32, shape (H,)
            Learning rate of each head.

        Returns
        -------
        loss, right : ndarray of float64, shape (H,)
            Sums over the visits, while the weights moved: nats, and hits.
        """
        with torch.no_grad(), _float32():
            step = _Steps(self.heads, lr, self.device)
            fetch = _Scaler(self.scaling, self.device)
            for rows in torch.split(self._tensor(order), self.batch_size):
                step(fetch(self.X[rows].float()), self.y[rows])
            step.give_back(self.heads)
            loss, right = step.sums.cpu().numpy()
        return loss, right

    def _tensor(self, values: npt.NDArray[np.int64]) -> Tensor:
        return torch.tensor(values, device=self.device)


class _Steps:
    """Parameters of all heads on a device, and torch.optim.SGD's step."""

    def __init__(self, heads: Heads, lr: Floats, device: torch.device) -> None:
        self.H, self.C, columns = heads.W.shape
        self.columns = columns
        # Apart: rows of D + 1 floats would be out of step with the device's loads.
        self.parameters = _apart(heads.W, device)
        self.momenta = _apart(heads.V, device)
        settings = (lr, heads.momentum, heads.weight_decay, heads.nesterov)
        each = [np.repeat(s.astype(np.float32), self.C)[:, None] for s in settings]
        self.lr, self.momentum, self.decay, ahead = (
            torch.from_numpy(s).to(device) for s in each
        )
        self.ahead = ahead.bool()
        self.nesterov, self.decays = bool(ahead.any()), bool(self.decay.any())
        self.sums = torch.zeros((2, self.H), dtype=torch.float64, device=device)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        """Learn from a batch."""
        W, bias = self.parameters
        P = torch.addmm(bias[:, 0], x, W.T).view(len(y), self.H, self.C)
        P -= P.amax(dim=2, keepdim=True)
        at = y[:, None, None].expand(-1, self.H, 1)
        label = P.gather(2, at)  # 0 where the label has the highest score
        self.sums[1] += (label == 0).sum(dim=(0, 2))
        P.exp_()
        total = P.sum(dim=2, keepdim=True)
        self.sums[0] += (total.log() - label).sum(dim=(0, 2), dtype=torch.float64)
        P /= total * len(y)
        P.scatter_add_(2, at, torch.full_like(label, -1 / len(y)))
        flat = P.view(len(y), -1)
        self._update(0, flat.T @ x)
        self._update(1, flat.sum(dim=0)[:, None])

    def _update(self, which: int, G: Tensor) -> None:
        W, V = self.parameters[which], self.momenta[which]
        if self.decays:
            G += self.decay * W
        V.mul_(self.momentum).add_(G)
        if self.nesterov:
            V = torch.where(self.ahead, G + self.momentum * V, V)
        W -= self.lr * V

    def give_back(self, heads: Heads) -> None:
        """Write weights and momenta to the heads."""
        for target, (W, bias) in (
            (heads.W, self.parameters),
            (heads.V, self.momenta),
        ):
            flat = torch.cat([W, bias], dim=1).cpu().numpy()
            target[:] = flat.reshape(target.shape)


class _Scaler:
    """What `Scaling` does, on a device."""

    def __init__(self, scaling: Scaling, device: torch.device) -> None:
        self.unit = scaling.kind == "l2"
        self.moments = [
            torch.from_numpy(m).to(device)
            for m in (scaling.mean, scaling.std)
            if m is not None
        ]

    def __call__(self, x: Tensor) -> Tensor:
        if self.unit:
            # Twice, as in `unit_rows`.
            for length in (_largest, _length):
                scale = length(x)
                x = x / scale.where(scale > 0, 1)
        elif self.moments:
            x = (x - self.moments[0]) / self.moments[1]
        return x


def _largest(x: Tensor) -> Tensor:
    return x.abs().amax(dim=1, keepdim=True)


def _length(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return length


def _apart(values: Floats, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (H * C, D) and (H * C, 1) of (H, C, D + 1), on a device."""
    flat = torch.from_numpy(values.reshape(-1, values.shape[-1])).to(device)
    return flat[:, :-1].contiguous(), flat[:, -1:].contiguous()


@contextmanager
def _float32() -> Iterator[None]:
    """Keep products of float32 from being rounded to TF32."""
    matmul = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, name)
    setattr(matmul, name, "ieee" if name == "fp32_precision" else False)
    try:
        yield
    finally:
        setattr(matmul, name, before)


def free_memory(device: str) -> int | None:
    """Return how much memory a device has left.

    Parameters
    ----------
    device : str
        torch's name of it.

    Returns
    -------
    int or None
        Bytes; None where it shares the machine's.
    """
    if torch.device(device).type != "cuda":
        return None
    return torch.cuda.mem_get_info(torch.device(device))[0]
