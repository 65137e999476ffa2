"""Lanes: memory through which batches pass on their way to a GPU and back.

Copies of one lane overlap with the network's work for another. On the CPU the same
steps are done at once, without gain: that is how they are tested.
"""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch

from featcache.core.heads import Floats

Shape = tuple[int, int, int, int]


class Queue:
    """Work in the order it was given; on the CPU it is done at once."""

    def active(self) -> AbstractContextManager[object]:
        """Return a context whose work goes to this queue.

        Returns
        -------
        context manager
            For the calling thread.
        """
        return nullcontext()

    def after(self, other: "Queue") -> None:
        """Let work to come wait for the work that another queue has now.

        Parameters
        ----------
        other : Queue
            On the same device.
        """

    def wait(self) -> None:
        """Return when all work given so far is done."""


class CudaQueue(Queue):
    """A CUDA stream.

    Parameters
    ----------
    device : torch.device
        A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # Blocking: a thread that waits takes no processor time.
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def active(self) -> AbstractContextManager[object]:
        """Return a context whose work goes to this stream.

        Returns
        -------
        context manager
            For the calling thread.
        """
        return torch.cuda.stream(self.stream)

    def after(self, other: Queue) -> None:
        """Let work to come wait for the work that another stream has now.

        Parameters
        ----------
        other : CudaQueue
            On the same device.
        """
        assert isinstance(other, CudaQueue)
        self.stream.wait_stream(other.stream)

    def wait(self) -> None:
        """Return when all work given so far is done; other threads run meanwhile."""
        self._done.record(self.stream)
        self._done.synchronize()


class Lane:
    """Memory for one batch on its way to the network and back.

    Parameters
    ----------
    shape : tuple of int
        (b, h, w, 3) of the largest batch.
    embed_dim : int
        D.
    device : torch.device
        Where the network runs.

    Attributes
    ----------
    queue : Queue
        Of the lane's copies.
    pixels : tensor of uint8, shape (b, h, w, 3)
        On the device.
    features : tensor of float32, shape (b, D)
        On the device.
    """

    def __init__(self, shape: Shape, embed_dim: int, device: torch.device) -> None:
        cuda = device.type == "cuda"
        rows = (shape[0], embed_dim)
        self.queue = CudaQueue(device) if cuda else Queue()
        self.pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.features = torch.zeros(rows, device=device)
        # Page-locked: only such memory is copied while the thread goes on.
        self._sent = torch.zeros(shape, dtype=torch.uint8, pin_memory=cuda)
        self._received = torch.zeros(rows, pin_memory=cuda)

    def send(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Begin to copy pixels to the device.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, h, w, 3)
            At most b; free to be changed after the call.
        """
        count = len(pixels)
        self._sent.numpy()[:count] = pixels
        with self.queue.active():
            self.pixels[:count].copy_(self._sent[:count], non_blocking=True)

    def receive(self, count: int) -> Floats:
        """Copy features back and wait for them.

        Parameters
        ----------
        count : int
            How many rows.

        Returns
        -------
        ndarray of float32, shape (count, D)
            New.
        """
        with self.queue.active():
            self._received[:count].copy_(self.features[:count], non_blocking=True)
        self.queue.wait()
        result: Floats = self._received[:count].numpy().copy()
        return result
