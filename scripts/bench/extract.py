"""Extraction against the classic tutorial's loop, side by side on the same images.

The tutorial's way is ImageFolder with the weights' own transform, a DataLoader with
batches of 4, and an eager float32 network; ours is ``featcache.extract`` into a new
cache. Both begin with the weights' file and end with every feature in their hands; the
two take turns, and the medians and the median of the turns' ratios are printed. The
limits are taken in the same turns: our network alone on pixels that are ready, and
reading, decoding and cropping alone, both on as many threads as there are cores.

    python scripts/bench/extract.py FOLDER --weights resnet18.pth
    python scripts/bench/extract.py                 generated JPEGs, random weights
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.models import get_model, get_model_weights

import featcache
from featcache.core.machine import cores
from featcache.core.progress import SILENT
from featcache.stages.sources import find_weights
from featcache.vision.assembly import assemble
from featcache.vision.backbones import Backbone
from featcache.vision.pipeline import Extractor, one_core_each
from featcache.vision.rows import BlockRows

BATCH = 8


@dataclass(frozen=True)
class Case:
    """What is measured."""

    data: Path
    backbone: str
    weights: str
    precision: str

    @property
    def files(self) -> list[Path]:
        """Every JPEG, in a fixed order."""
        return sorted(p for p in self.data.rglob("*") if p.suffix in (".jpg", ".jpeg"))

    def network(self) -> Backbone:
        """Return the backbone with its weights."""
        source = find_weights(self.backbone, self.weights, progress=SILENT)
        return Backbone(self.backbone, source.load())

    def extractor(self) -> Extractor:
        """Return our machinery, ready to work."""
        view = find_weights(
            self.backbone, self.weights, exif="ignore", progress=SILENT
        ).view
        return assemble(self.network(), view, device="cpu", precision=self.precision)


def tutorial(case: Case) -> tuple[float, np.ndarray]:
    """Return the seconds and the features of the plain loop."""
    began = time.perf_counter()
    network = get_model(case.backbone, weights=None)
    network.fc = torch.nn.Identity()
    source = find_weights(case.backbone, case.weights, progress=SILENT)
    network.load_state_dict(source.load(), strict=False)
    network.eval()
    view = next(iter(get_model_weights(case.backbone))).transforms()
    parts = []
    for split in sorted(p for p in case.data.iterdir() if p.is_dir()):
        loader = torch.utils.data.DataLoader(
            ImageFolder(split, view), batch_size=4, num_workers=cores()
        )
        with torch.no_grad():
            parts += [network(images).numpy() for images, _ in loader]
    return time.perf_counter() - began, np.concatenate(parts)


def ours(case: Case) -> tuple[float, np.ndarray]:
    """Return the seconds and the features of featcache, cache on the disk included."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        cache = featcache.extract(
            case.data,
            backbone=case.backbone,
            weights=case.weights,
            cache=Path(folder) / "bench.h5",
            exif="ignore",  # as ImageFolder
            precision=case.precision,
        )
        return time.perf_counter() - began, np.array(cache.features().X)


def on_all_cores(work: Callable[[int], object], count: int) -> float:
    """Return the seconds of `count` calls on one thread per core."""
    with one_core_each(), ThreadPoolExecutor(cores()) as pool:
        began = time.perf_counter()
        list(pool.map(work, range(count)))
        return time.perf_counter() - began


def forward_only(extractor: Extractor, images: int) -> float:
    """Return the seconds of the network alone for that many images."""
    crop = extractor.view.crop
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (BATCH, crop, crop, 3), np.uint8)
    return on_all_cores(lambda _: extractor.embed(pixels), -(-images // BATCH))


def decode_only(extractor: Extractor, files: list[Path]) -> float:
    """Return the seconds of reading, decoding and cropping alone."""

    def nothing(pixels: np.ndarray) -> np.ndarray:
        return np.zeros((len(pixels), 1), np.float32)

    # With the viewer of the run: without one, Pillow alone would do the work.
    reader = Extractor(nothing, extractor.view, BATCH, viewer=extractor.viewer)

    def work(batch: int) -> None:
        some = files[batch * BATCH : (batch + 1) * BATCH]
        reader.fill(BlockRows.pending(len(some), 1, "float32"), some)

    return on_all_cores(work, -(-len(files) // BATCH))


def generated(folder: Path, images: int) -> Path:
    """Make JPEGs of 500x375, about 100 KB each, in the form of a data set."""
    random = np.random.default_rng(0)
    for number in range(images):
        split, kind = ("train", "val")[number % 4 == 0], ("a", "b")[number % 2]
        path = folder / split / kind / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (47, 63, 3), np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        noise = random.normal(0, 12, (375, 500, 3))
        pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=85)
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, nargs="?", help="with train/ and val/")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--images", type=int, default=400, help="to generate")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or generated(Path(folder), args.images)
        case = Case(data, args.backbone, args.weights, args.precision)
        measure(case, args.repetitions)


def measure(case: Case, repetitions: int) -> None:
    """Take turns, and print the medians."""
    extractor = case.extractor()
    images = len(case.files)
    turns = []
    for _ in range(repetitions):
        plain, expected = tutorial(case)
        mine, found = ours(case)
        network = forward_only(extractor, images)
        decoding = decode_only(extractor, case.files)
        turns.append((plain, mine, network, decoding))
    if found.shape != expected.shape:
        raise SystemExit(f"{case.data} holds more than JPEGs in train/ and val/")
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    plain, mine, network, decoding = map(statistics.median, zip(*turns, strict=True))
    result = {
        "images": images,
        "backbone": case.backbone,
        "precision": case.precision,
        "cores": cores(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "turns": len(turns),
        "tutorial_seconds": round(plain, 3),
        "featcache_seconds": round(mine, 3),
        "ratio": round(statistics.median(t[0] / t[1] for t in turns), 3),
        "forward_only_seconds": round(network, 3),
        "decode_only_seconds": round(decoding, 3),
        "of_the_limit": round(
            statistics.median((t[2] + t[3]) / t[1] for t in turns), 3
        ),
        "relative_error": error,
        "pieces": dict(extractor.pieces),
    }
    show(result)


def show(result: dict) -> None:
    """Print the table and the JSON line."""
    images, ratio = result["images"], result["ratio"]
    print(
        f"{images} images, {result['backbone']} {result['precision']}, "
        f"{result['cores']} cores, torch {result['torch']}, "
        f"median of {result['turns']} turns"
    )
    for name, piece in result["pieces"].items():
        print(f"  {name}: {piece}")
    print(f"{'':<32}{'seconds':>10}{'images/s':>10}")
    for name, key in (
        ("tutorial", "tutorial_seconds"),
        ("featcache", "featcache_seconds"),
        ("  the network alone", "forward_only_seconds"),
        ("  reading, decoding, cropping", "decode_only_seconds"),
    ):
        seconds = result[key]
        beside = f"   {ratio:.2f}x" if name == "featcache" else ""
        print(f"{name:<32}{seconds:>10.2f}{images / seconds:>10.1f}{beside}")
    print(f"featcache takes {1 / result['of_the_limit']:.2f}x the sum of its two parts")
    print(
        "largest difference of a feature, relative to the largest: "
        f"{result['relative_error']:.1e}"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
