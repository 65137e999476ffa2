"""Damaged files by the thousand: each opens and verifies, or is refused in one line.

Trials run in forks of a process of their own, so that a crash, a hang or a flood of
memory is counted and named, and ends nothing else:

python -m tests.store.test_hostile_fuzz --count 10000 --seed 0
"""

import argparse
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ROWS = (2, 20)  # of the caches: mostly headers, mostly features
BATCH = 200  # mutations in one fork
HEADER = 4096  # bytes at the beginning that half of the changes go to
SECONDS = 5.0  # for one file
ALLOWED = 200 << 20  # bytes of memory above the file's size
CEILING = 4 << 30  # bytes of address space: spares the machine if HDF5 ever used it
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, (1 << 31) - 1, (1 << 32) - 1, 1 << 62,
           (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip


def flip_bits(data, place, random):
    for _ in range(random.integers(1, 9)):
        data[(place() + random.integers(16)) % len(data)] ^= 1 << random.integers(8)


def write_run(data, place, random):
    start, size = place(), int(random.integers(1, 65))
    run = random.choice([bytes(size), b"\xff" * size, random.bytes(size)])
    data[start : start + size] = bytes(run)[: len(data) - start].ljust(
        min(size, len(data) - start), b"\0"
    )


def write_number(data, place, random):
    width = int(random.choice([1, 2, 4, 8]))
    start = place() // width * width
    number = [*NUMBERS, len(data), place()][random.integers(len(NUMBERS) + 2)]
    number &= (1 << 8 * width) - 1
    data[start : start + width] = number.to_bytes(width, "little")


def swap_words(data, place, _):
    one, other = place() // 8 * 8, place() // 8 * 8
    data[one : one + 8], data[other : other + 8] = (
        data[other : other + 8],
        data[one : one + 8],
    )


def repeat_run(data, place, random):
    size = int(random.integers(8, 257))
    start, run = place(), bytes(data[(origin := place()) : origin + size])
    run = run[: len(data) - start]
    data[start : start + len(run)] = run


def cut_off(data, place, _):
    del data[max(1, place()) :]


def extend(data, _, random):
    size = int(random.integers(1, 4097))
    data += random.bytes(size) if random.random() < 0.5 else bytes(size)


KINDS = (flip_bits, write_run, write_number, swap_words, repeat_run, cut_off, extend)


def mutated(whole, seed):
    """Return the damaged bytes of a seed, and by which kinds of damage."""
    random = np.random.default_rng(seed)
    data, names = bytearray(whole), []

    def place():
        end = HEADER if random.random() < 0.5 else len(data)
        return int(random.integers(min(end, len(data))))

    for _ in range(random.integers(1, 4)):
        kind = KINDS[random.integers(len(KINDS))]
        kind(data, place, random)
        names.append(kind.__name__)
    return bytes(data), names


def memory(name="VmHWM"):
    """Return the most memory that this process ever had at once, bytes."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(s.split()[1]) << 10 for s in lines if s.startswith(name))


class Fuzz:
    """Mutations by number: where they are tried, and what became of them."""

    def __init__(self, root, seed):
        from tests.store.conftest import make_content

        self.seed, self.path = seed, root / "hostile.h5"
        self.contents = [make_content(n) for n in ROWS]
        self.wholes = [c.complete(self.path).read_bytes() for c in self.contents]
        self.ends, self.kinds, self.faults = Counter(), Counter(), []
        self.slowest = self.most = 0.0

    def trial(self, number):
        """Open one damaged file; return how that ended and by which damage."""
        from featcache.core.errors import CacheError
        from featcache.store.reader import open_cache

        which = number % len(ROWS)
        data, kinds = mutated(self.wholes[which], [self.seed, number])
        self.path.write_bytes(data)
        try:
            with open_cache(self.path) as cache:
                cache.check()
                content = self.contents[which]
                for name, values in {
                    **content.manifest.columns(),
                    **content.rows,
                }.items():
                    assert np.array_equal(cache.columns[name], values), name
                assert cache.spec == content.spec
            end = "opened"
        except CacheError as error:
            end, line = "refused", str(error)
            assert line.isprintable(), line
            assert len(line) < 5_000, line
            # HDF5 asks for as much as a damaged length says, up to 2**64. What counts
            # here is the memory that is used, and the limit stops larger requests.
            if "memory allocation failed" in line:
                kinds.append("beyond_ceiling")
        grown = memory() - self.before
        assert grown <= len(data) + ALLOWED, f"{grown} bytes for {len(data)}"
        return end, kinds, grown

    def live(self, numbers, writer):
        """Spend a child's life: try mutations, tell of each as it ends."""
        libc = ctypes.CDLL(None)
        libc.prctl(4, 0)  # PR_SET_DUMPABLE: a crash leaves no core file
        for whole in self.wholes:  # what every file costs is taken before measuring
            from featcache.store.reader import open_cache

            self.path.write_bytes(whole)
            open_cache(self.path).close()
        self.before = memory()
        limit = memory("VmSize") + CEILING
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends C code, too
        with os.fdopen(writer, "w", buffering=1) as pipe:
            for number in numbers:
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
                began = time.perf_counter()
                try:
                    end, kinds, grown = self.trial(number)
                except BaseException:
                    end, kinds, grown = traceback.format_exc(), [], 0
                told = [number, end, kinds, grown, time.perf_counter() - began]
                pipe.write(json.dumps(told) + "\n")

    def fork(self, numbers):
        """Try mutations in a child; return what it told and the signal it died of."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.live(numbers, writer)
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = [json.loads(line) for line in pipe]
        _, status = os.waitpid(child, 0)
        return told, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def run(self, count):
        """Try mutations 0 to count; a child that dies names the one it died of."""
        begin = 0
        while begin < count:
            end = min(begin + BATCH, count)
            told, _ = self.fork(range(begin, end))
            for outcome in told:
                self.note(*outcome)
            if begin + len(told) < end:
                self.note_death(begin, begin + len(told))
                told.append(None)
            begin += len(told)

    def note(self, number, end, kinds, grown, seconds):
        if end in {"opened", "refused"}:
            self.ends[end] += 1
        else:
            self.faults.append(f"mutation {number}: {end}")
        self.kinds.update(kinds)
        self.most, self.slowest = max(self.most, grown), max(self.slowest, seconds)

    def note_death(self, begin, number):
        told, died = self.fork(range(number, number + 1))
        if told:
            self.faults.append(f"mutation {number}: killed, only after {begin} ff.")
        else:
            self.faults.append(f"mutation {number}: {signal.strsignal(died)}")


def main():
    """Print one line of JSON; a file that broke a promise is in its ``faults``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), args.seed)
        fuzz.run(args.count)
    result = {
        "mutations": args.count,
        **fuzz.ends,
        "faults": fuzz.faults,
        "kinds": fuzz.kinds,
        "most_memory_mb": round(fuzz.most / 1e6, 1),
        "slowest_seconds": round(fuzz.slowest, 3),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(result))  # noqa: T201 - the result


@pytest.mark.skipif(sys.platform != "linux", reason="forks and limits are Linux's")
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(300, id="hundreds"),
        pytest.param(
            10_000, id="thousands", marks=[pytest.mark.slow, pytest.mark.timeout(900)]
        ),
    ],
)
def test_a_damaged_file_is_refused_or_whole(count):
    """No crash, hang, memory above its size + 200 MB, nor any wrong row."""
    words = ["-m", "tests.store.test_hostile_fuzz", "--count", str(count)]
    ran = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["faults"] == []
    assert result["opened"] + result["refused"] == count
    assert result["opened"] > count / 50
    assert result["refused"] > count / 2
    assert {kind.__name__ for kind in KINDS} <= set(result["kinds"])


if __name__ == "__main__":
    main()
