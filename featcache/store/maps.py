"""Maps of a stage, read from a cache row by row, as training wants them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.errors import CacheMismatchError
from featcache.core.features import Rows
from featcache.core.layers import POOLED, MapShape, unfrozen_behind
from featcache.core.manifest import SPLITS, TRAIN
from featcache.core.metrics import Labels
from featcache.core.text import shown
from featcache.store.table import FeatureTable


class StoredMaps:
    """The maps of a split; rows of unusable images are left out.

    Good when the cache is closed, too; several threads may read at once.

    Parameters
    ----------
    table : FeatureTable
        Whose rows hold maps.
    split : {"train", "val", "test"}
        Which part.

    Attributes
    ----------
    shape : tuple of int
        (c, h, w).
    dtype : numpy.dtype
        As stored.
    y : ndarray of int32, shape (n,)
        Labels in [0, C).
    sample_index : ndarray of int64, shape (n,)
        Rows of the cache.
    views : int
        V, how many views each sample has: of val and test, view 0 alone.

    Raises
    ------
    CacheMismatchError
        When the rows hold features.
    SpecError
        When the name is none of a split.
    """

    def __init__(self, table: FeatureTable, split: str) -> None:
        shape = table.map_shape
        if shape is None:
            raise _features(table)
        self.shape: MapShape = shape
        self.dtype = np.dtype(table.spec.dtype)
        self.sample_index: Rows = table.rows(split)
        self.y: Labels = table.labels[self.sample_index]
        self.views = table.spec.views if split == SPLITS[TRAIN] else 1
        self._stride = table.spec.views
        self._source = table.source.flat()

    def __len__(self) -> int:
        return len(self.y)

    def take(self, samples: Rows, views: Rows | int = 0) -> npt.NDArray[Any]:
        """Return the maps of some samples, read past the map of the file.

        Parameters
        ----------
        samples : ndarray of int64, shape (m,)
            From 0 to n - 1, in any order.
        views : int or ndarray of int64, shape (m,)
            Which view of each, below `views`; 0 is the val view.

        Returns
        -------
        ndarray, shape (m, c, h, w)
            A copy of its own, in the stored dtype.

        Raises
        ------
        StorageError
            When the disk does not give them.
        """
        c, h, w = self.shape
        found = np.empty((len(samples), c * h * w), self.dtype)
        rows = self.sample_index[samples] * self._stride + views
        self._source.read(rows, found)
        return found.reshape(-1, c, h, w)


def require_maps(table: FeatureTable, unfreeze: str) -> None:
    """Refuse a cache from which training cannot begin where it is to begin.

    Parameters
    ----------
    table : FeatureTable
        Of any layer.
    unfreeze : str
        The first stage that is trained, as
        `featcache.core.finetune_spec.FinetuneSpec.unfreeze` has it.

    Raises
    ------
    CacheMismatchError
        Saying what the cache is for.
    """
    spec = table.spec
    if spec.layer == POOLED:
        raise _features(table)
    trained = unfrozen_behind(spec.layer)
    if trained != unfreeze:
        raise CacheMismatchError(
            f"{shown(table.path)} holds maps of {spec.layer}, from which --unfreeze "
            f"{trained} trains, not --unfreeze {unfreeze}; pass that, or extract with "
            "another --layer"
        )


def _features(table: FeatureTable) -> CacheMismatchError:
    file = shown(table.path)
    return CacheMismatchError(
        f"{file} holds features, from which only a head can be trained: 'featcache "
        f"fit-head {file}'; 'featcache extract --layer layer3' makes maps for "
        "--unfreeze layer4"
    )
