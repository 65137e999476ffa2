"""Feeds of maps: what the loop is given where the frozen stages' output is cached."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.core.progress import Progress
from featcache.core.seeds import epoch_order
from featcache.core.viewed import epoch_views
from featcache.stages.feeds import WINDOW, Rows, Said
from featcache.stages.online_network import OnlineNetwork, scores_of
from featcache.store.maps import StoredMaps

if TYPE_CHECKING:
    from featcache.train.loop import Batch


@dataclass(frozen=True, eq=False)
class MapFeed:
    """Maps of the last frozen stage, from a cache.

    Parameters
    ----------
    maps : mapping of str to StoredMaps
        By split; one without images is not there.
    network : OnlineNetwork
        Whose trained stages take the maps.
    share : (int, int)
        This process's number, from 0, and how many there are.
    progress : Progress
        Hears of every image that passes.
    identity : mapping
        What the images are, for checkpoints: JSON data.
    """

    maps: Mapping[str, StoredMaps]
    network: OnlineNetwork
    share: tuple[int, int]
    progress: Progress
    identity: Mapping[str, Any]

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
        return len(self.maps[split]) if split in self.maps else 0

    def passing(self, split: str) -> int:
        """Return how many images pass here when a split is gone through.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Which part.

        Returns
        -------
        int
            This process's share.
        """
        return len(self._own(split))

    def train(self, epoch: int) -> "Iterator[Batch]":
        """Give the share of each batch of an epoch.

        Parameters
        ----------
        epoch : int
            From 0.

        Yields
        ------
        Batch
            Maps (b, c, h, w) as stored, of a view drawn for each where there are
            several, and labels.
        """
        spec, maps = self.network.spec, self.maps["train"]
        rank, count = self.share
        order = epoch_order(len(maps), seed=spec.seed, epoch=epoch)
        counts = np.full(len(maps), maps.views)
        views = epoch_views(counts, seed=spec.seed, epoch=epoch)
        for start in range(0, len(order), spec.batch_size):
            samples = order[start : start + spec.batch_size][rank::count]
            yield maps.take(samples, views[samples]), maps.y[samples].astype(np.int64)
            self.progress.advance(len(samples))

    def scores(self, split: str) -> Iterator[Said]:
        """Give what the classifier says of the share of a split's val views.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Which part.

        Yields
        ------
        (ndarray of float32 (b, C), ndarray of int32 (b,))
            Scores and labels.
        """
        run, maps, own = self.network.scorer(), self.maps[split], self._own(split)
        for start in range(0, len(own), WINDOW):
            samples = own[start : start + WINDOW]
            inputs = self.network.prepare(maps.take(samples))
            yield scores_of(run, inputs), maps.y[samples]
            self.progress.advance(len(samples))

    def _own(self, split: str) -> Rows:
        rank, count = self.share
        return np.arange(self.count(split))[rank::count]
