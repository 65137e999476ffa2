"""`describe` and `verify`: what a file holds, and whether its bytes are right."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.core.errors import SpecError
from featcache.core.knn import KnnHead
from featcache.core.manifest import SPLITS
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.text import shown
from featcache.stages.origins import Origin
from featcache.stages.sampling import check_sample
from featcache.store.artifacts import open_model
from featcache.store.opening import files_of, is_pattern, open_cache
from featcache.store.parts import PartedCache
from featcache.store.reader import FeatureCache


@dataclass(frozen=True, kw_only=True)
class VerifyReport(Report):
    """A cache whose every digest matches, and every sampled row."""

    cache: Path
    rows: int
    blocks: int
    bytes: int
    skipped: int  # rows whose image could not be used
    sampled: int = 0  # rows that were computed again
    largest_error: float | None = None  # of these, relative; None without a sample
    seconds: float


def verify(  # noqa: PLR0913 - the command's options
    cache: str | os.PathLike[str],
    *,
    sample: int = 0,
    seed: int = 0,
    data: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> VerifyReport:
    """Check every digest of a cache, and compute some rows again.

    Parameters
    ----------
    cache : str or path
        The ``.h5`` file; or a pattern such as ``cache/part-*.h5``, of files that must
        belong together.
    sample : int
        How many random usable rows are computed again from their images; of several
        files, about as many in each.
    seed : int
        Which rows these are.
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
    VerifyReport
        When all is well.

    Raises
    ------
    DamagedRowsError
        Naming every row that is not as it should be: its digest, its image, or its
        feature beyond `featcache.core.tolerances.tolerance`.
    CacheCorruptError
        When the paths and labels are damaged.
    CacheMismatchError
        When the weights are not those that made the cache, or files do not belong
        together.
    CacheNotFoundError
        When there is no such file, or one of the parts of a data set is missing.
    DataError
        When there is no folder of images.
    SpecError
        When sample or seed is negative.
    """
    began = time.perf_counter()
    path = Path(cache)
    for name, number in {"sample": sample, "seed": seed}.items():
        if number < 0:
            raise SpecError(f"{name} must be at least 0, got {number}")
    files = files_of(path)
    shares = [
        sample // len(files) + (i < sample % len(files)) for i in range(len(files))
    ]
    with ExitStack() as stack:
        opened = [stack.enter_context(FeatureCache(file)) for file in files]
        _check(opened, progress)
        if is_pattern(path):
            PartedCache(opened, path)  # refuses what does not belong together
        origin = Origin(data, weights, device)
        checked = [
            check_sample(part, share, seed, origin, progress)
            for part, share in zip(opened, shares, strict=True)
            if share
        ]
        return VerifyReport(
            cache=path,
            rows=sum(map(len, opened)),
            blocks=sum(1 for part in opened for _ in part.blocks()),
            bytes=sum(part.header.length for part in opened),
            skipped=sum(part.skipped for part in opened),
            sampled=sum(one.rows for one in checked),
            largest_error=max((one.largest_error for one in checked), default=None),
            seconds=round(time.perf_counter() - began, 3),
        )


def _check(parts: Sequence[FeatureCache], progress: Progress) -> None:
    """Check every digest of some files."""
    progress.begin("verify", sum(map(len, parts)), unit="row")
    try:
        for part in parts:
            part.check(progress.advance)
    finally:
        progress.end()


def describe(file: Path) -> dict[str, Any]:
    """Return what a cache or a model file holds.

    Parameters
    ----------
    file : Path
        ``.h5``, a pattern of several, ``.safetensors`` or the folder of a run.

    Returns
    -------
    dict
        JSON data.

    Raises
    ------
    FeatcacheError
        When it is neither, or damaged.
    """
    if file.is_dir() or file.suffix == ".safetensors":
        return _describe_model(file)
    return _describe_cache(open_cache(file))


def _describe_cache(cache: FeatureCache | PartedCache) -> dict[str, Any]:
    parts = cache.parts if isinstance(cache, PartedCache) else (cache,)
    several = {"files": [shown(part.path) for part in parts]} if len(parts) > 1 else {}
    splits = Counter(cache.splits.tolist())
    return {
        "kind": "cache",
        "file": shown(cache.path),
        **several,
        "images": len(cache),
        "splits": {SPLITS[i]: splits[i] for i in sorted(splits)},
        "skipped": cache.skipped,
        "layer": cache.spec.layer,
        "embed_dim": cache.embed_dim,
        **({"map_shape": list(cache.map_shape)} if cache.map_shape else {}),
        "classes": [shown(name) for name in cache.classes],
        "fingerprint": cache.fingerprint,
        "spec": cache.spec.to_json(),
        "bytes": sum(part.header.length for part in parts),
        "provenance": dict(cache.provenance),
    }


def _describe_model(file: Path) -> dict[str, Any]:
    model = open_model(file)
    return {
        "kind": "model",
        "file": shown(file),
        "fine_tuned": model.fine_tuned,
        "backbone": model.backbone,
        "weights": shown(model.weights),
        "weights_sha256": model.weights_sha256,
        "precision": model.precision,
        "head": "knn" if isinstance(model.head, KnnHead) else "linear",
        "embed_dim": model.head.embed_dim,
        "classes": [shown(name) for name in model.classes],
        "view": {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in vars(model.view).items()
        },
        "report": dict(model.report),
    }
