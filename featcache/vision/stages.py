"""Stages: a ResNet cut in two, and the frozen part's pass over images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor, nn

from featcache.core.finetune_spec import SHALLOWEST_FIRST
from featcache.core.specs import ViewSpec
from featcache.vision.threads import Threads
from featcache.vision.views import Pixels, normalise

_STEM = ("conv1", "bn1", "relu", "maxpool")  # torchvision's names


def split(
    network: nn.Module, frozen: Sequence[str]
) -> tuple[nn.Sequential, nn.Sequential]:
    """Cut a ResNet in two behind its frozen stages.

    Parameters
    ----------
    network : torch.nn.Module
        A ``torchvision.models.ResNet``; its parameters are shared, its ``fc`` is left
        out.
    frozen : sequence of str
        The first stages of `SHALLOWEST_FIRST`, none to all.

    Returns
    -------
    (torch.nn.Sequential, torch.nn.Sequential)
        Prefix and tail, with torchvision's names of modules and tensors;
        ``tail(prefix(images))`` are the bits of the network's features. Global average
        pooling is the end of the tail, or of the prefix where all stages are frozen.
        A part of no stage is empty, which is the identity.

    Raises
    ------
    ValueError
        When these are not the network's first stages.
    """
    names = tuple(frozen)
    if names != SHALLOWEST_FIRST[: len(names)]:
        message = f"the first stages are {SHALLOWEST_FIRST}, got {names}"
        raise ValueError(message)
    prefix = part(network, names, pooled=names == SHALLOWEST_FIRST)
    rest = SHALLOWEST_FIRST[len(names) :]
    return prefix, part(network, rest, pooled=bool(rest))


def part(network: nn.Module, stages: Sequence[str], *, pooled: bool) -> nn.Sequential:
    """Return some stages of a ResNet, one after the other.

    Parameters
    ----------
    network : torch.nn.Module
        A ``torchvision.models.ResNet``; its parameters are shared.
    stages : sequence of str
        Of `SHALLOWEST_FIRST`, in its order, none left out between.
    pooled : bool
        Whether features come out, after global average pooling, or maps.

    Returns
    -------
    torch.nn.Sequential
        Its modules have the network's names.
    """
    result = nn.Sequential()
    for stage in stages:
        for name in _STEM if stage == "stem" else (stage,):
            result.add_module(name, network.get_submodule(name))
    if pooled:
        result.add_module("avgpool", network.get_submodule("avgpool"))
        result.add_module("flatten", nn.Flatten())
    return result


def forward_windows(  # noqa: PLR0913 - settings, all named
    network: Callable[[Tensor], Tensor],
    rows: Sequence[int],
    read: Callable[[int], Pixels],
    view: ViewSpec,
    threads: Threads,
    *,
    window: int = 64,
    chunk: int = 8,
) -> Iterator[Tensor]:
    """Run a frozen network over images on all cores, window by window.

    While the caller has a window, all threads rest: what it does with torch has the
    cores for itself, and memory holds one window of outputs.

    Parameters
    ----------
    network : callable
        From normalised images (b, 3, h, w) on the CPU, channels_last, to outputs
        (b, ...), such as `featcache.vision.fused.FusedResNet`. Called on several
        threads at once, on one core each.
    rows : sequence of int
        Which samples, in this order; the outputs have it.
    read : callable
        From a sample_index to its pixels, uint8 (h, w, 3); called on the threads. What
        it raises is raised here.
    view : ViewSpec
        Normalises the pixels.
    threads : Threads
        Who works.
    window : int
        Images whose outputs come together; the last window may be smaller.
    chunk : int
        Images in one forward pass, at most; the batch size to fuse for.

    Yields
    ------
    tensor of shape (window, ...)
        Equal bits for equal rows, window and chunk, whatever the threads; to 1e-5 for
        other chunks, in float32.
    """

    def work(indices: Sequence[int]) -> Tensor:
        torch.set_num_threads(1)  # of this thread: more would wait for each other
        pixels = torch.from_numpy(np.stack([read(index) for index in indices]))
        with torch.no_grad():  # not inference_mode: what comes out may be trained on
            return network(normalise(pixels.permute(0, 3, 1, 2), view))

    before = torch.get_num_threads()
    for start in range(0, len(rows), window):
        indices = rows[start : start + window]
        chunks = [indices[i : i + chunk] for i in range(0, len(indices), chunk)]
        try:
            with closing(threads.ordered(work, chunks)) as outputs:
                result = torch.cat(list(outputs))
        finally:
            torch.set_num_threads(before)  # of threads that torch will meet later
        yield result
