"""Decoding and cropping on one core, piece by piece, against the tutorial's way.

The tutorial's way is PIL's open and convert, torchvision's Resize and CenterCrop (in
the table as "both", decode and view), ToTensor and Normalize; "featcache" ends with the
same tensor. Each image goes through every way in turn, several times; of each the
fastest counts, and processor time, so that other work on the machine does not. All ways
get the same files in memory and have the same pixels, which is checked. "random" is the
augmented view of an image that is decoded already, as in every epoch of a fine-tuning.

    python scripts/bench/view.py FOLDER
    python scripts/bench/view.py                 on generated JPEG files
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from featcache.core.clock import Clock
from featcache.core.seeds import generator
from featcache.core.specs import ViewSpec
from featcache.vision.augment import augment
from featcache.vision.decode import decode, decode_view
from featcache.vision.viewer import Viewer
from featcache.vision.views import normalise, render
from featcache.vision.window import two_passes
from featcache.vision.words import words_of

VIEW = ViewSpec(exif="ignore")  # as ImageFolder
CROP = transforms.Compose(
    [transforms.Resize(VIEW.resize), transforms.CenterCrop(VIEW.crop)]
)
TENSOR = transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize(VIEW.mean, VIEW.std)]
)
Way = Callable[[], object]


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, nargs="?", help="folder of JPEG files")
    parser.add_argument("--images", type=int, default=100, help="at most")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = read(options.data, options.images)
    start = time.perf_counter()
    viewer = Viewer.fastest(VIEW)
    start = time.perf_counter() - start
    times = [measured(data, viewer, options.repetitions) for data in files]
    medians = {
        name: statistics.median(row[name] for row in times) * 1e6 for name in times[0]
    }
    report(len(files), start, viewer, medians)


def read(folder: Path | None, count: int) -> list[bytes]:
    """Return JPEG files, evenly from the folder, or made here."""
    if folder is None:
        return [made(seed) for seed in range(count)]
    paths = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg"}
    )
    if not paths:
        raise SystemExit(f"{folder} holds no JPEG files")
    return [path.read_bytes() for path in paths[:: -(-len(paths) // count)]]


def made(seed: int) -> bytes:
    """Return a photo-like JPEG file of 500x375 pixels and some 100 kB."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
    shades = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC))
    grain = random.normal(0, 16, shades.shape)
    pixels = np.clip(shades + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def measured(data: bytes, viewer: Viewer, repetitions: int) -> dict[str, float]:
    """Return the seconds of each way for one image, the ways taking turns."""
    ways = ways_for(data, viewer)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repetitions):
        for name, way in ways.items():
            began = time.process_time_ns()
            way()
            best[name] = min(best[name], (time.process_time_ns() - began) / 1e9)
    return best


def ways_for(data: bytes, viewer: Viewer) -> dict[str, Way]:
    """Return what is measured; check that all views are the same."""
    image = decode(data, VIEW)
    by_pillow = Viewer(VIEW, two_passes)
    ways: dict[str, Way] = {
        "tutorial": lambda: TENSOR(cropped(data)),
        "featcache": lambda: normalised(viewer(data, Clock())),
        "both: tutorial": lambda: cropped(data),
        "decode: Pillow": lambda: decode(data, VIEW),
        "view: whole image": lambda: render(image, VIEW),
        "both: Pillow, whole": lambda: decode_view(data, VIEW),
        "both: Pillow, two passes": lambda: by_pillow(data, Clock()),
        "both: fastest here": lambda: viewer(data, Clock()),
    }
    if image.height <= 2 * image.width:
        ways["view: two passes"] = lambda: two_passes(image, VIEW)
    if viewer.kernel and viewer.kernel.takes(*image.size, VIEW):
        kernel, words = viewer.kernel, words_of(image)
        without = Viewer(VIEW, two_passes, kernel)
        ways["view: compiled"] = lambda: kernel(words, VIEW)
        ways["both: Pillow, compiled"] = lambda: without(data, Clock())
    if viewer.jpeg:
        jpeg, header = viewer.jpeg, Image.open(io.BytesIO(data))
        ways["decode: simplejpeg"] = lambda: jpeg(data, header, VIEW.exif)
    kept = viewer.words(data)
    ways["random: Pillow"] = lambda: augment(image, VIEW.crop, generator(0, "bench"))
    ways["random: fastest here"] = lambda: viewer.drawn(kept, generator(0, "bench"))
    assert np.array_equal(ways["random: Pillow"](), ways["random: fastest here"]())
    pixels = decode_view(data, VIEW)
    assert np.array_equal(pixels, viewer(data, Clock()))
    assert np.array_equal(pixels, by_pillow(data, Clock()))
    assert torch.equal(normalised(pixels), ways["tutorial"]())
    return ways


def cropped(data: bytes) -> Image.Image:
    """Return the tutorial's view before it is a tensor."""
    return CROP(Image.open(io.BytesIO(data)).convert("RGB"))


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """Return one view as the network gets it."""
    batch = torch.from_numpy(np.array(pixels))[None].permute(0, 3, 1, 2)
    return normalise(batch, VIEW)[0]


def report(
    images: int, start: float, viewer: Viewer, medians: dict[str, float]
) -> None:
    """Print microseconds, images a second and ratios to the tutorial's way."""
    print(f"{images} images, one core, median of each image's fastest turn")
    for piece, words in viewer.description.items():
        print(f"fastest here, {piece}: {words}")
    print(f"its start: {start:.2f} s\n")
    print(f"{'':<28}{'us':>8}{'images/s':>10}{'tutorial':>10}")
    for name, us in medians.items():
        other = "tutorial" if name == "featcache" else f"{name.split(':')[0]}: tutorial"
        ratio = f"{medians[other] / us:>9.2f}x" if other in medians else ""
        print(f"{name:<28}{us:>8.0f}{1e6 / us:>10.0f}{ratio}")
    result = {
        "images": images,
        "start_seconds": round(start, 3),
        "pieces": dict(viewer.description),
        "microseconds": {name: round(us, 1) for name, us in medians.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
