"""Loaders: batches of pixels for online training, decoded ahead on threads.

Pillow lets go of the interpreter while it decodes, so plain threads keep the network
fed; nothing is copied between processes.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from featcache.core.errors import BadImage, BadImagesError
from featcache.core.machine import cores
from featcache.core.manifest import Manifest
from featcache.core.seeds import epoch_order, generator
from featcache.core.specs import ViewSpec
from featcache.core.status import UnusableImageError
from featcache.core.text import plural, shown
from featcache.vision.augment import augment
from featcache.vision.decode import decode, read_file
from featcache.vision.views import Pixels, render

Rows = npt.NDArray[np.int64]
Batch = tuple[Pixels, npt.NDArray[np.int64]]  # (b, crop, crop, 3) and labels (b,)

KEPT_BYTES = 1 << 30  # up to which decoded views may stay in memory between epochs
_BATCHES_AHEAD = 3

T = TypeVar("T")
R = TypeVar("R")


class Threads:
    """Threads that work ahead of whoever takes their results; ``with`` ends them.

    Parameters
    ----------
    workers : int
        How many; 0 means one per core that this process may use.
    """

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers or cores()
        self._pool = ThreadPoolExecutor(self.workers, "featcache-images")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def ordered(
        self, work: Callable[[T], R], items: Iterable[T], ahead: int = 0
    ) -> Generator[R, None, None]:
        """Work on items, some ahead, and give the results in the items' order.

        Parameters
        ----------
        work : callable
            From one item to its result.
        items : iterable
            Taken only as fast as results are.
        ahead : int
            How many items are begun before their results are asked for; at least two
            per thread, so that none is idle.

        Yields
        ------
        object
            One result per item; what ``work`` raises is raised in its place.
        """
        ahead = max(ahead, 2 * self.workers)
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(self._pool.submit(work, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@dataclass(frozen=True, eq=False)
class Loader:
    """The images of some samples in batches; iterating gives their fixed views.

    Parameters
    ----------
    manifest : Manifest
        Files and labels.
    rows : ndarray of int64, shape (n,)
        Which samples: rows of the manifest.
    view : ViewSpec
        The crop; of augmented images its size.
    batch_size : int
        b; the last batch may be smaller.
    threads : Threads
        Who decodes.
    """

    manifest: Manifest
    rows: Rows
    view: ViewSpec
    batch_size: int
    threads: Threads

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def small(self) -> bool:
        """Whether all views together take at most `KEPT_BYTES`: 7,133 of 224 x 224."""
        return len(self) * 3 * self.view.crop**2 <= KEPT_BYTES

    def __iter__(self) -> Iterator[Batch]:
        """Give the deterministic view of each image, in the order of the rows.

        Yields
        ------
        (ndarray of uint8 (b, crop, crop, 3), ndarray of int64 (b,))
            Pixels and labels.

        Raises
        ------
        BadImagesError
            In place of a batch with an image that cannot be used.
        """
        return self._batches(self.rows, lambda i: render(self._image(i), self.view))

    def augmented(self, epoch: int, *, seed: int) -> Iterator[Batch]:
        """Give one epoch of random views in random order.

        Parameters
        ----------
        epoch : int
            From 0.
        seed : int
            Order and views follow from seed, epoch and sample_index alone.

        Yields
        ------
        (ndarray of uint8 (b, crop, crop, 3), ndarray of int64 (b,))
            Pixels and labels.

        Raises
        ------
        BadImagesError
            In place of a batch with an image that cannot be used.
        """

        def read(sample_index: int) -> Pixels:
            random = generator(seed, "augment", epoch, sample_index)
            return augment(self._image(sample_index), self.view.crop, random)

        order = epoch_order(len(self), seed=seed, epoch=epoch)
        return self._batches(self.rows[order], read)

    def shuffled(self, epoch: int, *, seed: int) -> Iterator[Batch]:
        """Give one epoch of the fixed views in random order, as a cache's rows.

        Parameters
        ----------
        epoch : int
            From 0.
        seed : int
            The order follows from seed and epoch alone; it is that of `augmented`.

        Returns
        -------
        iterator of (ndarray of uint8 (b, crop, crop, 3), ndarray of int64 (b,))
            Pixels and labels.

        Raises
        ------
        BadImagesError
            In place of a batch with an image that cannot be used.
        """
        order = epoch_order(len(self), seed=seed, epoch=epoch)
        return self._batches(
            self.rows[order], lambda i: render(self._image(i), self.view)
        )

    def bad_images(self) -> Iterator[BadImage | None]:
        """Decode every image and throw its pixels away.

        Yields
        ------
        BadImage or None
            One per row: what is wrong with it, or None.
        """

        def examine(sample_index: int) -> BadImage | None:
            try:
                self._image(sample_index)
            except BadImagesError as error:
                return error.images[0]
            return None

        return self.threads.ordered(examine, self.rows.tolist())

    def _image(self, sample_index: int) -> Image.Image:
        file = self.manifest.file(sample_index)
        try:
            return decode(read_file(file), self.view)
        except UnusableImageError as error:
            raise _refusal([BadImage(shown(file), str(error))]) from None

    def _batches(self, rows: Rows, read: Callable[[int], Pixels]) -> Iterator[Batch]:
        ahead = _BATCHES_AHEAD * self.batch_size
        with closing(self.threads.ordered(read, rows.tolist(), ahead)) as images:
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                pixels = np.stack(list(islice(images, len(batch))))
                yield pixels, self.manifest.labels[batch].astype(np.int64)


def check_images(loaders: Iterable[Loader], tick: Callable[[int], None]) -> None:
    """Decode all images once, so that none stops the training hours later.

    Parameters
    ----------
    loaders : iterable of Loader
        Whose images are looked at.
    tick : callable
        Called with the number of images just looked at.

    Raises
    ------
    BadImagesError
        With every image that cannot be used, by path and reason.
    """
    bad = []
    for loader in loaders:
        for image in loader.bad_images():
            tick(1)
            if image is not None:
                bad.append(image)
    if bad:
        raise _refusal(bad)


def _refusal(images: Sequence[BadImage]) -> BadImagesError:
    first = images[0]
    if len(images) == 1:
        message = f"{first.path} cannot be used: {first.reason}"
    else:
        message = (
            f"{plural(len(images), 'image')} cannot be used, "
            f"first {first.path}: {first.reason}"
        )
    return BadImagesError(
        f"{message}; replace or remove the file and try again", images
    )
