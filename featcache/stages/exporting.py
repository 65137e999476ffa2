"""`export`: a cache as files that other programs read."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from featcache.core.errors import DataError, SpecError, StorageError
from featcache.core.libraries import optional
from featcache.core.manifest import SPLITS
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.text import closest, shown
from featcache.store.files import require_file_name, storing, sweep
from featcache.store.frames import Frame
from featcache.store.lock import writing
from featcache.store.opening import Paths, open_cache
from featcache.store.parts import PartedCache
from featcache.store.reader import CHECKED_ON_OPEN, FeatureCache
from featcache.store.table import FeatureTable
from featcache.store.tables import FORMATS, Format, Rows, is_export

Target = Literal["npy", "parquet", "csv"]

_PIECE = 64 << 20  # bytes of features that are in memory at once

_REMEDY = "wait for it to end, or choose another place with --out"


@dataclass(frozen=True, kw_only=True)
class ExportReport(Report):
    """What `export` wrote."""

    source: Path
    to: str
    out: Path
    images: int  # rows written
    skipped: int  # rows left out: their image could not be used
    embed_dim: int
    bytes: int
    seconds: float


def export(
    source: FeatureTable | Paths,
    to: Target,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write a cache as files that other programs read.

    Rows of images that could not be used are left out. Memory stays bounded, whatever
    the cache holds, and what is written is there whole or not at all.

    Parameters
    ----------
    source : FeatureCache, path, pattern or paths
        A cache; several files are read as one, as `featcache.open_cache` does.
    to : {"npy", "parquet", "csv"}
        A folder of ``.npy`` files (``X.npy`` can be mapped), one Parquet file
        (features as a list column), or one CSV file (a column a feature).
    out : str or path, optional
        The file or folder to make; without it, beside the cache and named after it.
    overwrite : bool
        Whether a file, or an earlier export's folder, of that name is replaced.
    progress : Progress
        Hears how many rows are written.

    Returns
    -------
    ExportReport
        What was written, and where.

    Raises
    ------
    SpecError
        When there is no such format, or it is none of caches.
    DependencyError
        When pyarrow is needed and not installed.
    CacheError
        When the cache is missing or damaged.
    StorageError
        When the place is taken, or cannot be written.
    """
    began = time.perf_counter()
    kind = _format(to)
    with ExitStack() as stack:
        if isinstance(source, FeatureTable):
            opened = source
        else:
            _require_cache(source, to)
            opened = stack.enter_context(open_cache(source))
        opened.spec.require_features(shown(opened.path))
        target = _default_out(opened, kind) if out is None else Path(out)
        _write(opened, kind, target, overwrite=overwrite, progress=progress)
        return ExportReport(
            source=opened.path,
            to=to,
            out=target,
            images=len(opened) - opened.skipped,
            skipped=opened.skipped,
            embed_dim=opened.embed_dim,
            bytes=_size(target),
            seconds=round(time.perf_counter() - began, 3),
        )


def _write(
    opened: FeatureTable,
    kind: Format,
    target: Path,
    *,
    overwrite: bool,
    progress: Progress,
) -> None:
    _require_apart(opened, target)
    rows = opened.rows()
    if not len(rows):
        raise DataError(f"{shown(opened.path)} has no usable row to export")
    with writing(target, remedy=_REMEDY):
        _require_free(target, kind, overwrite=overwrite)
        with storing(target):
            sweep(target)
        _check_digests(opened, progress)
        progress.begin("export", len(rows), unit="row")
        try:
            kind.write(_rows(opened, rows, progress), target)
        finally:
            progress.end()


def _format(to: str) -> Format:
    if to not in FORMATS:
        known = ", ".join(FORMATS)
        raise SpecError(f"unknown format {to!r}{closest(to, FORMATS)} (known: {known})")
    kind = FORMATS[to]
    if kind.library:
        optional(kind.library, f"--to {to}", extra="export")
    return kind


def _require_cache(source: Paths, to: str) -> None:
    """Refuse a model, which is another kind of thing to export."""
    if not isinstance(source, str | os.PathLike):
        return
    path = Path(source)
    if path.is_dir() or path.suffix == ".safetensors":
        raise SpecError(
            f"{shown(path)} is no cache; --to {to} takes a file that 'featcache "
            "extract' made"
        )


def _parts(opened: FeatureTable) -> tuple[FeatureTable, ...]:
    return opened.parts if isinstance(opened, PartedCache) else (opened,)


def _default_out(opened: FeatureTable, kind: Format) -> Path:
    return _parts(opened)[0].path.with_name(f"{opened.name}{kind.ending}")


def _require_apart(opened: FeatureTable, target: Path) -> None:
    for part in _parts(opened):
        if target.exists() and part.path.exists() and target.samefile(part.path):
            raise StorageError(
                f"{shown(target)} is the cache itself; choose another place with --out"
            )


def _require_free(target: Path, kind: Format, *, overwrite: bool) -> None:
    if not kind.is_folder:
        require_file_name(target)
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise StorageError(
            f"{shown(target)} is there already; choose another place with --out, or "
            "replace it with --overwrite"
        )
    # Whatever else a folder holds would be lost with it.
    if kind.is_folder and not is_export(target):
        raise StorageError(
            f"{shown(target)} is not a folder that 'featcache export' made, and is "
            "not replaced; choose another place with --out"
        )


def _check_digests(opened: FeatureTable, progress: Progress) -> None:
    """Check what opening did not: in the export, no digest guards the rows."""
    for part in _parts(opened):
        if isinstance(part, FeatureCache) and part.header.length > CHECKED_ON_OPEN:
            progress.begin("verify", len(part), unit="row")
            try:
                part.check(progress.advance)
            finally:
                progress.end()


def _rows(
    opened: FeatureTable, rows: npt.NDArray[np.int64], progress: Progress
) -> Rows:
    step = max(1, _PIECE // (opened.embed_dim * np.dtype(opened.spec.dtype).itemsize))

    def pieces() -> Iterator[Frame]:
        for start in range(0, len(rows), step):
            piece = opened.frame(rows[start : start + step])
            yield piece
            progress.advance(len(piece))

    meta = {
        "source": shown(opened.path),
        "images": len(rows),
        "skipped": opened.skipped,
        "embed_dim": opened.embed_dim,
        "dtype": opened.spec.dtype,
        "splits": list(SPLITS),
        "classes": [shown(name) for name in opened.classes],
        "fingerprint": opened.fingerprint,
        "spec": opened.spec.to_json(),
        "provenance": dict(opened.provenance),
    }
    return Rows(pieces(), len(rows), opened.embed_dim, opened.spec.dtype, meta)


def _size(target: Path) -> int:
    files = target.iterdir() if target.is_dir() else (target,)
    return sum(file.stat().st_size for file in files)
