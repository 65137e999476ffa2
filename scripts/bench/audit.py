"""The whole audit of a large cache: seconds of each part, and peak memory.

Writes a cache of generated features, clustered and never negative as those of a ResNet
are (their cosines are printed; with --like they are drawn around those of a real
cache), with planted copies and wrong labels. Audits it in a process of its own, whose
memory is watched, and compares its search for near duplicates with the plain way: the
full product of all features, block by block, on as many threads. Of that only a share
of the blocks is computed, and scaled up.

    python scripts/bench/audit.py                              20,000 rows, seconds
    python scripts/bench/audit.py --rows 1000000 --like cache/hymenoptera-resnet18.h5

One process at a time; with --faiss its range_search is timed, too.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import featcache
from featcache.core.blocks import block_rows, plan_blocks
from featcache.core.heads import unit_rows
from featcache.core.machine import cores
from featcache.core.manifest import TRAIN, VAL, Manifest
from featcache.core.progress import Silent
from featcache.core.specs import FeatureSpec, ViewSpec
from featcache.core.status import Status
from featcache.stages.auditing import NEAR
from featcache.store.writer import CacheWriter, create, partial_path
from featcache.train.near import compiled_pairs
from featcache.train.near_kernel import Comparison

_QUERIES, _KEYS = 1024, 8192
_QUANTILES = (0.001, 0.5, 0.999)


class Clouds:
    """Features around one centre per class.

    Parameters
    ----------
    real : ndarray of float32, shape (m, D)
        What they are to be like.
    classes : int
        C.
    """

    def __init__(self, real: np.ndarray, classes: int) -> None:
        random = np.random.default_rng(0)
        self.mean = real.mean(axis=0)
        self.varied = real - self.mean
        self.noise = 0.35 * self.varied.std(axis=0)
        drawn = self.varied[random.integers(0, len(real), (classes, 3))]
        self.centres = self.mean + 0.35 * drawn.sum(axis=1)

    def rows(self, y: np.ndarray, seed: int) -> np.ndarray:
        """Return a feature (D,) of each label."""
        random = np.random.default_rng((1, seed))
        m, D = self.varied.shape
        mixed = random.standard_normal((len(y), m), np.float32) @ self.varied
        X = self.centres[y] + mixed / np.float32(m**0.5)
        X += self.noise * random.standard_normal((len(y), D), np.float32)
        return np.abs(X)


def real_features(like: Path | None, dim: int) -> np.ndarray:
    """Return features of a cache, or some that vary as ResNet-18's do."""
    if like is not None:
        return np.array(featcache.open_cache(like).features().X, np.float32)
    random = np.random.default_rng(0)
    widths = 1 / np.sqrt(4 + np.arange(dim))
    turned = np.linalg.qr(random.standard_normal((dim, dim)))[0] * widths
    drawn = random.standard_normal((400, dim)) @ turned.T
    return np.abs(0.1 + drawn).astype(np.float32)


