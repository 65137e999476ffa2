"""SGD on a file of features larger than the memory that it is given.

Writes a file of random features, sorted by class as a cache is, and trains on it twice:
in windows, in a process of its own whose memory is watched, and shuffled as a whole.
Printed are the rates of the windows' epochs (the first one with no page of the file in
memory), next to what the same disk gives when the file is read from front to back, and
to what the same steps reach on features in memory: the lower one is the limit.

    python scripts/bench/larger.py                          2 GB, a minute or two
    python scripts/bench/larger.py --size 20G --memory 4G   as far as the disk goes
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from featcache.core.features import Features, StoredFeatures
from featcache.core.heads import initial_head
from featcache.core.resources import Resources
from featcache.core.specs import SgdSpec
from featcache.store.rows import FileRows
from featcache.train.heads import Heads
from featcache.train.sgd import fit_sgd
from featcache.train.standardize import Scaling
from featcache.train.steps import NumpyEpochs
from featcache.train.windows import plan_windows

_BLOCK = 8 << 20  # bytes
_JUDGED = 10_000


def size(text: str) -> int:
    """Return bytes of a number such as 4G."""
    found = re.fullmatch(r"([\d.]+)([MG])", text)
    if not found:
        raise argparse.ArgumentTypeError("expected a size such as 600M or 4G")
    return int(float(found[1]) * {"M": 1e6, "G": 1e9}[found[2]])


def rows_of(y: np.ndarray, dim: int, classes: int, seed: int) -> np.ndarray:
    """Return features around one centre per class."""
    centres = np.random.default_rng(7).standard_normal((classes, dim), np.float32)
    X = np.random.default_rng(seed).standard_normal((len(y), dim), np.float32)
    X += centres[y] * np.float32(2.5 / dim**0.5)
    return X


def write(file: Path, n: int, dim: int, classes: int) -> None:
    """Write n rows, class after class."""
    with file.open("wb") as out:
        for start in range(0, n, 8192):
            y = np.arange(start, min(start + 8192, n)) * classes // n
            out.write(rows_of(y, dim, classes, start + 1).data)
        out.flush()
        os.fsync(out.fileno())


def stored(file: Path, dim: int, classes: int) -> StoredFeatures:
    """Return the features in a file as a cache would."""
    X = np.memmap(file, np.float32, "r").reshape(-1, dim)
    n = len(X)
    y = (np.arange(n) * classes // n).astype(np.int32)
    with file.open("rb") as opened:
        source = FileRows(file, opened.fileno(), 0, X)
    return StoredFeatures(source, y, np.arange(n))


def forget(file: Path) -> None:
    """Have no page of a file in memory."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_rate(file: Path) -> float:
    """Return GB/s of reading a file from front to back."""
    forget(file)
    buffer, total = bytearray(_BLOCK), 0
    began = time.perf_counter()
    with file.open("rb", buffering=0) as opened:
        while count := opened.readinto(buffer):
            total += count
    return total / (time.perf_counter() - began) / 1e9


def step_rate(train: Features, classes: int, spec: SgdSpec) -> float:
    """Return GB/s of the same steps on features in memory."""
    n = min(len(train), 50 * spec.batch_size)
    X = np.empty((n, train.embed_dim), train.dtype)
    train.read(0, X)
    heads = Heads(initial_head(classes, train.embed_dim, seed=0), [spec])
    epochs = NumpyEpochs(heads, Scaling(), spec.batch_size)
    epochs.load(X, train.y[:n])
    order, best = np.random.default_rng(0).permutation(n), float("inf")
    with threadpool_limits(1):  # as such small products are computed
        for _ in range(5):
            began = time.perf_counter()
            epochs.run(order, heads.lr(0))
            best = min(best, time.perf_counter() - began)
    return X.nbytes / best / 1e9


def fit(options: argparse.Namespace, memory: int) -> dict[str, object]:
    """Train, and tell accuracy, seconds and the process's peak memory."""
    train = stored(options.file, options.dim, options.classes)
    y = (np.arange(_JUDGED) % options.classes).astype(np.int32)
    val = Features(rows_of(y, options.dim, options.classes, 0), y, np.arange(_JUDGED))
    spec = SgdSpec(
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        step_size=max(1, options.epochs - 1),
    )
    before = peak()
    fitted = fit_sgd(
        train,
        val,
        classes=options.classes,
        spec=spec,
        resources=Resources(memory=memory),
    )
    last = fitted.history[-1]
    return {
        "seconds": [round(r.seconds, 2) for r in fitted.history],
        "val_accuracy": last.val_accuracy,
        "val_loss": last.val_loss,
        "peak_mb": round(peak() / 1e6),
        "before_mb": round(before / 1e6),
        "notes": fitted.notes,
    }


def peak() -> int:
    """Return the most memory that this process had so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) << 10 if found else 0


def apart(options: argparse.Namespace, memory: int) -> dict[str, object]:
    """Train in a process of its own."""
    forget(options.file)
    arguments = [*sys.argv[1:], "--file", options.file, "--fit", str(memory)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    result: dict[str, object] = json.loads(done.stdout)
    return result


def compare(options: argparse.Namespace) -> None:
    """Print the rates, the accuracies and the memory."""
    n = options.size // (4 * options.dim)
    write(options.file, n, options.dim, options.classes)
    train = stored(options.file, options.dim, options.classes)
    spec = SgdSpec(batch_size=options.batch_size)
    plan = plan_windows(
        train,
        classes=options.classes,
        batch_size=options.batch_size,
        memory=options.memory,
    )
    # Other work on the machine changes the disk's rate by the minute: before and after.
    rates = [disk_rate(options.file)]
    steps = step_rate(train, options.classes, spec)
    windows = apart(options, options.memory)
    rates.append(disk_rate(options.file))
    disk = sum(rates) / 2
    limit = min(disk, steps)
    print(f"{n} x {options.dim} x {options.classes}, {plan}")
    told = " and ".join(f"{rate:.2f}" for rate in rates)
    print(f"disk {told} GB/s, steps in memory {steps:.2f} GB/s")
    results: dict[str, object] = {"disk": disk, "steps": steps}
    for name, row in (("windows", windows), ("whole", apart(options, 1 << 60))):
        results[name] = row
        rates = [train.nbytes / s / 1e9 for s in row["seconds"]]
        told = ", ".join(f"{r:.2f} ({r / limit:.0%})" for r in rates)
        print(f"{name:8} GB/s by epoch (of the limit): {told}")
        print(
            f"{'':8} accuracy {row['val_accuracy']:.4f}, loss {row['val_loss']:.4f}, "
            f"peak {row['peak_mb']} MB ({row['before_mb']} before)"
        )
    print(json.dumps(results))


def main() -> None:
    """Compare, or be the process that trains."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=size, default=size("2G"))
    parser.add_argument("--memory", type=size, default=size("400M"))
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--folder", type=Path, help="where the file is written")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fit", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit(options, options.fit)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        options.file = Path(folder) / "features"
        compare(options)


if __name__ == "__main__":
    main()
