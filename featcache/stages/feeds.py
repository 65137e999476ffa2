"""Feeds: what the online loop is given, from images or from a cache of maps."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from featcache.core.heads import Floats
from featcache.core.metrics import Labels
from featcache.core.progress import Progress
from featcache.core.text import shown
from featcache.stages.online_network import OnlineNetwork, scores_of
from featcache.stages.recipe import images_digest

if TYPE_CHECKING:
    from torch import Tensor

    from featcache.train.loop import Batch
    from featcache.vision.loaders import Loader, Read
    from featcache.vision.threads import Threads
    from featcache.vision.views import Pixels

Rows = npt.NDArray[np.int64]
Said = tuple[Floats, Labels]  # scores (b, C) and labels (b,)

WINDOW = 64  # images whose frozen part is computed before the loop takes its turn
_KEPT_BYTES = 1 << 30  # up to which the frozen part of fixed views is computed once


class Feed(Protocol):
    """What the loop is given; each process has its share."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the images are, for checkpoints: JSON data."""

    def count(self, split: str) -> int:
        """Return how many images a split has, of all processes together."""

    def passing(self, split: str) -> int:
        """Return how many images pass here when a split is gone through."""

    def train(self, epoch: int) -> "Iterable[Batch]":
        """Give the share of each batch of an epoch."""

    def scores(self, split: str) -> Iterator[Said]:
        """Give what is said of the share of a split's fixed views."""


