"""`repair`: the damaged blocks of a cache, computed again from their images."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.core.blocks import Block
from featcache.core.digests import array_digest
from featcache.core.errors import (
    BadImage,
    CacheCorruptError,
    DamagedRowsError,
    SpecError,
)
from featcache.core.locations import Location
from featcache.core.machine import cores
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.status import Status
from featcache.core.text import listed, plural, shown
from featcache.core.viewed import view_counts
from featcache.stages.origins import Origin
from featcache.stages.plans import image_digest
from featcache.stages.provenance import describe_run
from featcache.stages.sampling import CHANGED, GONE
from featcache.stages.scratch import removed_on_failure
from featcache.store.header import read_header
from featcache.store.lock import writing
from featcache.store.opening import is_pattern
from featcache.store.reader import NAMED, FeatureCache
from featcache.store.reuse import RACY_NS
from featcache.store.writer import CacheWriter, create, partial_path
from featcache.vision.reading import size_and_time

if TYPE_CHECKING:
    from featcache.vision.rows import BlockRows


@dataclass(frozen=True, kw_only=True)
class RepairReport(Report):
    """What `repair` did."""

    cache: Path
    rows: int
    blocks: int
    repaired_blocks: int
    repaired_rows: int  # those of these blocks
    skipped: int
    seconds: float


def repair(
    cache: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> RepairReport:
    """Compute the rows of damaged blocks again, and replace the file at once.

    Parameters
    ----------
    cache : str or path
        The ``.h5`` file.
    data : str or path, optional
        Where the images are now, if not where they were.
    weights : str or path, optional
        Where the backbone's weights are now, if not where they were.
    device : str
        Where the network runs.
    progress : Progress
        Hears how much is done.

    Returns
    -------
    RepairReport
        How many rows were computed; a sound file is left as it is.

    Raises
    ------
    DamagedRowsError
        Naming every row whose image is gone or changed; nothing is changed then.
    CacheCorruptError
        When the paths or labels are damaged: nothing can tell what they were.
    CacheBusyError
        When another process is writing the file.
    CacheMismatchError
        When the weights are not those that made the cache.
    SpecError
        When several files are named by a pattern.
    """
    began = time.perf_counter()
    path = Path(cache)
    if is_pattern(path):
        raise SpecError(
            f"{shown(path)} is several files; repair mends one: name the damaged one"
        )
    read_header(path)  # nothing is locked that is not there
    with writing(path):
        opened = FeatureCache(path)
        try:
            _require_manifest(opened)
            bad = _damaged(opened, progress)
            if bad:
                origin = Origin(data, weights, device)
                _Repair(opened, bad, origin, progress).run()
        finally:
            opened.close()
    with FeatureCache(path) as done:
        return RepairReport(
            cache=path,
            rows=len(done),
            blocks=sum(1 for _ in done.blocks()),
            repaired_blocks=len(bad),
            repaired_rows=sum(block.size for block in bad),
            skipped=done.skipped,
            seconds=round(time.perf_counter() - began, 3),
        )


def _require_manifest(cache: FeatureCache) -> None:
    if not cache.manifest_sound():
        raise CacheCorruptError(
            f"{shown(cache.path)} cannot be repaired: its paths or labels do not match "
            "their digest, so nothing can tell which image a row is of; delete it and "
            "run 'featcache extract' again"
        )


def _damaged(cache: FeatureCache, progress: Progress) -> list[Block]:
    progress.begin("verify", len(cache), unit="row")
    try:
        bad = cache.unsound(progress.advance)
    finally:
        progress.end()
    if not bad:
        cache.check_values()
    return bad


class _Repair:
    """One repair: damaged blocks from the images, the others from the file."""

    def __init__(
        self, cache: FeatureCache, bad: list[Block], origin: Origin, progress: Progress
    ) -> None:
        self._cache = cache
        self._bad = bad
        self._extractor = origin.extractor(cache, progress)
        rows = [row for block in bad for row in range(block.start, block.stop)]
        files = origin.files(cache, rows, progress)
        self._files = dict(zip(rows, files, strict=True))
        self._refused: dict[int, BadImage] = {}
        self._progress = progress

    def run(self) -> None:
        """Write a whole new file and give it the old one's name."""
        cache, path = self._cache, self._cache.path
        partial = partial_path(path)
        _require_no_extraction(partial)
        count = sum(block.size for block in self._bad)
        repaired = describe_run("at", rows=count, blocks=len(self._bad))
        provenance = {**cache.provenance, "repaired": repaired}
        columns = cache.manifest_columns()
        with removed_on_failure(partial):
            create(partial, cache.spec, columns, cache.embed_dim, provenance)
            with CacheWriter(partial) as writer:
                self._fill(writer, count)
                with FeatureCache(partial) as written:
                    written.check()  # seen whole before it takes the old one's place
                cache.close()  # Windows replaces no file that is mapped
                writer.finish(path)

    def _fill(self, writer: CacheWriter, count: int) -> None:
        from featcache.vision.pipeline import run_blocks

        def recompute(block: Block, alive: Callable[[], None]) -> None:
            self._recompute(writer, block, alive)

        def copy(block: Block, alive: object) -> None:
            del alive
            writer.write(block, **self._stored(block))

        self._progress.begin("repair", count, unit="image")
        try:
            run_blocks(self._bad, recompute, cores())
        finally:
            self._progress.end()
        if self._refused:
            raise self._refusal()
        bad = {block.index for block in self._bad}
        sound = (block for block in self._cache.blocks() if block.index not in bad)
        run_blocks(sound, copy, cores())

    def _stored(self, block: Block) -> Mapping[str, Any]:
        names = ("features", "digests", "status")
        return {name: self._cache.columns[name][block.rows] for name in names}

    def _recompute(
        self, writer: CacheWriter, block: Block, alive: Callable[[], None]
    ) -> None:
        from featcache.vision.rows import BlockRows

        spec = self._cache.spec
        counts = view_counts(self._cache.splits[block.rows], spec.views)
        shape = spec.row_shape(self._cache.embed_dim)
        rows = BlockRows.pending(block.size, shape, spec.dtype, counts)
        files = [self._files[row] for row in range(block.start, block.stop)]
        self._quarantine(block, rows, files)
        self._extractor.fill(rows, files, alive=alive)
        digest = array_digest(rows.features, rows.digests, rows.status)
        # Equal to the journal's line: every byte is as it was first computed.
        if digest != self._cache.columns["journal"][block.index].tobytes():
            for at, row in enumerate(range(block.start, block.stop)):
                reason = self._doubt(rows, at, row)
                if reason:
                    name = shown(self._cache.paths[row])
                    self._refused[row] = BadImage(name, reason)
        writer.write(block, rows.features, rows.digests, rows.status)
        self._progress.advance(block.size)

    def _quarantine(
        self, block: Block, rows: "BlockRows", files: list[Location]
    ) -> None:
        """Try what once crashed or hung a decoder in a process of its own first."""
        from featcache.vision.isolation import suspicion

        stored = self._cache.status[block.rows]
        for at in np.flatnonzero(stored == Status.QUARANTINED).tolist():
            if suspicion(files[at], self._cache.spec.view) is not None:
                rows.status[at] = Status.QUARANTINED
                digest = image_digest(files[at])
                rows.digests[at] = np.frombuffer(digest, np.uint8)

    def _doubt(self, found: "BlockRows", at: int, row: int) -> str:
        """Return why an image may be another than it was, or nothing.

        Its digest stands in the damaged block and may be damaged itself; then size
        and time vouch for the image, which the manifest's digest covers.
        """
        if found.status[at] == Status.UNREADABLE:
            return f"{GONE} ({found.reasons[at]})"
        columns = self._cache.columns
        if (found.digests[at] == columns["digests"][row]).all():
            return ""
        size, mtime_ns = size_and_time(self._files[row])
        began = int(self._cache.provenance.get("began_ns", 0))
        unchanged = (
            size == columns["sizes"][row]
            and mtime_ns == columns["mtimes_ns"][row]
            and mtime_ns < began - RACY_NS
        )
        return "" if unchanged else CHANGED

    def _refusal(self) -> DamagedRowsError:
        wrong = [self._refused[row] for row in sorted(self._refused)]
        named = listed((f"{row.path}: {row.reason}" for row in wrong), NAMED)
        return DamagedRowsError(
            f"{shown(self._cache.path)} cannot be repaired and is left as it is: "
            f"{plural(len(wrong), 'image')} of its damaged blocks cannot be computed "
            f"again ({named}); put them back, say with --data where they are, or run "
            "'featcache extract' on the folder as it is now",
            wrong,
        )


def _require_no_extraction(partial: Path) -> None:
    if partial.exists() and "repaired" not in read_header(partial).provenance:
        raise CacheCorruptError(
            f"{shown(partial)} holds an interrupted extraction; let 'featcache "
            "extract' end it, or delete it, and repair again"
        )
