"""Measure `featcache.vision.scan`: files per second and memory, on empty files.

    python scripts/bench/scan.py --files 1000000 --classes 1000

The folder cache is warm from the second scan on; the median is given.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

from featcache.vision.scan import scan


def main() -> None:
    """Make a tree, scan it, print a table and one line of JSON."""
    options = arguments()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        make_tree(Path(folder), options.files, options.classes, options.largest)
        before = resident_mb()
        seconds = [timed_scan(Path(folder)) for _ in range(options.runs)]
        grown = resident_mb() - before
        peak, kept = traced_scan(Path(folder))
    median = statistics.median(seconds)
    result = {
        "files": options.files,
        "classes": options.classes,
        "largest_class": options.largest,
        "seconds": round(median, 3),
        "files_per_second": round(options.files / median),
        "peak_mb": round(peak, 1),
        "kept_mb": round(kept, 1),
        "resident_growth_mb": round(grown, 1),
    }
    for name, value in result.items():
        print(f"{name:<20}{value:>14,}")
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument(
        "--largest", type=int, default=0, help="files of the first class"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--dir", help="where the tree is made; default: the temp folder"
    )
    return parser.parse_args()


def make_tree(root: Path, files: int, classes: int, largest: int) -> None:
    """Create empty files, shared out evenly but for the first class."""
    for c in range(classes):
        (root / f"class_{c:05}").mkdir()
    for i in range(files):
        c = 0 if i < largest else i % classes
        (root / f"class_{c:05}" / f"image_{i:09}.jpg").touch()


def timed_scan(root: Path) -> float:
    """Return the seconds of one scan."""
    start = time.perf_counter()
    scan(root)
    return time.perf_counter() - start


def traced_scan(root: Path) -> tuple[float, float]:
    """Return the megabytes allocated at the peak of a scan, and by its result."""
    tracemalloc.start()
    manifest = scan(root)
    kept, peak = tracemalloc.get_traced_memory()
    del manifest
    return peak / 1e6, kept / 1e6


def resident_mb() -> float:
    """Return the largest resident set so far, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
