"""Where a cache's features came from: its images and its network, found again."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from featcache.core.changes import rows_by_path
from featcache.core.errors import CacheCorruptError, CacheMismatchError, DataError
from featcache.core.locations import Location
from featcache.core.progress import SILENT, Progress
from featcache.core.sources import Source
from featcache.core.text import shown
from featcache.stages.datasets import data_source, recorded_source
from featcache.stages.sources import WeightsSource, find_weights
from featcache.store.reader import FeatureCache
from featcache.store.table import FeatureTable
from featcache.vision.sources.folder import Folder
from featcache.vision.sources.opening import source_is_there

if TYPE_CHECKING:
    from featcache.vision.pipeline import Extractor
    from featcache.vision.weights import State

_BATCH, _LARGEST_BATCH = 8, 1024


@dataclass(frozen=True)
class Origin:
    """Where to look for what a cache was made of.

    Parameters
    ----------
    data : str or path, optional
        The images' folder; the one that the cache recorded without it.
    weights : str or path, optional
        The backbone's weights; those that the cache recorded without it.
    device : str
        ``auto``, ``cpu``, ``cuda``.
    """

    data: str | os.PathLike[str] | None = None
    weights: str | os.PathLike[str] | None = None
    device: str = "auto"

    def files(
        self,
        cache: FeatureCache,
        rows: Sequence[int],
        progress: Progress = SILENT,
    ) -> list[Location]:
        """Return where the images of some rows lie.

        Parameters
        ----------
        cache : FeatureCache
            With sound paths.
        rows : sequence of int
            Row numbers.
        progress : Progress
            Hears of a known data set that has to be fetched.

        Returns
        -------
        list of Path or Member
            One for each row; not looked at yet.

        Raises
        ------
        DataError
            When there is no such folder, or the shards or the list are not sound.
        CacheCorruptError
            When a path leads out of the folder: the file is a hostile one.
        """
        recorded = cache.provenance.get("data")
        if self.data is None and not isinstance(recorded, str):
            raise DataError(
                f"{shown(cache.path)} does not say where its images are; pass --data"
            )
        source = (
            recorded_source(str(recorded), progress)
            if self.data is None
            else data_source(self.data, progress=progress, use_cut=True)
        )
        if not source_is_there(source.address):
            raise DataError(
                f"there is no folder {shown(source.address)}; say with --data where "
                f"the images of {shown(cache.path)} are now"
            )
        if isinstance(source, Folder):  # whose paths say where the files are
            return [source.root / _inside(cache, row) for row in rows]
        return _listed(source, cache, rows)

    def state(
        self, cache: FeatureTable, progress: Progress = SILENT
    ) -> "tuple[WeightsSource, State]":
        """Return the weights that made a cache's features.

        Parameters
        ----------
        cache : FeatureTable
            Its backbone, and the identity of its weights, are taken.
        progress : Progress
            Hears of a download.

        Returns
        -------
        (WeightsSource, dict of str to tensor)
            Where they come from, whose view may not be the cache's, and the tensors.

        Raises
        ------
        CacheMismatchError
            When the weights are not those that made the features.
        WeightsError
            When there are no weights of that name.
        """
        from featcache.vision.weights import state_sha256

        spec = cache.spec
        name = self.weights or _recorded_weights(cache)
        source = find_weights(spec.backbone, name, progress=progress)
        state = source.load()
        found = state_sha256(state)
        if found != spec.weights_sha256:
            raise CacheMismatchError(
                f"weights_sha256 is {spec.weights_sha256[:12]}... in "
                f"{shown(cache.path)}, but {shown(source.name)} has "
                f"{found[:12]}...; pass the weights that made it with --weights"
            )
        return source, state

    def extractor(
        self, cache: FeatureCache, progress: Progress = SILENT
    ) -> "Extractor":
        """Return what computes a cache's features again.

        Parameters
        ----------
        cache : FeatureCache
            Its view, precision and weights are taken.
        progress : Progress
            Hears of a download.

        Returns
        -------
        Extractor
            With the batch size of the time.

        Raises
        ------
        CacheMismatchError
            When the weights are not those that made the features.
        WeightsError
            When there are no weights of that name.
        """
        from featcache.vision.assembly import assemble
        from featcache.vision.backbones import Backbone

        spec = cache.spec
        _, state = self.state(cache, progress)
        return assemble(
            Backbone(spec.backbone, state, spec.layer),
            spec.view,
            device=self.device,
            precision=spec.precision,
            batch_size=_recorded_batch(cache),
            augment=spec.augment,
        )


def _listed(source: Source, cache: FeatureCache, rows: Sequence[int]) -> list[Location]:
    """Find rows by their paths in the manifest of shards or of a list."""
    manifest = source.scan()
    found = rows_by_path(manifest.columns(), {"paths": cache.paths[list(rows)]})
    return [
        # What is not there any more is nowhere, and reading it will say so.
        manifest.file(at)
        if at >= 0
        else Path(f"{source.address}/{os.fsdecode(cache.paths[row])}")
        for row, at in zip(rows, found.tolist(), strict=True)
    ]


def _inside(cache: FeatureCache, row: int) -> str:
    name = os.fsdecode(cache.paths[row])
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name or Path(name).drive:
        raise CacheCorruptError(
            f"{shown(cache.path)} names an image outside its folder: {shown(name)}; "
            "it was not made by featcache"
        )
    return name


def _recorded_weights(cache: FeatureTable) -> str:
    source = cache.provenance.get("weights", {}).get("source")
    if not source or not isinstance(source, str):
        raise CacheMismatchError(
            f"{shown(cache.path)} does not say which weights made it; pass --weights"
        )
    return source


def _recorded_batch(cache: FeatureCache) -> int:
    """Return the batch size of the time: equal batches give equal bytes."""
    recorded = cache.provenance.get("batch_size")
    if isinstance(recorded, int) and 1 <= recorded <= _LARGEST_BATCH:
        return recorded
    return _BATCH