def write(path: Path, options: argparse.Namespace) -> dict[str, int]:
    """Write the cache; return how much was planted."""
    real = real_features(options.like, options.dim)
    clouds, n, C = Clouds(real, options.classes), options.rows, options.classes
    random = np.random.default_rng(2)
    y = (np.arange(n) * C // n).astype(np.int32)
    wrong = random.choice(n, n // 200, replace=False)
    labels = y.copy()
    labels[wrong] = (y[wrong] + random.integers(1, C, len(wrong))) % C
    manifest = Manifest(
        root=Path("photos"),
        classes=tuple(f"class-{k}" for k in range(C)),
        paths=np.array([b"%05d/%08d.jpg" % (y[i], i) for i in range(n)]),
        labels=labels,
        splits=np.where(np.arange(n) % 5 == 4, VAL, TRAIN).astype(np.uint8),
        sizes=np.full(n, 1000, np.int64),
        mtimes_ns=np.full(n, 1_700_000_000_000_000_000, np.int64),
    )
    spec = FeatureSpec(backbone="resnet18", weights_sha256="5" * 64, view=ViewSpec())
    provenance = {"began_ns": 0, "weights": {"source": "generated", "key": "k"}}
    partial = partial_path(path)
    create(partial, spec, manifest.columns(), real.shape[1], provenance)
    # The second row of a block is much like the first one of an earlier block.
    first_rows: dict[int, list[np.ndarray]] = {}
    copies = 0
    with CacheWriter(partial) as writer:
        for block in plan_blocks(n, block_rows(n)):
            own = y[block.rows]
            X = clouds.rows(own, block.index)
            earlier = first_rows.setdefault(int(own[0]), [])
            if earlier and own[1] == own[0]:
                source = earlier[random.integers(len(earlier))]
                X[1] = 1.01 * source + 0.05 * clouds.noise
                copies += 1
            earlier.append(X[0].copy())
            digests = random.integers(0, 256, (len(own), 32), np.uint8)
            status = np.full(len(own), Status.OK, np.uint8)
            writer.write(block, features=X, digests=digests, status=status)
        writer.finish(path)
    return {"copies": copies, "wrong": len(wrong)}


class Listener(Silent):
    """Keeps what the audit says of its parts, and how long it compares."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)

    def detail(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


def audited(path: Path) -> dict[str, Any]:
    """Audit in this process; return what it took."""
    listener = Listener()
    before, began = os.getloadavg()[0], time.perf_counter()
    report = featcache.audit(path, progress=listener)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * 1024,
        "parts": listener.lines,
        "counts": report.counts,
        "notes": report.notes,
        "load": [before, os.getloadavg()[0]],
    }


def alone(work: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """Call in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(work, arguments)


def plain(path: Path, share: float) -> dict[str, float]:
    """Compare by the full product, in a share of the blocks."""
    X = unit_rows(np.array(featcache.open_cache(path).features().X, np.float32))
    n = len(X)
    tiles = [(i, j) for i in range(0, n, _QUERIES) for j in range(i, n, _KEYS)]
    count = max(1, round(share * len(tiles)))
    some = [tiles[k] for k in np.linspace(0, len(tiles) - 1, count).round().astype(int)]
    pairs = sum(min(_QUERIES, n - i) * min(_KEYS, n - j) for i, j in some)
    found, began = 0, time.perf_counter()
    for i, j in some:
        cosines = X[i : i + _QUERIES] @ X[j : j + _KEYS].T
        near = np.flatnonzero(cosines.ravel() >= NEAR)
        first, second = np.divmod(near, cosines.shape[1])
        found += int((first + i < second + j).sum())
    seconds = time.perf_counter() - began
    every = sum(min(_QUERIES, n - i) * min(_KEYS, n - j) for i, j in tiles)
    return {"share": count / len(tiles), "seconds": seconds * every / pairs}


def ours(path: Path) -> dict[str, float]:
    """Find the same pairs by codes."""
    features = featcache.open_cache(path).features()
    began = time.perf_counter()
    pairs = compiled_pairs(features, NEAR, Comparison())
    found = sum(len(i) for i, _, _ in pairs)
    return {"seconds": time.perf_counter() - began, "pairs": found}


def by_faiss(path: Path) -> dict[str, float]:
    """Find the same pairs by faiss, which compares all rows with all."""
    import faiss

    faiss.omp_set_num_threads(cores())
    X = unit_rows(np.array(featcache.open_cache(path).features().X, np.float32))
    began = time.perf_counter()
    index = faiss.IndexFlatIP(X.shape[1])
    index.add(X)
    limits, _, found = index.range_search(X, NEAR)
    rows = np.repeat(np.arange(len(X)), np.diff(limits.astype(np.int64)))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "pairs": int((rows < found).sum())}


def cosines_of(path: Path) -> dict[str, list[float]]:
    """Return quantiles of the cosines within classes and between them."""
    features = featcache.open_cache(path).features()
    at = np.linspace(0, len(features) - 1, 2000).astype(np.int64)
    U, y = unit_rows(np.array(features.subset(at).X, np.float32)), features.y[at]
    i, j = np.triu_indices(len(U), 1)
    cosines, same = (U @ U.T)[i, j], y[i] == y[j]
    return {
        name: np.quantile(cosines[which], _QUANTILES).round(3).tolist()
        for name, which in (("within", same), ("between", ~same))
    }


def main() -> None:
    """Print what was found and what it took, and everything as one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--like", type=Path, help="a cache of real features")
    parser.add_argument("--share", type=float, help="of the plain way's blocks")
    parser.add_argument("--faiss", action="store_true", help="compare with it, too")
    parser.add_argument("--cache", type=Path, help="written there, or there already")
    options = parser.parse_args()
    share = options.share or min(1.0, (20_000 / options.rows) ** 2)
    with tempfile.TemporaryDirectory() as folder:
        path = options.cache or Path(folder) / "generated.h5"
        planted = {} if path.exists() else alone(write, path, options)
        found: dict[str, Any] = {
            "rows": options.rows,
            "cores": cores(),
            "planted": planted,
            "cosines": alone(cosines_of, path),
            "audit": alone(audited, path),
            "near": alone(ours, path),
            "plain": alone(plain, path, share),
        }
        if options.faiss:
            found["faiss"] = alone(by_faiss, path)
    show(found)
    print(json.dumps(found))


def show(found: dict[str, Any]) -> None:
    """Print what people want to know."""
    whole, near, plain_way = found["audit"], found["near"], found["plain"]
    quantiles = ", ".join(str(q) for q in _QUANTILES)
    print(f"{found['rows']:,} rows, {found['cores']} cores, planted {found['planted']}")
    print(f"cosines, quantiles {quantiles}: {found['cosines']}")
    print(
        f"audit: {whole['seconds']:.1f} s, {whole['cpu_seconds']:.1f} s of processors, "
        f"peak {whole['peak_bytes'] / 1e9:.2f} GB"
    )
    for line in whole["parts"]:
        print(f"  {line}")
    print(f"found: {whole['counts']}; load {whole['load']}")
    print(f"near pairs by codes: {near['seconds']:.1f} s, {near['pairs']:,} pairs")
    computed = 100 * plain_way["share"]
    print(
        f"by the full product: {plain_way['seconds']:.1f} s, scaled up from "
        f"{computed:.2g} % of it; {plain_way['seconds'] / near['seconds']:.0f} times"
    )
    if "faiss" in found:
        told = found["faiss"]
        print(f"by faiss: {told['seconds']:.1f} s, {told['pairs']:,} pairs")


if __name__ == "__main__":
    main()
