"""What one of several processes does in the tests of heads fitted together.

As a program it is one of them: ``fit_together.py FOLDER``, with the environment that
torchrun makes. The folder holds the parts of a cache; the heads go to it, too.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

import featcache
from featcache.core.errors import FeatcacheError
from featcache.core.machine import end_now
from featcache.core.resources import Resources
from featcache.core.specs import SgdSpec, SweepSpec
from featcache.store.rows import FileRows
from featcache.train.ranks import Ranks

PARTS, VIEWED = "photos-part-*-of-3.h5", "viewed-part-*-of-3.h5"
SGD = {"epochs": 4, "batch_size": 16, "lr": 1e-6}
MEMORY = 24 << 10  # of each process, where features are to exceed it: 12 rows
CASES = {
    "plain": (PARTS, SgdSpec(**SGD), {}),
    "one batch": (PARTS, SgdSpec(**{**SGD, "batch_size": 1000}, nesterov=True), {}),
    "tiny batches": (PARTS, SgdSpec(**{**SGD, "batch_size": 1}), {}),
    "standardised": (PARTS, SgdSpec(**{**SGD, "lr": 0.01}, standardize="zscore"), {}),
    "in windows": (PARTS, SgdSpec(**SGD, weight_decay=1e-3), {"memory": MEMORY}),
    "in windows, views": (VIEWED, SgdSpec(**SGD), {"memory": MEMORY}),
    "views": (VIEWED, SgdSpec(**SGD), {}),
    "few shots": (PARTS, SgdSpec(**SGD), {"shots": 5}),
    "one file": ("whole.h5", SgdSpec(**SGD), {}),
    "compared": (PARTS, SweepSpec(lr=(1e-6, 1e-5, 1e30), epochs=3, batch_size=8), {}),
    "chosen on train": (
        PARTS,
        SweepSpec(
            lr=(1e-8, 1e-7),
            standardize=("none", "l2"),
            epochs=3,
            select_on="train",
            refit=True,
            seeds=2,
        ),
        {},  # a part of train is not held in halves: windows would be other ones
    ),
}


def fit(folder: Path, name: str, *, processes: int, out: Path) -> featcache.Model:
    """Fit the head of a case; alone with the memory that several have together."""
    pattern, spec, settings = CASES[name]
    settings = dict(settings)
    memory = settings.pop("memory", 1 << 30) * processes
    place = folder / pattern
    resources = Resources(memory=memory)
    return featcache.fit_head(place, spec, resources=resources, out=out, **settings)


def rows_read(folder: Path) -> list[list[object]]:
    """Fit a head, and return which rows of which files were read for it."""
    seen: set[tuple[str, int]] = set()
    take = FileRows.take

    def noted(self, rows):
        seen.update((self._path.name, row) for row in np.asarray(rows).tolist())
        return take(self, rows)

    read = FileRows.read

    def noted_read(self, rows, out):
        seen.update((self._path.name, row) for row in rows.tolist())
        return read(self, rows, out)

    FileRows.take, FileRows.read = noted, noted_read
    try:
        fit(folder, "plain", processes=1, out=folder / "noted")
    finally:
        FileRows.take, FileRows.read = take, read
    return sorted(map(list, seen))


def failed(folder: Path, others: str) -> str:
    """Have the second process open something else; return what is said."""
    pattern = PARTS if os.environ["RANK"] == "0" else others
    try:
        featcache.fit_head(folder / pattern, SgdSpec(epochs=1), out=folder / "failed")
    except FeatcacheError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    """Be one of the processes."""
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    found: dict[str, object] = {}
    with Ranks.joined("cpu"):  # once for all
        if "failing" in sys.argv:
            found["missing"] = failed(folder, "photos-part-[12]-of-3.h5")
            found["other"] = failed(folder, VIEWED)
        else:
            for name in CASES:
                out = folder / f"together {name}"
                trained = fit(folder, name, processes=1, out=out)
                report = trained.report.to_json()
                found[name] = [report, trained.head.weight.tolist()]
            found["read"] = rows_read(folder)
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    end_now(0)


if __name__ == "__main__":
    main()
