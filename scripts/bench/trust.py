"""What a cache survives, how fast it is checked, how fast it is found unchanged.

    python scripts/bench/trust.py

Kills and faults are those of tests/trust; every one must end in equal bytes or the
script fails. All files are made in a temporary folder.
"""

import argparse
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from featcache.core.blocks import block_rows, plan_blocks
from featcache.core.machine import cores
from featcache.core.specs import FeatureSpec
from featcache.core.status import Status
from featcache.stages.sources import find_weights
from featcache.store.reader import FeatureCache
from featcache.store.writer import CacheWriter, create, partial_path
from featcache.vision.scan import scan

ROOT = Path(__file__).parents[2]
EMBED_DIM = 512  # of resnet18
MEGABYTE = 1 << 20

WARM = """
import sys, time
began = time.perf_counter()
import featcache
cache = featcache.extract(sys.argv[1], weights="random:0", cache=sys.argv[2])
seconds = time.perf_counter() - began
assert cache.report.computed == 0 and len(cache) == int(sys.argv[3])
assert "torch" not in sys.modules
print(seconds)
"""
PEAK = """
import resource, sys
from pathlib import Path
from featcache.core.specs import ExtractSpec
from tests.trust.zygote import Zygote
import featcache
Zygote()
spec = ExtractSpec(on_error="skip", workers=int(sys.argv[3]))
cache = featcache.extract(sys.argv[1], spec, weights="random:0", cache=sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, cache.skipped)
"""


def python(*words: object) -> str:
    """Run Python from the repository's root, in one thread; return the last line."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **threads, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise SystemExit(ran.stdout + ran.stderr)
    return ran.stdout.splitlines()[-1]


def complete(cache: Path, folder: Path) -> None:
    """Make a finished cache of a folder, of random rows, as of a day from now."""
    manifest, source = scan(folder), find_weights("resnet18", "random:0")
    spec = FeatureSpec(backbone="resnet18", weights_sha256="5" * 64, view=source.view)
    provenance = {
        "began_ns": time.time_ns() + 86_400 * 10**9,  # times of the files are trusted
        "weights": {"source": source.name, "key": source.key},
    }
    create(partial_path(cache), spec, manifest.columns(), EMBED_DIM, provenance)
    random = np.random.default_rng(0)
    with CacheWriter(partial_path(cache)) as writer:
        for block in plan_blocks(len(manifest), block_rows(len(manifest))):
            features = random.random((block.size, EMBED_DIM), np.float32)
            digests = random.integers(0, 256, (block.size, 32), np.uint8)
            writer.write(
                block, features, digests, np.full(block.size, Status.OK, np.uint8)
            )
        writer.finish(cache)


def tiny_files(root: Path, count: int) -> Path:
    """Make a folder of files of one byte that are called images."""
    for number in range(count):
        folder = root / "train" / f"class-{number % 100:02d}"
        if number < 100:
            folder.mkdir(parents=True)
        (folder / f"{number:07d}.jpg").write_bytes(b"x")
    return root


def bytes_verified_per_second(root: Path, megabytes: int) -> float:
    """Time the check of every digest; the best of three."""
    rows = megabytes * MEGABYTE // (EMBED_DIM * 4)
    cache = root / "verify.h5"
    complete(cache, tiny_files(root / "rows", rows))
    seconds = []
    for _ in range(3):
        with FeatureCache(cache) as opened:
            began = time.perf_counter()
            opened.check()
            seconds.append(time.perf_counter() - began)
    return cache.stat().st_size / min(seconds)


def warm_start(root: Path, files: int) -> tuple[float, float]:
    """Time an extraction of an unchanged folder: in Python, and the whole process."""
    folder, cache = tiny_files(root / "warm", files), root / "warm.h5"
    complete(cache, folder)
    runs = []
    for _ in range(3):
        began = time.perf_counter()
        inside = float(python("-c", WARM, folder, cache, files))
        runs.append((inside, time.perf_counter() - began))
    return min(runs)


def png(width: int, height: int, *, colour: int) -> Iterator[bytes]:
    """Yield a PNG of zeros, in pieces; its size is a thousandth of its pixels'."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    yield b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    yield chunk(b"IHDR", header)
    packer, row = zlib.compressobj(1), bytes(1 + width * {0: 1, 2: 3, 6: 4}[colour])
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    yield chunk(b"IDAT", data)
    yield chunk(b"IEND", b"")


