"""Filling a cache: every block that is not done yet, on threads."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from featcache.core.blocks import Block
from featcache.core.errors import BadImage, DecoderHungError, NumericError
from featcache.core.manifest import Manifest
from featcache.core.progress import Progress
from featcache.core.status import Status
from featcache.core.text import shown
from featcache.core.timing import Timing
from featcache.core.viewed import view_counts
from featcache.stages.suspects import try_suspects
from featcache.stages.tasks import Engine, Files, Work
from featcache.store.checking import unsound
from featcache.store.ledger import Ledger
from featcache.store.reader import FeatureCache
from featcache.store.reuse import Reuse
from featcache.store.writer import CacheWriter
from featcache.vision.isolation import SECONDS
from featcache.vision.rows import BlockRows

_OFTEN = 10.0  # seconds between two reports
_SETTLED = (Status.OK, Status.QUARANTINED)  # never computed again for equal bytes


class Tally:
    """What became of the images of one extraction; workers report here.

    Parameters
    ----------
    manifest : Manifest
        For the names of bad images.
    progress : Progress
        Hears of finished rows; called by one thread at a time.
    """

    def __init__(self, manifest: Manifest, progress: Progress) -> None:
        self.began = time.monotonic()
        self.computed = 0
        self.done = 0
        self._bad: dict[int, str] = {}
        self._manifest = manifest
        self._progress = progress
        self._lock = threading.Lock()
        self._told = self.began

    def tell(self, engine: Engine) -> None:
        """Say every 10 s, to those who asked for more, what takes the time.

        Parameters
        ----------
        engine : Engine
            Whose clock knows.
        """
        now = time.monotonic()
        if now - self._told < _OFTEN:
            return
        self._told = now
        timing = Timing.of(
            engine.clock,
            images=self.computed,
            elapsed=now - self.began,
            device=engine.device,
        )
        self._progress.detail(f"{timing.speed:.0f} images/s: {timing.describe()}")

    def add(self, block: Block, rows: BlockRows) -> None:
        """Count a finished block.

        Parameters
        ----------
        block : Block
            Which rows.
        rows : BlockRows
            As filled.
        """
        with self._lock:
            self.done += block.size
            self.computed += rows.computed
            self._bad |= {block.start + row: text for row, text in rows.reasons.items()}
            self._progress.advance(block.size)

    @property
    def bad(self) -> list[BadImage]:
        """The images that could not be used, in the manifest's order."""
        paths = self._manifest.paths
        return [BadImage(shown(paths[i]), self._bad[i]) for i in sorted(self._bad)]


def unfinished(blocks: Iterable[Block], begun: FeatureCache | None) -> list[Block]:
    """Return the blocks that still need work.

    Parameters
    ----------
    blocks : iterable of Block
        All of them.
    begun : FeatureCache, optional
        The unfinished cache as an interrupted run left it.

    Returns
    -------
    list of Block
        Those whose bytes do not match their digest, and those with an image that
        could not be used: what stood in the way may be gone.
    """
    blocks = list(blocks)
    if begun is None:
        return blocks
    settled = np.isin(begun.status, _SETTLED)
    whole = [block for block in blocks if settled[block.rows].all()]
    kept = {block.index for block in whole}
    kept -= {block.index for block in unsound(whole, begun.sound)}
    return [block for block in blocks if block.index not in kept]


@dataclass(frozen=True, eq=False)
class Filler:
    """Prepares and writes one block at a time; threads share it.

    Parameters
    ----------
    manifest : Manifest
        The images.
    writer : CacheWriter
        Of the unfinished cache.
    engine : Engine
        From image files to features.
    reuse : Reuse
        What earlier caches know.
    begun : FeatureCache, optional
        The unfinished cache as an interrupted run left it.
    tally : Tally
        Hears of every block.
    ledger : Ledger
        Knows what is being decoded, and what was when the last process died.
    """

    manifest: Manifest
    writer: CacheWriter
    engine: Engine
    reuse: Reuse
    begun: FeatureCache | None
    tally: Tally
    ledger: Ledger

    def prepare(self, block: Block) -> Work:
        """Return the rows of a block, with what is known of them filled in.

        Parameters
        ----------
        block : Block
            Which rows.

        Returns
        -------
        Work
            Rows that are still pending have to be computed.
        """
        header = self.writer.header
        spec = header.spec
        shape = spec.row_shape(header.embed_dim)
        counts = view_counts(self.manifest.splits[block.rows], spec.views)
        rows = BlockRows.pending(block.size, shape, spec.dtype, counts)
        self._take_over(block, rows)
        self.reuse.prefill(block, rows.features, rows.digests, rows.status)
        work = Work(block, rows, Files(self.manifest, block), self.reuse)
        self.quarantine(work)
        return work

    def quarantine(self, work: Work) -> None:
        """Try what was being decoded when a process died in one of its own.

        Parameters
        ----------
        work : Work
            The guilty among its rows are marked.
        """
        block, view = work.block, self.writer.header.spec.view
        numbers = range(block.start, block.stop)
        try_suspects(work.rows, work.files, numbers, self.ledger.suspects, view)

    def finish(self, work: Work) -> None:
        """Check and write the rows of a block.

        Parameters
        ----------
        work : Work
            Computed.

        Raises
        ------
        StorageError
            When the disk is full or fails.
        NumericError
            When features are not finite.
        """
        block, rows = work.block, work.rows
        self._check_finite(block, rows)
        with self.engine.clock.stage("write"):
            self.writer.write(block, rows.features, rows.digests, rows.status)
        self.tally.add(block, rows)

    def watch(self) -> None:
        """Look after processes and decoders that never return; tell how it goes.

        Raises
        ------
        DecoderHungError
            Naming the image.
        """
        self.tally.tell(self.engine)
        self.engine.watch()
        found = self.ledger.hung(SECONDS)
        if found is None or self.engine.expel(found[1]):
            return
        self.ledger.keep()
        raise DecoderHungError(
            f"decoding {shown(self.manifest.paths[found[0]])} does not end within "
            f"{SECONDS:g} s; run the same command again: it is then tried apart, "
            "left out and named"
        )

    def _take_over(self, block: Block, rows: BlockRows) -> None:
        """Keep what is settled of a finished block that has bad rows."""
        if self.begun is None or not self.begun.sound(block):
            return
        kept = np.flatnonzero(np.isin(self.begun.status[block.rows], _SETTLED))
        for name in ("features", "digests", "status"):
            getattr(rows, name)[kept] = self.begun.columns[name][block.rows][kept]
        for row in kept.tolist():
            if rows.status[row] == Status.QUARANTINED:
                rows.reasons[row] = Status.QUARANTINED.reason

    def _check_finite(self, block: Block, rows: BlockRows) -> None:
        wrong = np.flatnonzero((rows.status == Status.OK) & ~rows.finite())
        if not len(wrong):
            return
        spec = self.writer.header.spec
        remedy = (
            "pass --dtype float32" if spec.dtype == "float16" else "check the weights"
        )
        name = shown(self.manifest.paths[block.start + int(wrong[0])])
        raise NumericError(
            f"the features of {name} are not finite in {spec.dtype}; {remedy}"
        )
