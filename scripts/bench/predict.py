"""`featcache predict` against `featcache extract` of the same folder, and its memory.

Both commands run as one types them, taking turns, on a folder of images in folders of
classes; the model is a head fitted to what the first extract found. Medians of the
seconds that the whole commands take and of the images a second that they report.

Memory is measured on two folders of tiny files, one ten times as large: the listing,
the streaming, the guard and the file of predictions are the real ones, but a stand-in
reads the files and makes up their features, since a network would take hours.

    python scripts/bench/predict.py                            generated images
    python scripts/bench/predict.py data/hymenoptera_data --weights resnet18.pth
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from featcache.core.heads import initial_head
from featcache.core.progress import SILENT
from featcache.core.specs import ViewSpec
from featcache.core.status import Status
from featcache.stages.guarding import guarded
from featcache.stages.image_files import list_images
from featcache.stages.predicting import PredictionRun
from featcache.stages.predictor import Predictor
from featcache.store.predictions import PredictionFile

_DIM, _CLASSES = 512, ("ants", "bees")
_IN_A_FOLDER = 10_000


def photographs(folder: Path, count: int) -> Path:
    """Write JPEG files of the size of photographs, of two classes."""
    random = np.random.default_rng(0)
    for k in range(count):
        split, label = ("train", "val")[k % 4 == 3], _CLASSES[k % 2]
        place = folder / split / label
        place.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (12, 16, 3), np.uint8)
        picture = Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC)
        picture.save(place / f"{k:05d}.jpg", quality=90)
    return folder


def featcache(*words: str) -> dict[str, Any]:
    """Run a command; return what it prints as JSON, and the seconds it took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "featcache", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    return {**json.loads(done.stdout), "wall": time.perf_counter() - began}


def compare(images: Path, weights: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Let both commands take turns."""
    cache, model = folder / "cache.h5", folder / "run"
    made = ("extract", str(images), "--weights", weights, "--cache", str(cache))
    featcache(*made)
    featcache("fit-head", str(cache), "--out", str(model))
    where = [] if weights.startswith("random") else ["--weights", weights]
    out = folder / "told.csv"
    told = ("predict", str(model), str(images), "--out", str(out), *where)
    seen: dict[str, list[dict[str, Any]]] = {"extract": [], "predict": []}
    for _ in range(repeats):
        cache.unlink()
        seen["extract"].append(featcache(*made))
        seen["predict"].append(featcache(*told, "--overwrite"))
    return {
        name: {
            "images": runs[0]["images"],
            "wall_s": statistics.median(run["wall"] for run in runs),
            "images_per_second": statistics.median(
                run["images_per_second"] for run in runs
            ),
        }
        for name, runs in seen.items()
    }


def tiny(folder: Path, count: int) -> Path:
    """Write so many PNG files of 8 x 8 pixels."""
    for k in range(count):
        place = folder / f"{k // _IN_A_FOLDER:04d}"
        place.mkdir(parents=True, exist_ok=True)
        colour = (k % 256, k // 256 % 256, k // 65_536)
        Image.new("RGB", (8, 8), colour).save(place / f"{k:08d}.png")
    return folder


class StandIn:
    """Reads files and makes up features."""

    workers, view = 2, ViewSpec()
    clock = SimpleNamespace(worker=nullcontext)

    def fill(
        self,
        rows: Any,  # noqa: ANN401
        paths: Sequence[Path],
        *,
        alive: Callable[[], None],
        decoding: Callable[[int], Any],
    ) -> None:
        """Fill rows with numbers that follow from the bytes of each file."""
        for row, path in enumerate(paths):
            alive()
            with decoding(row):
                seed = sum(path.read_bytes())
            rows.features[row] = np.random.default_rng(seed).random(_DIM, np.float32)
            rows.status[row] = Status.OK


def peak() -> int:
    """Return this process's peak memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def listed(images: Path) -> dict[str, float]:
    """List a folder; return the peak memory."""
    before = peak()
    count = len(list_images([images], SILENT))
    return {"images": count, "peak": peak(), "before": before}


def predicted(images: Path, out: Path) -> dict[str, float]:
    """Predict all images of a folder; return peak memory and seconds."""
    files, before, began = list_images([images], SILENT), peak(), time.perf_counter()
    head = initial_head(len(_CLASSES), _DIM, seed=0)
    model: Any = SimpleNamespace(head=head, classes=_CLASSES)
    stand_in: Any = StandIn()
    with guarded() as (guard, _), PredictionFile(out, "0" * 16, 1) as file:
        run = PredictionRun(Predictor(stand_in, model, 1, guard), file, SILENT, out)
        run.work(files, lambda _: None)
    seconds = time.perf_counter() - began
    return {"images": len(files), "peak": peak(), "listed": before, "seconds": seconds}


def alone(work: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """Call in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def memory(many: int, folder: Path) -> list[dict[str, Any]]:
    """Measure a tenth of the images, then all of them."""
    found = []
    for count in (many // 10, many):
        images = tiny(folder / str(count), count)
        out = folder / f"{count}.csv"
        found.append(
            {"listing": alone(listed, images), "work": alone(predicted, images, out)}
        )
    return found


@contextmanager
def place(given: Path | None) -> Any:  # noqa: ANN401
    """Give a folder for what is written."""
    with tempfile.TemporaryDirectory(dir=given) as folder:
        yield Path(folder)


def main() -> None:
    """Print what was measured, and everything as one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, nargs="?", help="folders of classes")
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int, default=200, help="generated images")
    parser.add_argument("--many", type=int, default=20_000, help="tiny files; 0: none")
    parser.add_argument("--scratch", type=Path, help="where files are written")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with place(options.scratch) as folder:
        if options.repeats:
            images = options.images or photographs(folder / "photos", options.count)
            found = compare(images, options.weights, options.repeats, folder)
            for name, told in found.items():
                print(
                    f"{name}: {told['images']:,} images, {told['wall_s']:.2f} s, "
                    f"{told['images_per_second']:.1f} images/s (medians of "
                    f"{options.repeats})"
                )
        if options.many:
            found["memory"] = memory(options.many, folder)
            for told in found["memory"]:
                work, listing = told["work"], told["listing"]
                print(
                    f"{work['images']:,} tiny files, no network: peak "
                    f"{work['peak'] / 1e6:.0f} MB, {listing['peak'] / 1e6:.0f} MB of "
                    f"it a listing alone; {work['seconds']:.1f} s"
                )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
