"""Ranks: the processes of one training, each with its share of every batch.

They are started by torchrun, hold equal weights and step together: gradients are
averaged over them, BatchNorm takes in the images of all.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from featcache.core.errors import (
    DeviceError,
    FeatcacheError,
    PeerError,
    TrainingError,
)
from featcache.core.machine import place_among_ranks
from featcache.train.synced_norm import synchronise

_Scalar = TypeVar("_Scalar", bound=np.generic)

# Longer than the main process lets the others wait: it may fetch and decode a large
# data set. One that dies is noticed at once; this ends those that wait for one that
# hangs.
_PATIENCE = timedelta(hours=1)
_HEAD_START = 1.0  # seconds: torchrun ends all when it sees that the first has failed


@dataclass(frozen=True)
class Ranks:
    """A process's place among those that train together.

    Every process must call the same methods in the same order. A process on its own
    may call them too: they do nothing.

    Parameters
    ----------
    rank : int
        From 0.
    count : int
        Of processes, on all machines.
    local_rank : int
        From 0, on this machine.
    local_count : int
        Of processes on this machine.
    device : torch.device or None
        Where this one computes; None where it is on its own and may choose.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    device: torch.device | None = None

    @classmethod
    def alone(cls) -> "Ranks":
        """Return the place of a process on its own.

        Returns
        -------
        Ranks
            The first of one.
        """
        return cls()

    @classmethod
    @contextmanager
    def joined(cls, device: str) -> Iterator["Ranks"]:
        """Meet the other processes that torchrun has started; part when all is done.

        Where they have met already, and are to do more than one thing together, nothing
        is done: to part and meet again would mix up the one meeting with the other.

        Parameters
        ----------
        device : {"auto", "cpu", "cuda"}
            With ``cuda``, or ``auto`` where there is one, each takes the GPU of its
            number. A process on its own may name any.

        Yields
        ------
        Ranks
            This process's place.

        Raises
        ------
        TrainingError
            When the environment is not as torchrun makes it, or the processes cannot
            reach each other.
        DeviceError
            When there are fewer GPUs than processes, or they cannot share the device.
        PeerError
            When another process has ended before its time.
        """
        place = place_among_ranks()
        if place is None:
            yield cls.alone()
            return
        ranks = cls(*place, _own_device(device, place[2], place[3]))
        if distributed.is_initialized():
            yield ranks  # whoever brought them together also lets them part
            return
        ranks._meet()
        try:
            yield ranks
            ranks.barrier()  # who leaves early breaks the others' connections
        except PeerError:
            time.sleep(_HEAD_START)  # so that the one that says why comes first
            raise
        except RuntimeError as error:
            if isinstance(error, FeatcacheError) or not _is_lost(error):
                raise
            raise PeerError(
                f"process {ranks.rank} of {ranks.count} has lost the others: one of "
                "them has ended; it, or torchrun, says why"
            ) from error
        # Not after an error: what is under way then might never end.
        distributed.destroy_process_group()

    def _meet(self) -> None:
        on_gpu = self.device is not None and self.device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(self.device)
        try:
            distributed.init_process_group(
                "nccl" if on_gpu else "gloo",
                timeout=_PATIENCE,
                device_id=self.device if on_gpu else None,
            )
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"process {self.rank} of {self.count} cannot meet the others: "
                f"{str(error).splitlines()[0]}; start them with torchrun, and choose "
                "another --master-port where this one is in use"
            ) from error

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes files and talks to people."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what to call in training in a model's place.

        Parameters
        ----------
        model : torch.nn.Module
            On its device. Its weights become those of the main process, and its
            BatchNorms take in the images of all; names of its state stay.

        Returns
        -------
        torch.nn.Module
            The backward pass through it averages gradients over the processes. Call
            the model itself to measure.
        """
        if self.count == 1:
            return model
        synchronise(model)
        wrapped = DistributedDataParallel(model)
        # From here on statistics move alike everywhere. As an argument, this has one
        # name in torch 2.11 and another in 2.15, and means something else in each.
        wrapped.broadcast_buffers = False
        return wrapped

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """Leave gradients as they are: of this process, to be added to.

        Parameters
        ----------
        wrapped : torch.nn.Module
            From `wrap`.

        Returns
        -------
        context manager
            For forward and backward pass of all batches but the last before a step.
        """
        if isinstance(wrapped, DistributedDataParallel):
            return wrapped.no_sync()
        return nullcontext()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return sums over the processes.

        Parameters
        ----------
        values : sequence of float
            Equally many in every process.

        Returns
        -------
        list of float
            The same in every process, to the bit.
        """
        if self.count == 1:
            return list(map(float, values))
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.tolist()

    def gather(self, array: npt.NDArray[_Scalar]) -> list[npt.NDArray[_Scalar]]:
        """Return the arrays of all processes.

        Parameters
        ----------
        array : ndarray, shape (n, ...)
            Of the same dtype and shape in every process, but for n.

        Returns
        -------
        list of ndarray
            By rank; the same in every process.
        """
        if self.count == 1:
            return [array]
        lengths = [int(n[0]) for n in self._all(torch.tensor([len(array)]))]
        padded = np.zeros((max(*lengths, 1), *array.shape[1:]), array.dtype)
        padded[: len(array)] = array
        parts = self._all(torch.from_numpy(padded))
        return [part.numpy()[:n] for part, n in zip(parts, lengths, strict=True)]

    def _all(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, on the host."""
        mine = tensor.to(self.device)
        parts = [torch.empty_like(mine) for _ in range(self.count)]
        distributed.all_gather(parts, mine)
        return [part.cpu() for part in parts]

    def told(self, data: Any) -> Any:  # noqa: ANN401 - any JSON
        """Return what the main process says.

        Parameters
        ----------
        data : JSON data
            Of the main process; what the others pass does not matter.

        Returns
        -------
        JSON data
            The same in every process.
        """
        return self._said(data if self.main else None)[0]

    def _said(self, data: Any) -> list[Any]:  # noqa: ANN401 - any JSON
        """Return what every process says, by rank."""
        text = np.frombuffer(json.dumps(data).encode(), np.uint8)
        return [json.loads(part.tobytes()) for part in self.gather(text)]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.sum([0.0])

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do something before the others, which then find it done.

        Yields
        ------
        None
            To what is done, such as a download.
        """
        if not self.main:
            self.barrier()
        yield
        if self.main:
            self.barrier()

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Fail together: an error in one process is raised in all.

        Yields
        ------
        None
            To work in which the processes do not wait for each other.

        Raises
        ------
        FeatcacheError
            What was raised inside, in the first process in which something was.
        PeerError
            With the same words, in all others.
        """
        error: FeatcacheError | None = None
        try:
            yield
        except FeatcacheError as raised:
            error = raised
        said = self._said(None if error is None else str(error))
        failed = [rank for rank, words in enumerate(said) if words is not None]
        if not failed:
            return
        if error is not None and failed[0] == self.rank:
            raise error
        raise PeerError(said[failed[0]])


def _own_device(name: str, local_rank: int, local_count: int) -> torch.device:
    """Return the device of one of several processes on a machine."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise DeviceError(
            f"device {name} cannot be that of several processes; expected cuda, of "
            "which each takes the GPU of its number, or cpu"
        )
    found = torch.cuda.device_count()
    if found < local_count:
        raise DeviceError(
            f"{local_count} processes on this machine, but torch sees {found} CUDA "
            f"devices; start with torchrun --nproc-per-node {max(found, 1)}, or pass "
            "--device cpu"
        )
    return torch.device("cuda", local_rank)


def _is_lost(error: RuntimeError) -> bool:
    """Tell whether torch says that another process is gone."""
    if isinstance(error, distributed.DistError):
        return True
    return "gloo" in str(error)  # whose errors have no class of their own
