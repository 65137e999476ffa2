"""Sampling: some rows of a cache, computed again from their images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featcache.core.blocks import Block, plan_blocks
from featcache.core.errors import BadImage, DamagedRowsError
from featcache.core.locations import Location
from featcache.core.machine import cores
from featcache.core.progress import Progress
from featcache.core.seeds import generator
from featcache.core.status import Status
from featcache.core.text import listed, plural, shown
from featcache.core.tolerances import relative_errors, tolerance
from featcache.core.viewed import view_counts
from featcache.stages.origins import Origin
from featcache.store.reader import NAMED, FeatureCache

if TYPE_CHECKING:
    from featcache.vision.rows import BlockRows

GONE = "its image cannot be read any more"
CHANGED = "its image has changed since"


@dataclass(frozen=True)
class Sample:
    """Rows that were computed again and are as they were."""

    rows: int
    largest_error: float  # relative to the largest value of a row


def check_sample(
    cache: FeatureCache, count: int, seed: int, origin: Origin, progress: Progress
) -> Sample:
    """Compute random rows again and compare.

    Parameters
    ----------
    cache : FeatureCache
        With sound digests.
    count : int
        How many rows; all usable ones if there are fewer.
    seed : int
        Which.
    origin : Origin
        Where images and weights are.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    Sample
        When all are within the tolerance.

    Raises
    ------
    DamagedRowsError
        Naming every row whose image is gone or changed, or whose feature is another.
    FeatcacheError
        When there are no such images or weights.
    """
    usable = np.flatnonzero(cache.status == Status.OK)
    count = min(count, len(usable))
    chosen = generator(seed, "verify").choice(usable, count, replace=False)
    rows = np.sort(chosen).tolist()
    files = origin.files(cache, rows, progress)
    again = _Again(cache, rows, files, origin, progress)
    again.run()
    wrong = [again.wrong[row] for row in sorted(again.wrong)]
    if wrong:
        raise _different(cache, wrong, count)
    return Sample(count, max(again.errors, default=0.0))


class _Again:
    """The rows of a sample as they are computed again, block by block."""

    def __init__(
        self,
        cache: FeatureCache,
        rows: list[int],
        files: Sequence[Location],
        origin: Origin,
        progress: Progress,
    ) -> None:
        self.wrong: dict[int, BadImage] = {}
        self.errors: list[float] = []
        self._cache = cache
        self._rows = rows
        self._files = files
        self._extractor = origin.extractor(cache, progress)
        self._progress = progress

    def run(self) -> None:
        from featcache.vision.pipeline import run_blocks

        blocks = plan_blocks(len(self._rows), self._extractor.batch_size)
        self._progress.begin("sample", len(self._rows), unit="image")
        try:
            run_blocks(blocks, self._work, cores())
        finally:
            self._progress.end()

    def _work(self, block: Block, alive: object) -> None:
        from featcache.vision.rows import BlockRows

        del alive
        # float32: what is stored was rounded once, and is not rounded again here.
        cache, own = self._cache, np.array(self._rows[block.rows])
        views = cache.spec.views
        counts = view_counts(cache.splits[own], views)
        shape = cache.spec.row_shape(cache.embed_dim)
        found = BlockRows.pending(block.size, shape, "float32", counts)
        self._extractor.fill(found, self._files[block.rows])
        errors = _largest_errors(cache.take_views(own, views), found).tolist()
        for at, row in enumerate(own.tolist()):
            reason = self._reason(found, at, row, errors[at])
            if reason:
                self.wrong[row] = BadImage(shown(self._cache.paths[row]), reason)
            else:
                self.errors.append(errors[at])
        self._progress.advance(block.size)

    def _reason(self, found: "BlockRows", at: int, row: int, error: float) -> str:
        """Return what is wrong with a row, or nothing."""
        status = int(found.status[at])
        if status == Status.UNREADABLE:
            return f"{GONE} ({found.reasons[at]})"
        if (found.digests[at] != self._cache.columns["digests"][row]).any():
            return CHANGED
        if status != Status.OK:
            return f"its image is now refused: {found.reasons[at]}"
        limit = tolerance(self._cache.spec)
        if error > limit:
            return f"its feature is off by {error:.2g} (relative), above {limit:g}"
        return ""


def _largest_errors(
    stored: npt.NDArray[np.floating], found: "BlockRows"
) -> npt.NDArray[np.float64]:
    """Return the largest error (b,) among the views that each row has."""
    b, views, dim = stored.shape
    errors = relative_errors(stored.reshape(-1, dim), found.views.reshape(-1, dim))
    errors = errors.reshape(b, views)
    errors[np.arange(views) >= found.counts[:, None]] = 0.0
    largest: npt.NDArray[np.float64] = errors.max(axis=1)
    return largest


def _different(
    cache: FeatureCache, wrong: list[BadImage], count: int
) -> DamagedRowsError:
    named = listed((f"{row.path}: {row.reason}" for row in wrong), NAMED)
    return DamagedRowsError(
        f"{len(wrong):,} of {plural(count, 'sampled row')} of {shown(cache.path)} do "
        f"not match their images ({named}); run 'featcache extract' again, or say "
        "with --data where the images are",
        wrong,
    )
