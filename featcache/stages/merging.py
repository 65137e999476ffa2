"""`merge`: caches of parts of a data set, joined into one file."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.blocks import Block, plan_blocks
from featcache.core.errors import CacheCorruptError, CacheError, CacheMismatchError
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.text import shown
from featcache.stages.provenance import describe_run
from featcache.stages.scratch import removed_on_failure
from featcache.store.files import require_file_name
from featcache.store.header import read_header
from featcache.store.lock import writing
from featcache.store.opening import open_manifest, open_parts
from featcache.store.parts import PartedCache
from featcache.store.reader import FeatureCache
from featcache.store.writer import CacheWriter, create, partial_path

_LONGEST_LIST = 1 << 14  # characters of names in the provenance, which has 64 KiB


@dataclass(frozen=True, kw_only=True)
class MergeReport(Report):
    """What `merge` made."""

    cache: Path
    sources: int
    images: int
    repeated: int  # rows left out, since another source has the same image
    skipped: int  # images that could not be used; they have no feature
    embed_dim: int
    classes: int
    fingerprint: str
    seconds: float


def merge(
    sources: Iterable[str | os.PathLike[str]],
    cache: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> MergeReport:
    """Join caches with the same fingerprint into one file.

    Classes are united by name and rows ordered by split, label and path, as if one
    folder had been extracted. An image that stands in several sources is taken once.
    Features are copied block by block, and the sources' digests checked on the way.

    Parameters
    ----------
    sources : iterable of str or path
        Complete caches.
    cache : str or path
        The file to make.
    overwrite : bool
        Whether a file of that name is replaced.
    progress : Progress
        Hears how many rows are copied.

    Returns
    -------
    MergeReport
        How many rows and classes there are.

    Raises
    ------
    CacheMismatchError
        When fingerprints differ, two sources disagree about an image, or the file is
        there.
    CacheCorruptError
        When a source is damaged; no file is made then.
    CacheNotFoundError
        When a source is missing.
    StorageError
        When the disk is too small or fails.
    """
    began = time.perf_counter()
    target = Path(cache)
    require_file_name(target)
    paths = list(map(Path, sources))
    with open_parts(paths, opener=open_manifest) as joined, writing(target):
        _require_free(target, overwrite=overwrite)
        report = _write(joined, target, progress)
    return MergeReport(**report, seconds=round(time.perf_counter() - began, 3))


def _require_free(target: Path, *, overwrite: bool) -> None:
    if overwrite:
        return
    if target.exists():
        raise CacheMismatchError(
            f"{shown(target)} is there already; choose another file with --cache, or "
            "replace it with --overwrite"
        )
    partial = partial_path(target)
    if partial.exists() and not _is_merge(partial):
        raise CacheMismatchError(
            f"{shown(partial)} holds an interrupted extraction; choose another file "
            "with --cache, or replace it with --overwrite"
        )


def _is_merge(partial: Path) -> bool:
    try:
        return "merged" in read_header(partial).provenance
    except CacheError:
        return False


def _write(joined: PartedCache, target: Path, progress: Progress) -> dict[str, Any]:
    partial = partial_path(target)
    report = {
        "cache": target,
        "sources": len(joined.parts),
        "images": len(joined),
        "repeated": joined.repeated,
        "skipped": joined.skipped,
        "embed_dim": joined.embed_dim,
        "classes": len(joined.classes),
        "fingerprint": joined.fingerprint,
    }
    columns, spec = joined.manifest_columns(), joined.spec
    with removed_on_failure(partial):
        create(partial, spec, columns, joined.embed_dim, _provenance(joined))
        with CacheWriter(partial) as writer:
            progress.begin("merge", len(joined), unit="row")
            try:
                _copy(joined, writer, progress.advance)
            finally:
                progress.end()
            joined.close()  # Windows replaces no file that is mapped
            writer.finish(target)
    return report


def _copy(
    joined: PartedCache, writer: CacheWriter, advance: Callable[[int], None]
) -> None:
    sound, spec = _SoundRows(), joined.spec
    status, digests = joined.columns["status"], joined.columns["digests"]
    for block in plan_blocks(len(joined), writer.header.block_rows):
        for part, _, rows in joined.located(block.rows):
            sound.require(part, rows)
        features = joined.take_views(np.arange(block.start, block.stop), spec.views)
        rows = features.reshape(block.size, *spec.row_shape(joined.embed_dim))
        writer.write(block, rows, digests[block.rows], status[block.rows])
        advance(block.size)


class _SoundRows:
    """Remembers which blocks of the sources were seen to match their digests."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def require(self, part: FeatureCache, rows: npt.NDArray[np.int64]) -> None:
        """Refuse rows out of a block that is damaged."""
        size = part.header.block_rows
        for index in np.unique(rows // size).tolist():
            if (id(part), index) in self._seen:
                continue
            start = index * size
            if not part.sound(Block(index, start, min(start + size, len(part)))):
                part.check()  # names every row that is damaged
                raise CacheCorruptError(f"{shown(part.path)} is changing meanwhile")
            self._seen.add((id(part), index))


def _provenance(joined: PartedCache) -> dict[str, Any]:
    names: list[str] = []
    for part in joined.parts:
        names.append(shown(part.path))
        if sum(map(len, names)) > _LONGEST_LIST:
            names[-1] = f"and {len(joined.parts) - len(names) + 1} more"
            break
    made = describe_run("ended", merged=names)
    return {**made, **joined.provenance, "ended": made["ended"], "merged": names}
