"""Extraction against the classic tutorial's loop, side by side on the same images.

The tutorial's way is ImageFolder with the weights' own transform, a DataLoader with
batches of 4, and an eager float32 network; ours is ``featcache.extract`` into a new
cache. Both begin with the weights' file and end with every feature in their hands; the
two take turns, and the medians and the ratio of each turn are printed.

    python scripts/bench/extract.py FOLDER --weights resnet18.pth
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import ImageFolder
from torchvision.models import get_model, get_model_weights

import featcache
from featcache.core.machine import cores
from featcache.core.progress import SILENT
from featcache.stages.sources import load_backbone


def tutorial(data: Path, backbone: str, weights: str) -> tuple[float, np.ndarray]:
    """Return the seconds and the features of the plain loop."""
    began = time.perf_counter()
    network = get_model(backbone, weights=None)
    network.fc = torch.nn.Identity()
    state = load_backbone(backbone, weights, progress=SILENT).state
    network.load_state_dict(state, strict=False)
    network.eval()
    view = next(iter(get_model_weights(backbone))).transforms()
    parts = []
    for split in sorted(p for p in data.iterdir() if p.is_dir()):
        loader = torch.utils.data.DataLoader(
            ImageFolder(split, view), batch_size=4, num_workers=cores()
        )
        with torch.no_grad():
            parts += [network(images).numpy() for images, _ in loader]
    return time.perf_counter() - began, np.concatenate(parts)


def ours(
    data: Path, backbone: str, weights: str, precision: str
) -> tuple[float, np.ndarray]:
    """Return the seconds and the features of featcache, cache on the disk included."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        cache = featcache.extract(
            data,
            backbone=backbone,
            weights=weights,
            cache=Path(folder) / "bench.h5",
            exif="ignore",  # as ImageFolder
            precision=precision,
        )
        return time.perf_counter() - began, np.array(cache.features().X)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    turns = []
    for _ in range(args.repetitions):
        plain_seconds, expected = tutorial(args.data, args.backbone, args.weights)
        our_seconds, found = ours(
            args.data, args.backbone, args.weights, args.precision
        )
        turns.append((plain_seconds, our_seconds))
    images = len(expected)
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    plain, mine = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = statistics.median(a / b for a, b in turns)
    what = f"{images} images, {args.backbone} {args.precision}, {cores()} cores"
    print(f"{what}, torch {torch.__version__}, median of {len(turns)} turns")
    print(f"{'':<16}{'seconds':>10}{'images/s':>10}")
    print(f"{'tutorial':<16}{plain:>10.2f}{images / plain:>10.1f}")
    print(f"{'featcache':<16}{mine:>10.2f}{images / mine:>10.1f}   {ratio:.2f}x")
    print(f"largest difference of a feature, relative to the largest: {error:.1e}")
    result = {
        "images": images,
        "backbone": args.backbone,
        "precision": args.precision,
        "tutorial_seconds": plain,
        "featcache_seconds": mine,
        "ratio": ratio,
        "relative_error": error,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
