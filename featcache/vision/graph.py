"""The network behind its normalisation on a GPU, and a recording of it."""

from collections.abc import Callable

import torch
from torch import Tensor

from featcache.core.specs import ViewSpec
from featcache.vision.lanes import CudaQueue, Shape

Forward = Callable[[Tensor], Tensor]


class PixelForward:
    """A network with its normalisation, without a word from the host in between.

    Parameters
    ----------
    network : callable
        From normalised images (b, 3, h, w) to features (b, D), in its dtype.
    view : ViewSpec
        Mean and standard deviation of each channel.
    device : torch.device
        Where the network is.
    dtype : torch.dtype
        Of the network's arithmetic.
    """

    def __init__(
        self,
        network: Forward,
        view: ViewSpec,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._network = network
        self._dtype = dtype
        # A tensor: CUDA divides by a number of Python's as if times its reciprocal,
        # which gives other bits than the CPU's division.
        self._scale = torch.tensor(255.0, device=device)
        self._mean = torch.tensor(view.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(view.std, device=device).view(3, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the features of views.

        Parameters
        ----------
        pixels : tensor of uint8, shape (b, h, w, 3)
            On the device.

        Returns
        -------
        tensor of float32, shape (b, D)
            On the device.
        """
        return self._network(self.normalised(pixels)).float()

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return what `featcache.vision.views.normalise` does, to the bit.

        Parameters
        ----------
        pixels : tensor of uint8, shape (b, h, w, 3)
            On the device.

        Returns
        -------
        tensor, shape (b, 3, h, w)
            channels_last, in the dtype of the network.
        """
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        images = images.div_(self._scale).sub_(self._mean).div_(self._std)
        return images.to(self._dtype)


class Graph:
    """The kernels of one batch, recorded once and launched as one.

    There is one graph for all lanes, since graphs that share memory must not run at
    the same time; the copies to and from its own buffers take microseconds.

    Parameters
    ----------
    forward : callable
        From uint8 (b, h, w, 3) to float32 (b, D), called before on the same shape.
    shape : tuple of int
        (b, h, w, 3) of every batch.
    embed_dim : int
        D.
    queue : CudaQueue
        Where it is recorded and launched; the active one.
    """

    def __init__(
        self, forward: Forward, shape: Shape, embed_dim: int, queue: CudaQueue
    ) -> None:
        device = queue.stream.device
        self._forward = forward
        self._pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._features = torch.zeros(shape[0], embed_dim, device=device)
        self._graph = torch.cuda.CUDAGraph()
        for _ in range(2):  # libraries make up their minds before the recording
            forward(self._pixels)
        with (
            torch.cuda.device(device),
            torch.cuda.graph(
                self._graph, stream=queue.stream, capture_error_mode="thread_local"
            ),
        ):
            self._features.copy_(forward(self._pixels))

    def __call__(self, pixels: Tensor, features: Tensor) -> None:
        """Compute a batch.

        Parameters
        ----------
        pixels : tensor of uint8, shape (b, h, w, 3)
            On the device.
        features : tensor of float32, shape (b, D)
            Filled in place.
        """
        self._pixels.copy_(pixels)
        self._graph.replay()
        features.copy_(self._features)

    def difference(self) -> float:
        """Return how far its features lie from those computed kernel by kernel.

        Returns
        -------
        float
            Largest over random images, relative to the largest feature; 0 where the
            same kernels ran on the same numbers, NaN where features are not finite.
        """
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(
            256, self._pixels.shape, generator=generator, dtype=torch.uint8
        ).to(self._pixels.device)
        found = torch.empty_like(self._features)
        self(pixels, found)
        expected = self._forward(pixels)
        return float((found - expected).abs().max() / expected.abs().max())
