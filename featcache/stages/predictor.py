"""The predictor: a model at work on a stream of images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from featcache.core.blocks import Block, block_rows, plan_blocks
from featcache.core.errors import NumericError
from featcache.core.locations import Location
from featcache.core.predictions import Entry, ImageFile, Ranked, rank
from featcache.core.status import Status
from featcache.core.text import shown
from featcache.stages.guarding import UNGUARDED, Guard
from featcache.store.artifacts import Model

if TYPE_CHECKING:
    from featcache.vision.pipeline import Extractor
    from featcache.vision.rows import BlockRows

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model at work.

    Parameters
    ----------
    extractor : Extractor
        See `model_extractor`.
    model : Model
        Its head takes the features.
    top : int
        K, the most probable classes that are kept of each image.
    guard : Guard
        Knows what must not be decoded.
    """

    extractor: "Extractor"
    model: Model
    top: int
    guard: Guard = UNGUARDED

    def block_rows(self, images: int) -> int:
        """Return how many images one thread takes at once.

        Parameters
        ----------
        images : int
            All that there are.

        Returns
        -------
        int
            As `extract` takes them; fewer where a thread would get none.
        """
        return min(block_rows(images), -(-images // self.extractor.workers) or 1)

    def stream(
        self, files: Sequence[ImageFile], rows: int = 0
    ) -> Iterator[list[Entry]]:
        """Classify images, a block at a time.

        Parameters
        ----------
        files : sequence of ImageFile
            n images.
        rows : int
            Images of a block; 0 for what suits n.

        Returns
        -------
        iterator of list of Entry
            In the order of the images.

        Raises
        ------
        NumericError
            While it is taken, when features are not finite.
        """

        def told(block: Block, computed: "BlockRows") -> list[Entry]:
            return self._entries(files[block.rows], computed)

        rows = rows or self.block_rows(len(files))
        dim = self.model.head.embed_dim
        return stream_images(self.extractor, files, dim, rows, told, guard=self.guard)

    def _entries(self, files: Sequence[ImageFile], rows: "BlockRows") -> list[Entry]:
        good = np.flatnonzero(rows.status == Status.OK)
        ranked: dict[int, Ranked] = {}
        if len(good):
            probabilities = self.model.head.probabilities(rows.features[good])
            best = rank(probabilities, self.model.classes, self.top)
            ranked = dict(zip(good.tolist(), best, strict=True))
        return [
            Entry(
                shown(file.name),
                ranked.get(row, ()),
                rows.reasons.get(row, ""),
                file.size,
                file.mtime_ns,
            )
            for row, file in enumerate(files)
        ]


def stream_images(  # noqa: PLR0913 - what, how, and who hears of it
    extractor: "Extractor",
    files: Sequence[ImageFile],
    dim: int,
    block_size: int,
    told: "Callable[[Block, BlockRows], Result]",
    *,
    guard: Guard = UNGUARDED,
    places: Sequence[Location] | None = None,
) -> Iterator[Result]:
    """Compute the features of images on as many threads as `extract`.

    Parameters
    ----------
    extractor : Extractor
        From image files to features.
    files : sequence of ImageFile
        n images.
    dim : int
        D.
    block_size : int
        Images that a thread takes at once.
    told : callable
        From a block and its rows to what is yielded; called on the threads.
    guard : Guard
        Knows what must not be decoded.
    places : sequence of Path or Member, optional
        Where the images lie, if not in files of their names.

    Returns
    -------
    iterator
        Of what ``told`` returns, in the order of the images.

    Raises
    ------
    NumericError
        While it is taken, when features are not finite.
    """
    from featcache.vision.rows import BlockRows
    from featcache.vision.streaming import stream_blocks

    def work(block: Block, alive: Callable[[], None]) -> Result:
        own = files[block.rows]
        rows = BlockRows.pending(block.size, dim, "float32")
        for row, file in enumerate(own):
            verdict = guard.sentence(file, extractor.view)
            if verdict is not None:
                rows.status[row] = Status.QUARANTINED
                rows.reasons[row] = verdict
        with extractor.clock.worker():
            extractor.fill(
                rows,
                [Path(file.name) for file in own]
                if places is None
                else places[block.rows],
                alive=alive,
                decoding=lambda row: guard.decoding(own[row]),
            )
        wrong = np.flatnonzero((rows.status == Status.OK) & ~rows.finite())
        if len(wrong):
            name = shown(own[int(wrong[0])].name)
            raise NumericError(f"the features of {name} are not finite")
        return told(block, rows)

    blocks = list(plan_blocks(len(files), block_size))
    workers = min(extractor.workers, len(blocks))
    return stream_blocks(blocks, work, workers, guard.watch)
