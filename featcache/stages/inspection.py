"""`describe` and `verify`: what a file holds, and whether its bytes are right."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.core.manifest import SPLITS
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.text import shown
from featcache.store.artifacts import open_model
from featcache.store.reader import FeatureCache, open_cache


@dataclass(frozen=True, kw_only=True)
class VerifyReport(Report):
    """A cache whose every digest matches."""

    cache: Path
    rows: int
    blocks: int
    bytes: int
    skipped: int  # rows whose image could not be used
    seconds: float


def verify(cache: Path, *, progress: Progress = SILENT) -> VerifyReport:
    """Check every digest of a cache.

    Parameters
    ----------
    cache : Path
        The ``.h5`` file.
    progress : Progress
        Hears how many rows are checked.

    Returns
    -------
    VerifyReport
        When all match.

    Raises
    ------
    CacheCorruptError
        Naming the first row that does not.
    """
    began = time.perf_counter()
    opened = FeatureCache(cache)
    progress.begin("verify", len(opened), unit="row")
    try:
        opened.check(progress.advance)
    finally:
        progress.end()
    return VerifyReport(
        cache=cache,
        rows=len(opened),
        blocks=sum(1 for _ in opened.blocks()),
        bytes=opened.header.length,
        skipped=opened.skipped,
        seconds=round(time.perf_counter() - began, 3),
    )


def describe(file: Path) -> dict[str, Any]:
    """Return what a cache or a model file holds.

    Parameters
    ----------
    file : Path
        ``.h5``, ``.safetensors`` or the folder of a run.

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


def _describe_cache(cache: FeatureCache) -> dict[str, Any]:
    splits = Counter(cache.splits.tolist())
    return {
        "kind": "cache",
        "file": shown(cache.path),
        "images": len(cache),
        "splits": {SPLITS[i]: splits[i] for i in sorted(splits)},
        "skipped": cache.skipped,
        "embed_dim": cache.embed_dim,
        "classes": [shown(name) for name in cache.classes],
        "fingerprint": cache.fingerprint,
        "spec": cache.spec.to_json(),
        "bytes": cache.header.length,
        "provenance": dict(cache.header.provenance),
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
        "embed_dim": model.head.weight.shape[1],
        "classes": [shown(name) for name in model.classes],
        "view": {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in vars(model.view).items()
        },
        "report": dict(model.report),
    }
