"""Data sets with a cache and runs, made in a moment: no network computes a feature."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import featcache
from featcache.core.manifest import TRAIN, VAL
from featcache.core.specs import SgdSpec
from featcache.core.status import Status
from featcache.store.writer import CacheWriter, create, partial_path
from featcache.vision.scan import scan
from tests.store.conftest import PROVENANCE, Content, make_spec

NOISE = 1.6  # of features, in units of the distance between classes


def make_images(
    root: Path, classes: Sequence[bytes | str], counts: dict[str, int], size=(48, 36)
) -> Path:
    """Make images that are no noise: a coarse pattern, and a class's own colour."""
    random = np.random.default_rng(0)
    for name in classes:
        colour = random.integers(60, 200, 3)
        for split, count in counts.items():
            folder = root / split / os.fsdecode(name)
            folder.mkdir(parents=True)
            for i in range(count):
                coarse = random.normal(0, 50, (6, 8, 3)) + colour
                small = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
                image = np.asarray(small.resize(size, Image.Resampling.BICUBIC), float)
                image += random.normal(0, 8, image.shape)
                pixels = np.clip(image, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:04d}.jpg")
    return root


def make_cache(
    root: Path, path: Path, noise: float = NOISE, recorded: str | None = None
) -> Path:
    """Make a cache of a folder whose features are a class's mean and noise."""
    manifest = scan(root)
    n, random = len(manifest), np.random.default_rng(1)
    means = random.normal(size=(len(manifest.classes), 512))
    X = means[manifest.labels] + noise * 4 * random.normal(size=(n, 512))
    files = [manifest.file(row).read_bytes() for row in range(n)]
    digests = b"".join(hashlib.sha256(data).digest() for data in files)
    rows = {
        "features": X.astype(np.float32),
        "digests": np.frombuffer(digests, np.uint8).reshape(n, 32),
        "status": np.full(n, Status.OK, np.uint8),
    }
    content = Content(manifest, make_spec(), rows)
    partial = partial_path(path)
    partial.parent.mkdir(parents=True, exist_ok=True)
    provenance = {**PROVENANCE, "data": recorded or str(root)}
    create(partial, content.spec, manifest.columns(), 512, provenance)
    with CacheWriter(partial) as writer:
        content.write(writer, content.blocks())
        writer.finish(path)
    assert {TRAIN, VAL} <= set(manifest.splits.tolist())
    return path


def make_run(cache: Path, out: Path, **settings) -> Path:
    """Fit a head by SGD; return its folder."""
    spec = SgdSpec(**{"epochs": 4, "lr": 0.01, "batch_size": 32, **settings})
    featcache.fit_head(cache, spec, out=out)
    return out
