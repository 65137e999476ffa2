"""How many rows a second go into a cache, when nothing else has to be done.

    python scripts/bench/scale.py --dir /scratch
    python scripts/bench/scale.py --dir /scratch --rows 1000000 --dim 512
    python scripts/bench/scale.py --dir /scratch --ray

An engine that has every row ready stands in for decoding and network; what is left is
the driver's own work: blocks on threads, digests, the journal, the file. Beside it, in
turns of the same run: h5py writing the same rows into one dataset, without digests and
without resume; the bytes alone by pwrite; their sha256 alone. Medians of the turns; the
rows are in the system's memory then, not yet on the disk. A busy machine disturbs the
rows for a second of a core's time less than those for a second.

With --ray, actors of a Ray cluster of this machine have the rows ready, too: what is
measured besides is what passes between processes. Their processor time is not counted.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featcache.core.blocks import Block, plan_blocks
from featcache.core.catalog import BACKBONES
from featcache.core.clock import Clock
from featcache.core.machine import cores
from featcache.core.manifest import Manifest
from featcache.core.progress import SILENT
from featcache.core.specs import ExtractSpec, FeatureSpec
from featcache.core.status import Status
from featcache.stages.cluster import fleet
from featcache.stages.cluster.connection import connected
from featcache.stages.cluster.fleet import Fleet
from featcache.stages.cluster.orders import Orders
from featcache.stages.cluster.station import Answer, Station
from featcache.stages.filling import Filler, Tally
from featcache.stages.sources import find_weights
from featcache.stages.tasks import Engine, Setting, Steps
from featcache.store.files import allocate
from featcache.store.ledger import Ledger, ledger_path
from featcache.store.reuse import Reuse
from featcache.store.writer import CacheWriter, create, partial_path
from featcache.vision.pipeline import run_blocks

GOAL = 200_000  # rows a second, of 2048 float16
BLOCK = 256  # rows

Taken = tuple[float, float]  # seconds, and those of processors


def main() -> None:
    """Measure in turns; print a table and a line of JSON."""
    options = arguments()
    rows = Rows(options.rows, options.dim, options.dtype)
    ways: dict[str, Callable[[Path], Taken]] = {
        "featcache": lambda at: fill(rows, at, ReadyEngine(rows, options.threads)),
        "h5py, no digests": lambda at: by_h5py(rows, at),
        "pwrite alone": lambda at: by_pwrite(rows, at, options.threads),
        "sha256 alone": lambda _: digest_all(rows, options.threads),
    }
    if options.ray:
        ways = {"through Ray": lambda at: fill_by_ray(rows, at), **ways}
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    for _ in range(options.turns):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory(dir=options.dir) as folder:
                taken[name].append(way(Path(folder)))
    print(
        f"{options.rows:,} rows of {options.dim} {options.dtype}, {options.threads} "
        f"threads, medians of {options.turns}; load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':<20}{'rows/s':>12}{'GB/s':>8}{'rows/s of a core':>20}")
    result: dict[str, dict[str, float]] = {}
    for name, turns in taken.items():
        wall, core = (statistics.median(t) for t in zip(*turns, strict=True))
        speed = options.rows / wall
        result[name] = {"rows_per_second": speed, "of_a_core": options.rows / core}
        volume = speed * rows.bytes / 1e9
        print(f"{name:<20}{speed:>12,.0f}{volume:>8.2f}{options.rows / core:>20,.0f}")
    print(json.dumps({"goal": GOAL, **vars(options), "dir": "", "measured": result}))


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--dim", type=int, default=2048, choices=[512, 2048])
    parser.add_argument("--dtype", default="float16", choices=["float16", "float32"])
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--ray", action="store_true", help="measure that, too")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--dir", help="where the file is made; default: temporary")
    return parser.parse_args()


class Rows:
    """One block of rows that is used again and again, and a manifest to go with it.

    Parameters
    ----------
    count, dim : int
        N and D.
    dtype : str
        Of the features.
    """

    def __init__(self, count: int, dim: int, dtype: str) -> None:
        random = np.random.default_rng(0)
        self.count, self.bytes = count, dim * np.dtype(dtype).itemsize
        self.features = random.standard_normal((BLOCK, dim)).astype(dtype)
        self.digests = random.integers(0, 256, (BLOCK, 32), np.uint8)
        backbone = next(n for n, found in BACKBONES.items() if found.embed_dim == dim)
        view = find_weights(backbone, "random:0").view
        self.spec = FeatureSpec(
            backbone=backbone, weights_sha256="5" * 64, view=view, dtype=dtype
        )
        names = np.array([b"shard.tar/%09d.jpg" % i for i in range(count)])
        self.manifest = Manifest(
            root=Path("/data"),
            classes=("a", "b"),
            paths=names,
            labels=np.arange(count, dtype=np.int32) % 2,
            splits=np.zeros(count, np.uint8),
            sizes=np.full(count, 100_000),
            mtimes_ns=np.zeros(count, np.int64),
        )

    def starts(self) -> Iterator[tuple[int, int]]:
        """Yield start and stop of each block."""
        for start in range(0, self.count, BLOCK):
            yield start, min(start + BLOCK, self.count)


class ReadyEngine:
    """Computes nothing: every row is ready.

    Parameters
    ----------
    rows : Rows
        What it hands over.
    threads : int
        How many call it.
    """

    def __init__(self, rows: Rows, threads: int) -> None:
        self.pieces: dict[str, str] = {}
        self.device, self.batch_size, self.clock = "cpu", BLOCK, Clock()
        self.threads = threads
        self._rows = rows

    def noting(self, ledger: Ledger) -> AbstractContextManager[None]:
        """Return a context in which nothing is noted."""
        del ledger
        return nullcontext()

    def run(self, blocks: Iterable[Block], steps: Steps) -> None:
        """Copy the rows into their place."""

        def work(block: Block, alive: Callable[[], None]) -> None:
            alive()
            with self.clock.worker():
                task = steps.prepare(block)
                task.rows.features[:] = self._rows.features[: block.size]
                task.rows.digests[:] = self._rows.digests[: block.size]
                task.rows.status[:] = Status.OK
                task.rows.computed = block.size
                steps.finish(task)

        run_blocks(blocks, work, self.threads, steps.watch)

    def watch(self) -> None:
        """Do nothing."""

    def expel(self, slot: int) -> bool:
        """Tell that nothing can be ended."""
        del slot
        return False


class ReadyStation(Station):
    """An actor that computes nothing: every row is ready."""

    def begin(self, orders: Orders, tensors: bytes) -> Answer:
        """Make the rows."""
        del tensors
        wanted = orders.wanted
        self._rows = Rows(BLOCK, wanted.embed_dim, wanted.dtype)
        return {
            "pieces": {},
            "batch_size": BLOCK,
            "device": "cpu",
            "threads": orders.setting.workers,
        }

    def compute(
        self, numbers: Sequence[int], places: Sequence[Any], views: Sequence[int]
    ) -> Answer:
        """Hand the rows over."""
        del numbers, views
        size = len(places)
        return {
            "features": self._rows.features[:size],
            "digests": self._rows.digests[:size],
            "status": np.full(size, Status.OK, np.uint8),
            "reasons": {},
            "computed": size,
            "stages": {},
            "busy": {},
        }


def fill(rows: Rows, folder: Path, engine: Engine) -> Taken:
    """Fill a cache by the way of `extract`; creating and finishing are not timed."""
    target = folder / "cache.h5"
    partial = partial_path(target)
    create(partial, rows.spec, rows.manifest.columns(), rows.features.shape[1], {})
    reuse = Reuse(rows.manifest, [], rehash=False)
    tally = Tally(rows.manifest, SILENT)
    with CacheWriter(partial) as writer, Ledger(ledger_path(target)) as ledger:
        filler = Filler(rows.manifest, writer, engine, reuse, None, tally, ledger)
        blocks: list[Block] = [*plan_blocks(rows.count, writer.header.block_rows)]
        with timing() as taken:
            engine.run(blocks, filler)
        writer.finish(target)
    return taken[0]


def fill_by_ray(rows: Rows, folder: Path) -> Taken:
    """Fill a cache from actors; the start of the cluster is not timed."""
    fleet.Station = ReadyStation  # what is hired
    setting = Setting(
        source=find_weights(rows.spec.backbone, "random:0"),
        precision="float32",
        batch_size=BLOCK,
        workers=1,
        expected=rows.count,
    )
    orders = Orders(setting=setting, wanted=rows.spec, device="", samples=[])
    how = ExtractSpec(engine="ray", address="local", actor_cpus=1.0)
    with (
        connected("local") as ray,
        closing(Fleet(ray, orders, how, b"", Clock(), SILENT)) as engine,
    ):
        engine.start()
        return fill(rows, folder, engine)


def by_h5py(rows: Rows, folder: Path) -> Taken:
    """Write one contiguous dataset, block by block, on one thread."""
    with h5py.File(folder / "plain.h5", "w") as file:
        shape = (rows.count, rows.features.shape[1])
        features = file.create_dataset("features", shape, rows.features.dtype)
        with timing() as taken:
            for start, stop in rows.starts():
                features[start:stop] = rows.features[: stop - start]
    return taken[0]


def by_pwrite(rows: Rows, folder: Path, threads: int) -> Taken:
    """Write the same bytes into a file that has its space."""
    path = folder / "bytes"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    data = rows.features.view(np.uint8).data
    try:
        allocate(fd, rows.count * rows.bytes, path)

        def write(bounds: tuple[int, int]) -> None:
            os.pwrite(fd, data[: bounds[1] - bounds[0]], bounds[0] * rows.bytes)

        with ThreadPoolExecutor(threads) as pool, timing() as taken:
            list(pool.map(write, rows.starts()))
    finally:
        os.close(fd)
    return taken[0]


def digest_all(rows: Rows, threads: int) -> Taken:
    """Compute the digests of the same bytes and write nothing."""
    data = rows.features.view(np.uint8).data

    def digest(bounds: tuple[int, int]) -> bytes:
        return hashlib.sha256(data[: bounds[1] - bounds[0]]).digest()

    with ThreadPoolExecutor(threads) as pool, timing() as taken:
        list(pool.map(digest, rows.starts()))
    return taken[0]


@contextmanager
def timing() -> Iterator[list[Taken]]:
    """Append what the inside takes to the list that is given."""
    taken: list[Taken] = []
    began, computed = time.perf_counter(), time.process_time()
    yield taken
    taken.append((time.perf_counter() - began, time.process_time() - computed))


if __name__ == "__main__":
    main()
