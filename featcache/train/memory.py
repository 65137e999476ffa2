"""A device out of memory: which batch size would have fitted."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from featcache.core.errors import DeviceError
from featcache.core.finetune_spec import FinetuneSpec
from featcache.train.classifier import Classifier

Trial = Callable[[], AbstractContextManager[None]]


@contextmanager
def out_of_memory(
    model: Classifier, inputs: Tensor, spec: FinetuneSpec, *, trial: Trial | None
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
    trial : callable or None
        Makes the context in which smaller batches are tried; None where they cannot
        be, since other processes would have to take part.

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
    fits = len(inputs) // 2 if trial is None else _fitting(model, inputs, trial)
    size = spec.batch_size
    if fits:
        # Of several processes each gets a part of the batch.
        share = size * fits // len(inputs)
        times = spec.accumulate * -(-size // share)
        advice = (
            f"a batch of {share} {'may fit' if trial is None else 'fits'}: pass "
            f"--batch-size {share} --accumulate {times} for steps of about the same "
            "number of images"
        )
    else:
        advice = "not even one image fits: free memory, or train on the CPU"
    raise DeviceError(
        f"{inputs.device} ran out of memory with a batch of {size}; {advice} ({reason})"
    )


def _fitting(model: Classifier, inputs: Tensor, trial: Trial) -> int:
    """Return how many images pass forward and backward, halving; 0: not one."""
    size = len(inputs) // 2
    while size:
        try:
            torch.cuda.empty_cache()
            with trial():
                scores = model(inputs[:size])
            scores.sum().backward()
        except torch.OutOfMemoryError:
            size //= 2
        else:
            model.zero_grad()
            return size
        model.zero_grad()
    return 0
