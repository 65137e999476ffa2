"""A device out of memory: which batch size would have fitted."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from featcache.core.errors import DeviceError
from featcache.core.finetune_spec import FinetuneSpec
from featcache.train.classifier import Classifier


@contextmanager
def out_of_memory(
    model: Classifier, inputs: Tensor, spec: FinetuneSpec
) -> Iterator[None]:
    """Turn a device's lack of memory into advice.

    Parameters
    ----------
    model : Classifier
        What was trained when it happened.
    inputs : tensor, shape (b, ...)
        The batch that was too much.
    spec : FinetuneSpec
        Its batch size and accumulation.

    Yields
    ------
    None
        To a step of training.

    Raises
    ------
    DeviceError
        Naming the largest half, quarter, ... of the batch that passed in a trial.
    """
    reason = None
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ", 1)[0]
    if reason is None:
        return
    # Here the failed step's tensors are gone, with the error that held its frames.
    model.zero_grad()
    fits = _fitting(model, inputs)
    size = spec.batch_size
    if fits:
        # Of several processes each gets a part of the batch.
        share = size * fits // len(inputs)
        times = spec.accumulate * -(-size // share)
        advice = (
            f"a batch of {share} fits: pass --batch-size {share} --accumulate {times} "
            "for steps of about the same number of images"
        )
    else:
        advice = "not even one image fits: free memory, or train on the CPU"
    raise DeviceError(
        f"{inputs.device} ran out of memory with a batch of {size}; {advice} ({reason})"
    )


def _fitting(model: Classifier, inputs: Tensor) -> int:
    """Return how many images pass forward and backward, halving; 0: not one."""
    size = len(inputs) // 2
    while size:
        try:
            torch.cuda.empty_cache()
            model(inputs[:size]).sum().backward()
        except torch.OutOfMemoryError:
            size //= 2
        else:
            model.zero_grad()
            return size
        model.zero_grad()
    return 0
