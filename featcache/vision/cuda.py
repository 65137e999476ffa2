"""The forward pass on a CUDA device, fed by several threads at once.

A batch passes through a lane: page-locked memory, a copy to the device, the network,
a copy back. The copies of one lane overlap with the network's work for another, and
while a thread waits the interpreter is free, so that others decode meanwhile.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from featcache.core.errors import DeviceError
from featcache.core.heads import Floats
from featcache.core.specs import ViewSpec
from featcache.core.status import UnusableImageError
from featcache.core.tolerances import BFLOAT16, FLOAT32
from featcache.vision.backbones import Backbone
from featcache.vision.graph import Graph, PixelForward
from featcache.vision.lanes import CudaQueue, Lane, Queue, Shape

if TYPE_CHECKING:
    from featcache.vision.nvjpeg import JpegViews

LANES = 3  # one batch on its way in, one in the network, one on its way out

# Two batches fill a block of 256 rows, and a large GPU is busy with one of 128: the
# last layers of a ResNet still have 128 x 7 x 7 positions.
BATCH = 128
# Bytes of device memory for one image, twice the live maps of the largest ResNets in
# float32 (16 MB for ResNeXt-101 64x4d), since cuDNN's workspaces come on top.
_PER_IMAGE = 32 << 20
_RESERVE = 1 << 30  # bytes for weights, cuDNN and what else uses the device

# Recording takes about half a second and saves about 2 ms of the interpreter in each
# batch, in which other threads could not decode. Both are estimates, not measured: no
# GPU was at hand; see scripts/bench/gpu.py.
GRAPH_PAYS = 20_000  # images


def batch_size_for(free: int) -> int:
    """Return the batch size that suits a device.

    Parameters
    ----------
    free : int
        Bytes of its memory that nobody uses.

    Returns
    -------
    int
        A power of two from 8 to `BATCH` for which any ResNet has memory enough.
    """
    images = max(8, min(BATCH, (free - _RESERVE) // _PER_IMAGE))
    return 1 << (images.bit_length() - 1)


class CudaEmbedder:
    """Turns pixels into features on a GPU; many threads may call it at once.

    On the CPU it does the same, without gain: that is how it is tested.

    Parameters
    ----------
    backbone : Backbone
        float32; moved to the device.
    view : ViewSpec
        Normalisation and crop.
    device : torch.device
        A CUDA device.
    dtype : torch.dtype
        Of the network's arithmetic.
    batch_size : int
        Images that go through the network at once, at most.
    expected : int
        Images to come; for many a CUDA graph is recorded.
    jpegs : JpegViews, optional
        Decodes files on the device.

    Attributes
    ----------
    description : str
        What is used, and why if it is not the fastest.

    Raises
    ------
    DeviceError
        When the device has too little memory.
    """

    def __init__(  # noqa: PLR0913 - settings, all named
        self,
        backbone: Backbone,
        view: ViewSpec,
        *,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int,
        expected: int = 0,
        jpegs: "JpegViews | None" = None,
    ) -> None:
        self._device, self._dtype = device, dtype
        self._batch_size = batch_size
        self._jpegs = jpegs
        self._turn = threading.Lock()
        self._free: SimpleQueue[Lane] = SimpleQueue()
        self._graph: Graph | None = None
        shape = (batch_size, view.crop, view.crop, 3)
        row_size = backbone.row_size(view.crop)
        with self._enough_memory():
            network = backbone.to(device, dtype).to(memory_format=torch.channels_last)
            self._forward = PixelForward(network, view, device, dtype)
            for _ in range(LANES):
                self._free.put(Lane(shape, row_size, device))
            self._network = CudaQueue(device) if device.type == "cuda" else Queue()
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # all of this was another stream's work
            # Too little memory shows here, before the first image is decoded.
            self(np.zeros(shape, np.uint8))
            self._graph, how = self._recorded(shape, row_size, expected)
        self.description = f"{LANES} lanes of {batch_size}, channels_last, {how}"

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Return the features of views.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, h, w, 3)
            RGB, any number of them.

        Returns
        -------
        ndarray of float32, shape (n, D)
            On the host.

        Raises
        ------
        DeviceError
            When the device has too little memory.
        """
        return self._in_lanes(len(pixels), lambda lane, rows: lane.send(pixels[rows]))

    def embed_files(
        self, files: Sequence[bytes]
    ) -> tuple[Floats, dict[int, UnusableImageError]]:
        """Return the features of image files, decoded on the device.

        Parameters
        ----------
        files : sequence of bytes
            n of them.

        Returns
        -------
        ndarray of float32, shape (n, D)
            NaN in the rows of files that cannot be used.
        dict of int to UnusableImageError
            Why, by row.

        Raises
        ------
        DeviceError
            When the device has too little memory.
        """
        assert self._jpegs is not None
        jpegs = self._jpegs
        reasons: dict[int, UnusableImageError] = {}

        def fill(lane: Lane, rows: slice) -> None:
            part = files[rows]
            with lane.queue.active():
                bad = jpegs(part, lane.pixels[: len(part)])
            reasons.update({rows.start + row: reason for row, reason in bad.items()})

        features = self._in_lanes(len(files), fill)
        features[list(reasons)] = np.nan
        return features, reasons

    def _in_lanes(self, count: int, fill: Callable[[Lane, slice], None]) -> Floats:
        """Return the features of rows that are filled into lanes, batch by batch."""
        size = self._batch_size
        parts = [slice(at, min(at + size, count)) for at in range(0, count, size)]
        return np.concatenate([self._in_lane(part, fill) for part in parts])

    def _in_lane(self, rows: slice, fill: Callable[[Lane, slice], None]) -> Floats:
        count = rows.stop - rows.start
        lane = self._free.get()
        try:
            with self._enough_memory(), torch.inference_mode():
                fill(lane, rows)
                self._compute(lane, count)
                return lane.receive(count)
        finally:
            self._free.put(lane)

    def _compute(self, lane: Lane, count: int) -> None:
        """Queue the network's work for the first rows of a lane."""
        with self._turn:  # the kernels of one batch stay together
            self._network.after(lane.queue)
            with self._network.active():
                if self._graph is not None:  # rows beyond count are nobody's
                    self._graph(lane.pixels, lane.features)
                else:
                    features = self._forward(lane.pixels[:count])
                    lane.features[:count].copy_(features)
            lane.queue.after(self._network)

    def _recorded(
        self, shape: Shape, embed_dim: int, expected: int
    ) -> tuple["Graph | None", str]:
        """Return a proven graph, or None, and words for which."""
        if self._device.type != "cuda":
            return None, "no CUDA graph: not a CUDA device"
        if expected < GRAPH_PAYS:
            return None, f"no CUDA graph: fewer than {GRAPH_PAYS:,} images to compute"
        queue = self._network
        assert isinstance(queue, CudaQueue)
        try:
            # The stream is this thread's again even where recording fails half-way.
            with torch.inference_mode(), queue.active():
                graph = Graph(self._forward, shape, embed_dim, queue)
                difference = graph.difference()
        except RuntimeError as error:  # out of memory is one, too
            reason = str(error).split("\n", 1)[0]
            return None, f"no CUDA graph: recording it fails here: {reason}"
        if not difference <= (FLOAT32 if self._dtype is torch.float32 else BFLOAT16):
            return None, f"no CUDA graph: its features differ by {difference:.1e}"
        return graph, "a CUDA graph"

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            size = self._batch_size
            remedy = f"--batch-size {size // 2}" if size > 1 else "--device cpu"
            raise DeviceError(
                f"{self._device} has too little free memory for batches of {size}; "
                f"pass {remedy}, or end what else uses the device"
            ) from error
