"""Loaders: batches of pixels for online training, made on threads."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from featcache.core.seeds import epoch_order, generator
from featcache.vision.pixels import Images, Rows
from featcache.vision.threads import Threads
from featcache.vision.views import Pixels

Batch = tuple[Pixels, npt.NDArray[np.int64]]  # (b, crop, crop, 3) and labels (b,)
Read = Callable[[int], Pixels]  # from a sample_index to its (crop, crop, 3) pixels

KEPT_BYTES = 1 << 30  # up to which fixed views stay in memory between epochs
_BATCHES_AHEAD = 3
_PART = 4  # images a thread takes at once: to hand over one takes 60 us


@dataclass(frozen=True, eq=False)
class Loader:
    """Some samples in batches; iterating gives their fixed views.

    Where several processes train one network, each has a loader of the same rows and
    of its own share; order and batches are those of a single process.

    Parameters
    ----------
    images : Images
        Pixels and labels.
    rows : ndarray of int64, shape (n,)
        Which samples: some of ``images.rows``, equal in all processes.
    batch_size : int
        b, of all processes together; the last batch may be smaller.
    threads : Threads
        Who makes the views.
    share : (int, int)
        This process's number, from 0, and how many there are.
    ahead : bool
        Whether batches to train on are made before they are asked for. Not where the
        network computes on the same cores: a thread that takes one of them for a
        millisecond has all others wait (measured: 4 % of an epoch).
    """

    images: Images
    rows: Rows
    batch_size: int
    threads: Threads
    share: tuple[int, int] = (0, 1)
    ahead: bool = True
    _kept: dict[int, Pixels] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def own(self) -> Rows:
        """The rows of this process, in their order."""
        rank, count = self.share
        return self.rows[rank::count]

    @property
    def small(self) -> bool:
        """Whether fixed views are made once: all take at most `KEPT_BYTES`."""
        return len(self) * 3 * self.images.view.crop**2 <= KEPT_BYTES

    def __iter__(self) -> Iterator[Batch]:
        """Give the fixed views of this process's share of the rows, in their order.

        Yields
        ------
        (ndarray of uint8 (b, crop, crop, 3), ndarray of int64 (b,))
            Pixels and labels; of K processes, the one numbered r gets every K-th row
            from the r-th on, and none gets a row twice.

        Raises
        ------
        BadImagesError
            In place of a batch with an image that was damaged after it was checked.
        """
        return self._given(_cut(self.own, self.batch_size), self.fixed)

    def augmented(self, epoch: int, *, seed: int) -> Iterator[Batch]:
        """Give one epoch of random views in random order.

        Parameters
        ----------
        epoch : int
            From 0.
        seed : int
            Order and views follow from seed, epoch and sample_index alone.

        Returns
        -------
        iterator of (ndarray of uint8 (b, crop, crop, 3), ndarray of int64 (b,))
            Pixels and labels of this process's share of each batch: every K-th row of
            it from the r-th on. It may be empty where the last batch is small; every
            process gets equally many.

        Raises
        ------
        BadImagesError
            In place of a batch with an image that was damaged after it was checked.
        """
        return self._given(self.shares(epoch, seed=seed), self.reader(epoch, seed=seed))

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
            As `augmented`.

        Raises
        ------
        BadImagesError
            In place of a batch with an image that was damaged after it was checked.
        """
        return self._given(self.shares(epoch, seed=seed), self.fixed)

    def reader(self, epoch: int, *, seed: int) -> Read:
        """Return what makes the random views of an epoch, one by one.

        Parameters
        ----------
        epoch : int
            From 0.
        seed : int
            A view follows from seed, epoch and sample_index alone.

        Returns
        -------
        callable
            From a sample_index to pixels (crop, crop, 3); several threads may call it.
        """

        def read(sample_index: int) -> Pixels:
            random = generator(seed, "augment", epoch, sample_index)
            return self.images.drawn(sample_index, random)

        return read

    def fixed(self, sample_index: int) -> Pixels:
        """Return the fixed view of a sample; several threads may call it.

        Parameters
        ----------
        sample_index : int
            One of the rows.

        Returns
        -------
        ndarray of uint8, shape (crop, crop, 3)
            Not to be changed: it is made once where the loader is `small`.

        Raises
        ------
        BadImagesError
            When the image was damaged after it was checked.
        """
        pixels = self._kept.get(sample_index)
        if pixels is None:
            pixels = self.images.fixed(sample_index)
            if self.small:
                self._kept[sample_index] = pixels
        return pixels

    def shares(self, epoch: int, *, seed: int) -> list[Rows]:
        """Return this process's samples of each batch of an epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        seed : int
            The order follows from seed and epoch alone.

        Returns
        -------
        list of ndarray of int64
            Rows of the manifest; see `augmented`.
        """
        rank, count = self.share
        order = self.rows[epoch_order(len(self), seed=seed, epoch=epoch)]
        return [batch[rank::count] for batch in _cut(order, self.batch_size)]

    def _given(self, batches: Sequence[Rows], read: Read) -> Iterator[Batch]:
        crop = self.images.view.crop

        def make(part: Rows) -> Pixels:
            pixels = np.empty((len(part), crop, crop, 3), np.uint8)
            for place, sample_index in zip(pixels, part.tolist(), strict=True):
                place[:] = read(sample_index)
            return pixels

        if not self.ahead:
            for batch in batches:
                views = list(self.threads.ordered(read, batch.tolist()))
                yield np.stack(views) if views else make(batch), self._labels(batch)
            return
        parts = [_cut(batch, _PART) for batch in batches]
        # Bounded, so that the network gets its cores as soon as it has its batch.
        ahead = _BATCHES_AHEAD * max(map(len, parts), default=0)
        work = self.threads.ordered(make, chain.from_iterable(parts), ahead)
        with closing(work) as made:
            for batch, its in zip(batches, parts, strict=True):
                pixels = list(islice(made, len(its))) or [make(batch)]  # an empty share
                whole = pixels[0] if len(its) == 1 else np.concatenate(pixels)
                yield whole, self._labels(batch)

    def _labels(self, batch: Rows) -> npt.NDArray[np.int64]:
        return self.images.manifest.labels[batch].astype(np.int64)


def _cut(rows: Rows, length: int) -> list[Rows]:
    return [rows[start : start + length] for start in range(0, len(rows), length)]
