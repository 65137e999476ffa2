"""What bfloat16 arithmetic and float16 storage cost: error of features, accuracy.

Extracts a folder in float32 and in each cheaper way, and compares the features and the
heads that are fitted on them.

    python scripts/bench/precision.py FOLDER --weights resnet18.pth
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import featcache
from featcache.core.specs import LogRegSpec, SgdSpec

WAYS = [
    {"precision": "float32", "dtype": "float32"},
    {"precision": "float32", "dtype": "float16"},
    {"precision": "bfloat16", "dtype": "float32"},
    {"precision": "bfloat16", "dtype": "float16"},
]


def measure(args: argparse.Namespace, folder: Path) -> list[dict]:
    """Return a row for each way."""
    rows, exact = [], None
    for number, way in enumerate(WAYS):
        cache = featcache.extract(
            args.data,
            backbone=args.backbone,
            weights=args.weights,
            cache=folder / f"{number}.h5",
            **way,
        )
        X = np.array(cache.features().X, np.float32)
        exact = X if exact is None else exact
        norms = np.linalg.norm(X, axis=1) * np.linalg.norm(exact, axis=1)
        heads = [
            featcache.fit_head(cache, spec, out=folder / f"{number}-{at}")
            for at, spec in enumerate((SgdSpec(), LogRegSpec()))
        ]
        rows.append(
            {
                **way,
                "images_per_second": cache.report.images_per_second,
                "relative_error": float(
                    np.linalg.norm(X - exact) / np.linalg.norm(exact)
                ),
                "largest_angle": float((1 - (X * exact).sum(axis=1) / norms).max()),
                "sgd": heads[0].val_accuracy,
                "logreg": heads[1].val_accuracy,
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="imagenet")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    print(f"{args.backbone}: val accuracy of heads fitted on each cache")
    print(
        f"{'arithmetic':<12}{'stored':<10}{'images/s':>9}{'rel. error':>12}"
        f"{'1 - cos':>10}{'sgd':>8}{'logreg':>8}"
    )
    for row in rows:
        print(
            f"{row['precision']:<12}{row['dtype']:<10}{row['images_per_second']:>9.1f}"
            f"{row['relative_error']:>12.1e}{row['largest_angle']:>10.1e}"
            f"{100 * row['sgd']:>7.2f}%{100 * row['logreg']:>7.2f}%"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
