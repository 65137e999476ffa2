"""What the tests of pixels and loaders share: a folder of noise, and its manifest."""

import threading
from pathlib import Path

import numpy as np
from PIL import Image

from featcache.core.manifest import TRAIN, Manifest
from tests.vision.pictures import noise


def make_manifest(root: Path, sizes: list[tuple[int, int]]) -> Manifest:
    """Write PNG and JPEG files of noise, in turn; labels 0 and 1 in turn."""
    names = [f"{i:02}.{'jpg' if i % 2 else 'png'}" for i in range(len(sizes))]
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        noise(*size, seed=i).save(root / name)
    count = len(sizes)
    return Manifest(
        root=root,
        classes=("a", "b"),
        paths=np.array([name.encode() for name in names]),
        labels=np.arange(count, dtype=np.int32) % 2,
        splits=np.full(count, TRAIN, np.uint8),
        sizes=np.zeros(count, np.int64),
        mtimes_ns=np.zeros(count, np.int64),
    )


def opened(manifest: Manifest, i: int) -> Image.Image:
    """Return the image of a sample."""
    return Image.open(manifest.file(i)).convert("RGB")


def image_threads() -> list[threading.Thread]:
    """Return the threads of loaders that are alive."""
    return [t for t in threading.enumerate() if t.name.startswith("featcache-images")]