def peak_of_bombs(root: Path, workers: int) -> dict[str, float]:
    """Return how many MB a folder with bombs takes above one without."""
    from PIL import Image

    shapes = {
        "plain": {},
        "refused": {
            "thin": (1, 20_000, 2),
            "huge": (30_000, 30_000, 0),
            "wide": (65_000, 2_000, 6),
            "flat": (400_000, 10, 2),
        },
        "largest": {f"largest-{i}": (9_459, 9_459, 2) for i in range(2 * workers)},
    }
    peaks = {}
    for name, bombs in shapes.items():
        for number in range(16):
            folder = root / name / "train" / f"class-{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (300, 200), (number, 9, 9)).save(folder / f"{number}.png")
        for bomb, (width, height, colour) in bombs.items():
            with (folder / f"{bomb}.png").open("wb") as file:
                file.writelines(png(width, height, colour=colour))
        told = python("-c", PEAK, root / name, root / f"{name}.h5", workers)
        peak, skipped = map(float, told.split())
        expected = len(bombs) if name == "refused" else 0
        if skipped != expected:
            raise SystemExit(f"{name}: {skipped:.0f} skipped, expected {expected}")
        peaks[name] = peak
    return {name: peaks[name] - peaks["plain"] for name in ("refused", "largest")}


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--faults", type=int, default=0, help="0: every one")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--verify-mb", type=int, default=256)
    parser.add_argument("--warm-files", type=int, default=100_000)
    args = parser.parse_args()
    kills = json.loads(python("-m", "tests.trust.kills", "--count", args.kills))
    faults = json.loads(python("-m", "tests.trust.faults", "--most", args.faults))
    fuzz = ["-m", "tests.store.test_hostile_fuzz", "--count", args.mutations]
    mutations = json.loads(python(*fuzz))
    if mutations["faults"]:
        raise SystemExit(str(mutations["faults"]))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        verified = bytes_verified_per_second(root, args.verify_mb)
        inside, process = warm_start(root, args.warm_files)
        bombs = peak_of_bombs(root, workers=2)
    machine = f"{cores()} cores, {platform.machine()}, Python {sys.version.split()[0]}"
    table = [
        ("kills survived", f"{kills['kills']}", "0 bad files"),
        (
            "images decoded twice",
            f"{kills['images_repeated']}",
            f"at most {kills['images_repeated_at_most']}",
        ),
        ("faults injected", f"{faults['faults']}", "0 bad files"),
        ("mutations tried", f"{mutations['mutations']}", "0 crashes, hangs, lies"),
        ("verified", f"{verified / 1e9:.2f} GB/s", "above 1 GB/s"),
        (f"warm start, {args.warm_files:,} files", f"{process:.2f} s", "below 2 s"),
        ("memory for refused bombs", f"+{bombs['refused']:.0f} MB", "below 500 MB"),
        ("memory for largest images", f"+{bombs['largest']:.0f} MB", "below 500 MB"),
    ]
    print(machine)
    print(f"{'':<30}{'measured':>12}   goal")
    for row in table:
        print("{:<30}{:>12}   {}".format(*row).rstrip())
    result = {
        "machine": machine,
        "kills": kills,
        "faults": faults,
        "mutations": mutations,
        "verify_bytes": args.verify_mb * MEGABYTE,
        "verified_bytes_per_second": round(verified),
        "warm_files": args.warm_files,
        "warm_start_seconds": round(process, 3),
        "warm_start_seconds_inside": round(inside, 3),
        "bombs_mb_above_normal": {k: round(v) for k, v in bombs.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
