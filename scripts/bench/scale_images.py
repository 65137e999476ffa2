"""A million images through the whole command, with a cheap network in its place.

Makes small JPEGs, each with other bytes, in tar shards or in a folder; extracts, kills
the command with SIGKILL at half way, starts it again, and then asks for what is there:

    python scripts/bench/scale_images.py --dir /scratch                  tar shards
    python scripts/bench/scale_images.py --dir /scratch --kind folder
    python scripts/bench/scale_images.py --dir /scratch --images 20000   a minute

The network is that of scripts/bench/stub: every other step is as in use, and weighs
more than it ever does. Memory is what the kernel counts for the process that works:
all of it at its peak, which includes the mapped pages of the cache, and its own alone.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
CLASSES = 1000
SHARD = 10_000  # images of a tar
KB = 1024  # of which the kernel tells, in a megabyte


def main() -> None:
    """Measure once; print a table and a line of JSON."""
    options = arguments()
    place = Path(options.dir) / f"scale-{options.kind}"
    shutil.rmtree(place, ignore_errors=True)
    data, cache = place / "data", place / "c.h5"
    bench = Bench(place, options)
    try:
        make = {"tars": make_tars, "folder": make_folder}[options.kind]
        _, bench.results["made_seconds"] = timed(lambda: make(data, options.images))
        bench.results |= manifest_bytes(data)
        bench.interrupted(data, cache)
        bench.resumed(data, cache)
        for name, words in {
            "warm_start": ["extract", data, *bench.settings, "--cache", cache],
            "status": ["status", cache],
            "verify": ["verify", cache],
            "info": ["info", cache],
        }.items():
            bench.command(name, words)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for name, value in bench.results.items():
        print(f"{name:<40}{value:>16,}")
    print(json.dumps(bench.results))


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=["tars", "folder"], default="tars")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--dir", required=True, help="8 KB an image are needed there")
    return parser.parse_args()


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """Return what an action returns, and its seconds."""
    began = time.perf_counter()
    result = action()
    return result, round(time.perf_counter() - began, 2)


def picture() -> tuple[bytes, bytes]:
    """Return a JPEG in two halves; a comment of 8 bytes goes between them."""
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    pixels = random.integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    body = buffer.getvalue()
    return body[:2] + b"\xff\xfe\x00\x0a", body[2:]


def make_tars(root: Path, images: int) -> None:
    """Write shards of images and labels, nine of ten for train."""
    root.mkdir(parents=True)
    head, tail = picture()
    image, label = Template("jpg", len(head) + 8 + len(tail)), Template("cls", 4)
    padding = bytes(-image.size % 512)
    for shard, start in enumerate(range(0, images, SHARD)):
        split = "val" if shard % 10 == 9 else "train"
        parts = []
        for number in range(start, min(start + SHARD, images)):
            name = b"%08d" % number
            parts += [image.header(name), head, name, tail, padding]
            parts += [label.header(name), b"%04d" % (number % CLASSES), bytes(508)]
        data = b"".join([*parts, bytes(1024)])
        (root / f"{split}-{shard:05d}.tar").write_bytes(data)
    old(root)


class Template:
    """A tar header into which names of eight digits are written."""

    def __init__(self, ending: str, size: int) -> None:
        info = tarfile.TarInfo(f"00000000.{ending}")
        info.size = self.size = size
        self._block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        self._block[148:156] = b" " * 8
        self._sum = sum(self._block) - 8 * ord("0")

    def header(self, name: bytes) -> bytearray:
        """Return the header of one member."""
        block = self._block[:]
        block[:8] = name
        block[148:156] = b"%06o\0 " % (self._sum + sum(name))
        return block


def make_folder(root: Path, images: int) -> None:
    """Write one file an image, nine of ten for train."""
    head, tail = picture()
    for number in range(images):
        split = "val" if number // CLASSES % 10 == 9 else "train"
        folder = root / split / f"{number % CLASSES:04d}"
        if number < 10 * CLASSES:
            folder.mkdir(parents=True, exist_ok=True)
        name = b"%08d" % number
        (folder / f"{number:08d}.jpg").write_bytes(head + name + tail)
    time.sleep(2.5)  # files of these two seconds would be read again at each start


def old(root: Path) -> None:
    """Make shards an hour old: younger ones may still be changing."""
    then = time.time() - 3600
    for path in root.iterdir():
        os.utime(path, (then, then))


def manifest_bytes(data: Path) -> dict[str, float]:
    """Return the memory of a manifest, an image, and the seconds of scans."""
    from featcache.stages.datasets import data_source

    source = data_source(data, fresh=True)
    _, seconds = timed(source.scan)
    tracemalloc.start()
    manifest = data_source(data, fresh=True).scan()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "scan_seconds": seconds,
        "path_bytes": int(manifest.paths.dtype.itemsize),
        "manifest_bytes_an_image": round(kept / len(manifest), 1),
        "manifest_peak_bytes_an_image": round(peak / len(manifest), 1),
    }


class Bench:
    """Runs the command and keeps what it took.

    Parameters
    ----------
    place : Path
        Where the caches are.
    options : Namespace
        What was asked for.
    """

    def __init__(self, place: Path, options: argparse.Namespace) -> None:
        self.results: dict[str, float] = {"images": options.images}
        self.settings = ["--weights", "random:0", "--backbone", options.backbone]
        self.settings += ["--dtype", options.dtype]
        self._half = options.images // 2
        stub = os.pathsep.join([str(ROOT / "scripts/bench/stub"), str(ROOT)])
        self._environment = {
            **os.environ,
            "PYTHONPATH": stub,
            "XDG_CACHE_HOME": str(place / "user"),
        }

    def interrupted(self, data: Path, cache: Path) -> None:
        """Extract half of the images, then kill."""
        began = time.perf_counter()
        process = self._start(["extract", data, *self.settings, "--cache", cache])
        partial = cache.with_name(f"{cache.name}.partial")
        watched = Watched(process.pid)
        self._await(process, watched, partial.exists)
        first = time.perf_counter()
        self._await(process, watched, lambda: done(partial) >= self._half, 0.5)
        seconds = time.perf_counter() - first
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.results |= {
            "first_start_seconds": round(first - began, 2),
            "first_half_images_per_second": round(done(partial) / seconds),
            "first_half_own_mb": round(watched.own),
            "journal_bytes": journal_bytes(partial),
            "partial_bytes": partial.stat().st_size,
        }

    def resumed(self, data: Path, cache: Path) -> None:
        """Extract the rest; time the first block that is new."""
        partial = cache.with_name(f"{cache.name}.partial")
        before = partial.stat().st_mtime_ns
        began = time.perf_counter()
        words = ["extract", data, *self.settings, "--cache", cache, "--json"]
        process = self._start(words)
        watched = Watched(process.pid)
        # Nothing is written to the file before the first new block is.
        self._await(process, watched, lambda: partial.stat().st_mtime_ns != before)
        seconds, spent = time.perf_counter() - began, watched.cpu
        self._await(process, watched, lambda: False, 0.5)
        report = json.loads(process.stdout.read())
        self.results |= {
            "resume_seconds_to_the_first_block": round(seconds, 2),
            "resume_cpu_seconds_to_the_first_block": round(spent, 2),
            "resumed_computed": report["computed"],
            "resumed_images_per_second": report["images_per_second"],
            "resumed_core_ms_an_image": round(
                1000 * sum(report["busy"]) / report["images_per_second"], 3
            ),
            "resumed_own_mb": round(watched.own),
            "resumed_peak_mb": round(watched.peak),
        }

    def command(self, name: str, words: list) -> None:
        """Run one command to its end."""
        began = time.perf_counter()
        process = self._start(words)
        watched = Watched(process.pid)
        self._await(process, watched, lambda: False)
        seconds = time.perf_counter() - began
        self.results[f"{name}_seconds"] = round(seconds, 2)
        self.results[f"{name}_own_mb"] = round(watched.own)

    def _start(self, words: list) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "featcache", *map(str, words)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _await(
        self,
        process: subprocess.Popen,
        watched: "Watched",
        ready: Callable[[], bool],
        pause: float = 0.05,
    ) -> None:
        """Wait until something is so, or the process has ended well."""
        while process.poll() is None:
            if ready():
                return
            watched.look()
            time.sleep(pause)
        if process.returncode:
            raise SystemExit(f"{process.args} ended with {process.returncode}")


class Watched:
    """The most memory that a process or a child of it had; their processor time."""

    def __init__(self, pid: int) -> None:
        self._pid, self.own, self.peak, self.cpu = pid, 0.0, 0.0, 0.0

    def look(self) -> None:
        """Look at all of them."""
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children")
        with contextlib.suppress(OSError, KeyError):  # ended meanwhile
            spent = 0
            for pid in [self._pid, *map(int, children.read_text().split())]:
                words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                spent += int(words[11]) + int(words[12])
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                said = dict(line.split(":", 1) for line in lines)
                own, peak = (int(said[k].split()[0]) / KB for k in ("RssAnon", "VmHWM"))
                self.own, self.peak = max(self.own, own), max(self.peak, peak)
            self.cpu = spent / os.sysconf("SC_CLK_TCK")


def done(partial: Path) -> int:
    """Return how many rows have been written."""
    from featcache.store.header import read_header

    header = read_header(partial)
    journal = header.columns["journal"]
    with partial.open("rb") as file:
        file.seek(journal.offset)
        lines = np.frombuffer(file.read(journal.nbytes), np.uint8)
    return int(lines.reshape(journal.shape).any(axis=1).sum()) * header.block_rows


def journal_bytes(partial: Path) -> int:
    """Return the length of the journal."""
    from featcache.store.header import read_header

    return read_header(partial).columns["journal"].nbytes


if __name__ == "__main__":
    main()