@dataclass(frozen=True, eq=False)
class ImageFeed:
    """Images: augmented to train on, in their fixed views to measure.

    Parameters
    ----------
    loaders : mapping of str to Loader
        By split; one without images is not there.
    network : OnlineNetwork
        Of which the frozen stages may run ahead of the loop.
    threads : Threads
        Who reads images and runs those.
    progress : Progress
        Hears of every image that passes.
    """

    loaders: "Mapping[str, Loader]"
    network: OnlineNetwork
    threads: "Threads"
    progress: Progress
    _kept: "dict[str, list[Tensor]]" = field(default_factory=dict)  # by split
    _fixed: "dict[int, Tensor]" = field(default_factory=dict)  # by sample_index

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the images are, for checkpoints: JSON data."""
        rows = np.sort(np.concatenate([x.rows for x in self.loaders.values()]))
        columns = self.loaders["train"].images.manifest.columns()
        return {"images": images_digest(columns, rows), "image_count": len(rows)}

    def count(self, split: str) -> int:
        """Return how many images a split has.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Which part.

        Returns
        -------
        int
            Of all processes together.
        """
        return len(self.loaders[split]) if split in self.loaders else 0

    def passing(self, split: str) -> int:
        """Return how many images pass here when a split is gone through.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Which part.

        Returns
        -------
        int
            0 where their frozen part is kept from the time before.
        """
        if split in self._kept or split not in self.loaders:
            return 0
        return len(self.loaders[split].own)

    def without(self, paths: Collection[str]) -> "ImageFeed":
        """Return the feed without images that were damaged meanwhile.

        Parameters
        ----------
        paths : collection of str
            As errors show them.

        Returns
        -------
        ImageFeed
            Of the others, in the order that they have by themselves.
        """
        loaders = {}
        for split, loader in self.loaders.items():
            file = loader.images.manifest.file
            good = [
                row for row in loader.rows.tolist() if shown(file(row)) not in paths
            ]
            if good:
                loaders[split] = replace(loader, rows=np.array(good))
        return replace(self, loaders=loaders, _kept={})

    def train(self, epoch: int) -> "Iterator[Batch]":
        """Give the share of each batch of an epoch.

        Parameters
        ----------
        epoch : int
            From 0.

        Yields
        ------
        Batch
            Pixels, or what the frozen stages made of them, and labels.
        """
        spec, loader = self.network.spec, self.loaders["train"]
        if self.network.ahead:
            batches = self._frozen_ahead(loader, epoch)
        elif spec.augment:
            batches = loader.augmented(epoch, seed=spec.seed)
        else:
            batches = loader.shuffled(epoch, seed=spec.seed)
        for inputs, labels in batches:
            yield inputs, labels
            self.progress.advance(len(labels))

    def scores(self, split: str) -> Iterator[Said]:
        """Give what the classifier says of the share of a split's fixed views.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Which part.

        Yields
        ------
        (ndarray of float32 (b, C), ndarray of int32 (b,))
            Scores and labels.
        """
        network, loader = self.network, self.loaders[split]
        labels, done = loader.images.manifest.labels[loader.own], 0
        ahead = network.ahead or network.device.type != "cpu"
        for piece in self._said(split) if ahead else self._said_on_threads(split):
            yield piece, labels[done : done + len(piece)]
            done += len(piece)

    def _said(self, split: str) -> Iterator[Floats]:
        network, run = self.network, self.network.scorer()
        known = split in self._kept
        pieces = self._frozen_kept(split) if network.ahead else self._pixels(split)
        for piece in pieces:
            yield scores_of(run, network.prepare(piece))
            if not known:
                self.progress.advance(len(piece))

    def _said_on_threads(self, split: str) -> Iterator[Floats]:
        """Run the whole network on the threads, one core each."""
        loader = self.loaders[split]
        run = self.network.scorer()
        for scores in self._on_threads(run, loader.own, loader.fixed):
            yield scores.numpy()
            self.progress.advance(len(scores))

    def _pixels(self, split: str) -> "Iterator[Pixels]":
        return (pixels for pixels, _ in self.loaders[split])

    def _on_threads(
        self, run: "Callable[[Tensor], Tensor]", rows: Rows, read: "Read"
    ) -> "Iterator[Tensor]":
        from featcache.vision.stages import forward_windows

        view = self.network.source.view
        indices = rows.tolist()
        return forward_windows(run, indices, read, view, self.threads, window=WINDOW)

    def _frozen_ahead(self, loader: "Loader", epoch: int) -> "Iterator[Batch]":
        """Give what the frozen stages make of an epoch's images, batch by batch."""
        spec = self.network.spec
        shares = loader.shares(epoch, seed=spec.seed)
        read = loader.reader(epoch, seed=spec.seed) if spec.augment else loader.fixed
        rows, sizes = np.concatenate(shares), map(len, shares)
        outputs = self._on_threads(self.network.run_ahead, rows, read)
        if not spec.augment:
            outputs = self._once(rows, outputs)
        labels = loader.images.manifest.labels
        for inputs, batch in zip(regrouped(outputs, sizes), shares, strict=True):
            yield inputs, labels[batch].astype(np.int64)

    def _once(self, rows: Rows, outputs: "Iterator[Tensor]") -> "Iterator[Tensor]":
        """Give the outputs of fixed views: from the second epoch on those kept."""
        import torch

        if all(row in self._fixed for row in rows.tolist()):
            for start in range(0, len(rows), WINDOW):
                window = rows[start : start + WINDOW].tolist()
                yield torch.stack([self._fixed[row] for row in window])
            return
        done = 0
        for piece in outputs:
            if piece[0].nbytes * len(rows) <= _KEPT_BYTES:
                its = rows[done : done + len(piece)].tolist()
                self._fixed.update(zip(its, piece, strict=True))
            yield piece
            done += len(piece)

    def _frozen_kept(self, split: str) -> "Iterable[Tensor]":
        """Return what the frozen stages make of fixed views, kept if there is room."""
        if split in self._kept:
            return self._kept[split]
        loader = self.loaders[split]
        pieces = self._on_threads(self.network.run_exactly, loader.own, loader.fixed)
        # The others are measured once.
        return self._keeping(split, pieces) if split == "val" else pieces

    def _keeping(self, split: str, pieces: "Iterator[Tensor]") -> "Iterator[Tensor]":
        kept, room = [], _KEPT_BYTES
        for piece in pieces:
            yield piece
            room -= piece.nbytes
            if room >= 0:
                kept.append(piece)
        if room >= 0:
            self._kept[split] = kept


def regrouped(pieces: "Iterable[Tensor]", sizes: Iterable[int]) -> "Iterator[Tensor]":
    """Cut a stream of rows anew.

    Parameters
    ----------
    pieces : iterable of tensor, shape (n, ...)
        Rows in order.
    sizes : iterable of int
        Rows of each result; together as many as come in.

    Yields
    ------
    tensor, shape (size, ...)
        One per size.
    """
    import torch

    stream, waiting = iter(pieces), torch.empty(0)
    for size in sizes:
        while len(waiting) < size:
            piece = next(stream)
            waiting = torch.cat([waiting, piece]) if len(waiting) else piece
        yield waiting[:size]
        waiting = waiting[size:]
