"""Caches made of random rows: no image, no network, every byte known."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.core.blocks import Block, block_rows, plan_blocks
from featcache.core.manifest import TRAIN, VAL, Manifest
from featcache.core.specs import FeatureSpec, ViewSpec
from featcache.core.status import Status
from featcache.store.reader import FeatureCache
from featcache.store.writer import CacheWriter, create, partial_path

CLASSES = ("ants", "bees", "caf\udce9")  # the last is no UTF-8
BEGAN_NS = 1_700_000_000_000_000_000
PROVENANCE = {"began_ns": BEGAN_NS, "weights": {"source": "random:0", "key": "k"}}
EMBED_DIM = 512  # of resnet18


@dataclass(frozen=True, eq=False)
class Content:
    """What a cache is to hold; equal arguments make equal content."""

    manifest: Manifest
    spec: FeatureSpec
    rows: dict[str, np.ndarray]  # features, digests, status

    def blocks(self) -> list[Block]:
        """Return the blocks of the cache."""
        n = len(self.manifest)
        return list(plan_blocks(n, block_rows(n)))

    def begin(self, path: Path) -> Path:
        """Create the cache without rows; return where it lies."""
        partial = partial_path(path)
        create(partial, self.spec, self.manifest.columns(), EMBED_DIM, PROVENANCE)
        return partial

    def write(self, writer: CacheWriter, blocks: Iterable[Block]) -> None:
        """Write the rows of some blocks."""
        for block in blocks:
            writer.write(block, **{k: v[block.rows] for k, v in self.rows.items()})

    def complete(self, path: Path) -> Path:
        """Make the whole cache."""
        with CacheWriter(self.begin(path)) as writer:
            self.write(writer, self.blocks())
            writer.finish(path)
        return path


def make_spec(**changes: Any) -> FeatureSpec:
    """Return a spec; only the changed fields differ from the next one."""
    fields = {"backbone": "resnet18", "weights_sha256": "5" * 64, "view": ViewSpec()}
    return FeatureSpec(**{**fields, **changes})


def make_manifest(n: int) -> Manifest:
    """Return n samples, three of four of them in train; no file lies there."""
    labels = np.arange(n, dtype=np.int32) % len(CLASSES)
    paths = [b"%05d.jpg" % i for i in range(n)]
    paths[-1] = b"\xff.jpg"
    return Manifest(
        root=Path("photos"),
        classes=CLASSES,
        paths=np.array(paths, np.bytes_),
        labels=labels,
        splits=np.where(np.arange(n) * 4 < n * 3, TRAIN, VAL).astype(np.uint8),
        sizes=np.arange(n, dtype=np.int64) + 1000,
        mtimes_ns=np.arange(n, dtype=np.int64) + BEGAN_NS - 10**12,
    )


def make_content(n: int = 20, *, seed: int = 0, bad: int = -1, **changes) -> Content:
    """Return content of n rows, of which ``bad`` has no feature."""
    random = np.random.default_rng(seed)
    spec = make_spec(**changes)
    manifest = make_manifest(n)
    features = random.normal(size=(n, *spec.row_shape(EMBED_DIM))).astype(spec.dtype)
    if spec.views > 1:  # val has the first view alone
        features[manifest.splits != TRAIN, 1:] = np.nan
    digests = random.integers(0, 256, (n, 32), np.uint8)
    status = np.full(n, Status.OK, np.uint8)
    if bad >= 0:
        status[bad], features[bad] = Status.DAMAGED, 0
    rows = {"features": features, "digests": digests, "status": status}
    return Content(manifest, spec, rows)


@pytest.fixture(scope="session")
def contents():
    """Make content: ``contents(n, seed=, bad=, dtype=, ...)``."""
    return make_content


@pytest.fixture(scope="session")
def content() -> Content:
    """Twenty rows in three blocks; row 3 is of a damaged image."""
    return make_content(bad=3)


@pytest.fixture
def path(content, tmp_path) -> Path:
    """A complete cache file of `content`, the test's own."""
    return content.complete(tmp_path / "cache.h5")


@pytest.fixture
def cache(path) -> Iterator[FeatureCache]:
    """The complete cache, opened."""
    with FeatureCache(path) as opened:
        yield opened


@pytest.fixture(scope="session")
def spec() -> FeatureSpec:
    """The identity of every cache here unless it says otherwise."""
    return make_spec()


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """Twenty samples of three classes, one path and one class no UTF-8."""
    return make_manifest(20)
