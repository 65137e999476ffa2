"""BatchNorm over a batch that several processes hold parts of.

torch has such a module for CUDA alone, and it fails where a process holds no image of a
batch in bfloat16. This one works wherever torch's BatchNorm does, out of its kernels.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import batch_norm

from featcache.core.errors import TrainingError


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics in training are those of all processes' images.

    Every process must call it the same number of times; a batch of 0 images is one.

    Parameters
    ----------
    norm : torch.nn.BatchNorm2d
        Takes its place: parameters and statistics are the same tensors.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise, by the statistics of the batch when in training mode.

        Parameters
        ----------
        images : tensor, shape (b, C, h, w)
            This process's part of the batch.

        Returns
        -------
        tensor, shape (b, C, h, w)
            In the dtype of the input.
        """
        if not self.training:
            return super().forward(images)
        dtype = self.weight.dtype  # float32, also where the images are in less
        n, mean, var = _statistics(images.detach(), dtype)
        self._follow(n, mean, var)
        mean, var = mean.to(dtype), var.to(dtype)
        return _Normalise.apply(  # type: ignore[no-any-return]
            images, self.weight, self.bias, n, mean, var, self.eps
        )

    @torch.no_grad()
    def _follow(self, n: Tensor, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics, as torch does: the variance is unbiased."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # the mean over all batches so far
            share = 1 / float(self.num_batches_tracked)
        for kept, new in (
            (self.running_mean, mean),
            (self.running_var, var * (n / (n - 1))),
        ):
            kept.lerp_(new.to(kept.dtype), share)


def synchronise(network: nn.Module) -> None:
    """Have all BatchNorms of a network take in the images of all processes.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place; its parameters and the names of its state stay.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SyncedBatchNorm2d(child))


def _statistics(images: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return values per channel (1,), float64 mean and variance (C,), of all processes.

    Variances of the parts are put together by the parallel form of Welford's formula:
    no difference of large sums is taken.
    """
    C = images.shape[1]
    mine = torch.zeros(1 + 2 * C, dtype=torch.float64, device=images.device)
    if len(images):
        mean, var = _local_statistics(images, dtype)
        mine[0], mine[1 : 1 + C], mine[1 + C :] = images.numel() // C, mean, var
    parts = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, mine)
    counts, means, variances = torch.split(torch.stack(parts), [1, C, C], dim=1)
    n = counts.sum(0)
    # Looking at n waits for a GPU, so only who may be part of so small a batch does.
    if images.numel() <= C and n <= 1:
        raise TrainingError(
            f"BatchNorm got {int(n)} value per channel in a batch, and needs 2 or "
            "more; choose a batch size that leaves no last batch of one image"
        )
    shares = counts / n  # (K, 1)
    mean = (shares * means).sum(0)
    var = (shares * (variances + (means - mean) ** 2)).sum(0)
    return n, mean, var


def _local_statistics(images: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (C,) of this process's images."""
    # torch answers in the dtype of the running statistics, and 0.0 leaves them alone.
    unused = torch.zeros(images.shape[1], dtype=dtype, device=images.device)
    return torch.batch_norm_update_stats(images, unused, unused.clone(), 0.0)


class _Normalise(torch.autograd.Function):
    """Images by given statistics, which depend on all processes' images.

    Letters: x images, y output, w weight, s standard deviation, h = (x - mean) / s,
    n values per channel. With the statistics held fixed dx is dy w / s; that they move
    with x takes (w / s) (sum(dy) + h sum(dy h)) / n away from it, the sums over all
    processes. torch's kernels for evaluation mode give the first, and by the right
    weight and bias also the second.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - what the formula has
        ctx: Any,  # noqa: ANN401 - torch's
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        n: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, n, mean, var)
        ctx.eps = eps
        return batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, n, mean, var = ctx.saved_tensors
        dx, dw, db = _backward_of_fixed(dy, x, weight, mean, var, ctx.eps)
        if ctx.needs_input_grad[0]:
            sums = torch.stack([dw, db]).double()
            distributed.all_reduce(sums)
            by_h, by_1 = (-weight * torch.rsqrt(var + ctx.eps) * sums / n).to(
                weight.dtype
            )
            if len(x):
                dx += batch_norm(x, mean, var, by_h, by_1, eps=ctx.eps)
        return dx, dw, db, None, None, None, None


def _backward_of_fixed(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    if not len(x):  # torch's kernel divides by the number of images
        return torch.zeros_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
    backward = torch.ops.aten.native_batch_norm_backward
    dx, dw, db = backward(
        dy, x, weight, mean, var, None, None, False, eps, [True, True, True]
    )
    return dx, dw, db
