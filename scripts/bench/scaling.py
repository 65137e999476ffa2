"""Whether extraction stays as fast, and as small, when the folder grows.

Extracts folders of growing size, each in a process of its own, and prints images per
second (from the first image to the last), a core's milliseconds per image, which a busy
machine disturbs less, the seconds around that, and the peak of resident memory. The
images are small and different from each other; a small crop makes everything but the
network weigh more, so that what grows with the folder shows.

    python scripts/bench/scaling.py                     crop 32: minutes
    python scripts/bench/scaling.py --crop 224 --sizes 400,4000
"""

import argparse
import dataclasses
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image


def generate(folder: Path, images: int) -> None:
    """Make different JPEGs of 96x72 in train/ and val/, two classes."""
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    pixels = random.integers(0, 256, (72, 96, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    body = buffer.getvalue()
    for number in range(images):
        split, kind = ("train", "val")[number % 4 == 0], ("a", "b")[number % 2]
        path = folder / split / kind / f"{number:07}.jpg"
        if number < 4:
            path.parent.mkdir(parents=True, exist_ok=True)
        # A comment after the start marker makes each file another one.
        comment = b"\xff\xfe" + (10).to_bytes(2, "big") + number.to_bytes(8, "big")
        path.write_bytes(body[:2] + comment + body[2:])


def extract(data: Path, crop: int, backbone: str) -> dict:
    """Extract in this process and return what it took."""
    import featcache
    from featcache.core.specs import ViewSpec
    from featcache.stages import extraction

    found = extraction.find_weights

    def with_small_crop(*args: object, **named: object) -> object:
        view = ViewSpec(resize=crop, crop=crop)
        return dataclasses.replace(found(*args, **named), view=view)

    extraction.find_weights = with_small_crop
    report = featcache.extract(
        data, backbone=backbone, weights="random:0", cache=data.parent / "c.h5"
    ).report
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "images": report.images,
        "images_per_second": report.images_per_second,
        "around_seconds": report.seconds - report.images / report.images_per_second,
        "peak_mb": peak / 1024,
        "busy": report.busy,
        "stages": report.stages,
    }


def main() -> None:
    """Measure each size; print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", default="400,4000,20000,100000")
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(extract(args.one, args.crop, args.backbone)))
        return
    rows = []
    for size in map(int, args.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            generate(data, size)
            turns = [run(data, args) for _ in range(args.repetitions)]
        rows.append(
            sorted(turns, key=lambda t: t["images_per_second"])[len(turns) // 2]
        )
    print(f"{args.backbone}, crop {args.crop}, median of {args.repetitions}")
    print(
        f"{'images':>10}{'images/s':>10}{'of first':>10}{'core ms':>10}{'of first':>10}"
        f"{'around s':>10}{'peak MB':>10}"
    )
    for row in rows:
        share = row["images_per_second"] / rows[0]["images_per_second"]
        print(
            f"{row['images']:>10,}{row['images_per_second']:>10.1f}{share:>10.3f}"
            f"{cost(row):>10.3f}{cost(row) / cost(rows[0]):>10.3f}"
            f"{row['around_seconds']:>10.2f}{row['peak_mb']:>10.0f}"
        )
    print(json.dumps(rows))


def cost(row: dict) -> float:
    """Return the milliseconds of a core for one image: no wait is counted."""
    return 1000 * sum(row["busy"]) / row["images_per_second"]


def run(data: Path, args: argparse.Namespace) -> dict:
    """Extract once in a new process."""
    (data.parent / "c.h5").unlink(missing_ok=True)
    words = ["--one", os.fspath(data), "--crop", str(args.crop)]
    done = subprocess.run(
        [sys.executable, __file__, *words, "--backbone", args.backbone],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
