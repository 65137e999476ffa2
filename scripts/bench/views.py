"""What cached views give a head, and what they cost, against online augmentation.

One cache of the most views is made, and one of a single view for its cost. From the
first, heads are fitted on its first 1, 4, 8 and 16 views with several seeds: mean and
standard deviation of the val accuracy, at the best epoch and at the last one. With
--online the head is also trained on augmented images, as the tutorial does: once.

    python scripts/bench/views.py DATA --weights FILE.pth
    python scripts/bench/views.py digits --per-class 30 --no-flip --online
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from featcache import (
    AugmentSpec,
    FinetuneSpec,
    SgdSpec,
    extract,
    finetune,
    fit_head,
    open_cache,
)
from featcache.core.machine import cores
from featcache.core.progress import SILENT
from featcache.core.specs import ExtractSpec
from featcache.stages.datasets import resolve_data


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", help="folder or known data set")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--views", default="1,4,8,16")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=SgdSpec.batch_size)
    parser.add_argument("--lr", type=float, default=SgdSpec.lr)
    parser.add_argument("--per-class", type=int, help="training images, the first")
    parser.add_argument("--no-flip", action="store_true")
    parser.add_argument("--online", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder of the caches")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.keep or Path(folder)
        place.mkdir(exist_ok=True)
        options.data = resolve_data(options.data, progress=SILENT)
        if options.per_class:
            options.data = fewer(options.data, Path(folder) / "few", options.per_class)
        report(options, measured(options, place, Path(folder)))


def measured(
    options: argparse.Namespace, place: Path, scratch: Path
) -> list[dict[str, Any]]:
    """Return one row for each number of views, and one for online augmentation."""
    views = [int(v) for v in options.views.split(",")]
    seconds = {k: made(options, place, k) for k in sorted({1, max(views)})}
    spec = SgdSpec(batch_size=options.batch_size, lr=options.lr)
    rows = []
    with open_cache(cache_path(place, max(views))) as cache:
        row_bytes = cache.embed_dim * cache.columns["features"].itemsize
        for count in views:
            specs = [replace(spec, seed=seed) for seed in range(options.seeds)]
            fits = [fit_head(cache, s, views=count, out=scratch / "run") for s in specs]
            rows.append(
                {
                    "views": str(count),
                    **spread([f.report.val_accuracy for f in fits], "best"),
                    **spread([f.history[-1].val_accuracy for f in fits], "last"),
                    **spread([f.history[-1].val_loss for f in fits], "loss"),
                    "fit_seconds": min(f.report.seconds for f in fits),
                    "extract_seconds": seconds.get(count),
                    "megabytes": len(cache) * count * row_bytes / 1e6,
                }
            )
    return rows + ([online(options, spec, scratch)] if options.online else [])


def fewer(data: Path, target: Path, per_class: int) -> Path:
    """Copy a folder with the first training images of each class alone."""
    shutil.copytree(data, target)
    for name in (target / "train").iterdir():
        for file in sorted(name.iterdir())[per_class:]:
            file.unlink()
    return target


def cache_path(place: Path, count: int) -> Path:
    """Return where the cache of so many views is."""
    return place / f"views-{count}.h5"


def made(options: argparse.Namespace, place: Path, count: int) -> float | None:
    """Make a cache; return the seconds, or None where it was there already."""
    began = time.perf_counter()
    augment = AugmentSpec(flip=0.0 if options.no_flip else AugmentSpec.flip)
    cache = extract(
        options.data,
        ExtractSpec(),
        backbone=options.backbone,
        weights=options.weights,
        cache=cache_path(place, count),
        views=count,
        augment=augment,
    )
    assert cache.report is not None
    whole = cache.report.computed == len(cache)
    return time.perf_counter() - began if whole else None


def online(options: argparse.Namespace, spec: SgdSpec, scratch: Path) -> dict[str, Any]:
    """Train the head on images that are augmented anew in each epoch, once."""
    how = FinetuneSpec(unfreeze="head", batch_size=spec.batch_size, lr=spec.lr)
    trained = finetune(
        options.data,
        how,
        backbone=options.backbone,
        weights=options.weights,
        out=scratch / "online",
    )
    last = trained.history[-1]
    return {
        "views": "online",
        **spread([trained.report.val_accuracy], "best"),
        **spread([last.val_accuracy], "last"),
        **spread([last.val_loss], "loss"),
        "fit_seconds": trained.report.seconds,
        "extract_seconds": None,
        "megabytes": 0.0,
    }


def spread(values: list[float | None], name: str) -> dict[str, float | None]:
    """Return mean and standard deviation; one value has no deviation."""
    found = [v for v in values if v is not None]
    deviation = statistics.stdev(found) if len(found) > 1 else None
    return {name: statistics.fmean(found), f"{name}_std": deviation}


def report(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Print what was measured."""
    print(f"{options.data}, {options.backbone}, {options.seeds} seeds, {cores()} cores")
    print("  views  val % best epoch  last epoch       val loss        fit  extract")
    for row in rows:
        best, last = (percents(row, name) for name in ("best", "last"))
        loss = f"{row['loss']:.4f}" + (
            "" if row["loss_std"] is None else f" +- {row['loss_std']:.4f}"
        )
        took = row["extract_seconds"]
        cost = "" if took is None else f"{took:6.0f} s"
        print(
            f"{row['views']:>7}  {best:<15}  {last:<15}  {loss:<16}"
            f"{row['fit_seconds']:6.2f} s {cost:>8}  {row['megabytes']:.1f} MB"
        )
    print(json.dumps({**{k: str(v) for k, v in vars(options).items()}, "rows": rows}))


def percents(row: dict[str, Any], name: str) -> str:
    """Return mean and deviation in percent."""
    std = row[f"{name}_std"]
    return f"{100 * row[name]:.2f}" + ("" if std is None else f" +- {100 * std:.2f}")


if __name__ == "__main__":
    main()
