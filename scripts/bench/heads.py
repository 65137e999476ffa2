"""Heads from features against the plain loop, side by side on the same numbers.

The plain loop is a DataLoader, ``nn.Linear``, ``CrossEntropyLoss`` and
``torch.optim.SGD``; ours is ``fit_sgd_many`` with one head and with sixteen. Each runs
on one core, they take turns, and the unit is samples (times heads) per second of
processor time, since other work may share the cores. Medians and their ratio are
printed, how far the weights of both lie apart, and how fast random rows come out of a
memory-mapped file.

    python scripts/bench/heads.py                 a minute or two
    python scripts/bench/heads.py --scale 1       the whole sizes; 10 GB of memory

Loading numba and compiling are not counted; they are printed by themselves.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from featcache.core.features import Features
from featcache.core.heads import LinearHead, initial_head
from featcache.core.seeds import epoch_order
from featcache.core.specs import SgdSpec, SweepSpec
from featcache.train import engines
from featcache.train.sgd import Fitted, fit_sgd_many

_SHORT = 0.02  # seconds


@dataclass(frozen=True)
class Case:
    """One size of problem."""

    name: str
    n: int  # samples
    dim: int
    classes: int
    batch_size: int
    epochs: int
    scaled: bool = True  # whether --scale changes n

    def features(self, scale: float) -> Features:
        """Return random features around one centre per class."""
        random = np.random.default_rng(0)
        n = max(self.batch_size, int(self.n * scale)) if self.scaled else self.n
        y = random.integers(0, self.classes, n).astype(np.int32)
        X = random.standard_normal((n, self.dim), dtype=np.float32)
        X += random.standard_normal((self.classes, self.dim), dtype=np.float32)[y] / 8
        return Features(X, y, np.arange(n))

    def spec(self) -> SgdSpec:
        """Return the settings of one head."""
        return SgdSpec(epochs=self.epochs, batch_size=self.batch_size)


CASES = (
    Case("small 244x512x2 b4", 244, 512, 2, 4, 25, scaled=False),
    Case("middle 50kx2048x10 b256", 50_000, 2048, 10, 256, 1),
    Case("large 200kx2048x100 b256", 200_000, 2048, 100, 256, 1),
)


def plain_loop(train: Features, classes: int, spec: SgdSpec) -> LinearHead:
    """Train as the tutorial does, on the order that ours takes."""
    start = initial_head(classes, train.X.shape[1], seed=spec.seed)
    linear = nn.Linear(train.X.shape[1], classes)
    linear.load_state_dict(
        {"weight": torch.tensor(start.weight), "bias": torch.tensor(start.bias)}
    )
    optimizer = torch.optim.SGD(linear.parameters(), lr=spec.lr, momentum=spec.momentum)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, spec.step_size, spec.gamma)
    criterion = nn.CrossEntropyLoss()
    data = TensorDataset(torch.from_numpy(train.X), torch.from_numpy(train.y).long())
    for epoch in range(spec.epochs):
        order = epoch_order(len(train), seed=spec.seed, epoch=epoch)
        loader = DataLoader(data, batch_size=spec.batch_size, sampler=order.tolist())
        for X, y in loader:
            optimizer.zero_grad()
            loss = criterion(linear(X), y)
            loss.backward()
            optimizer.step()
        scheduler.step()
    weight, bias = (p.detach().numpy() for p in linear.parameters())
    return LinearHead(weight, bias)


def ours(train: Features, classes: int, specs: list[SgdSpec]) -> LinearHead:
    """Train all heads in one pass; return the first."""
    first = fit_sgd_many(train, None, classes=classes, specs=specs)[0]
    assert isinstance(first, Fitted)
    return first.head


def timed(
    work: Callable[[], LinearHead], kept: dict[str, LinearHead], name: str
) -> float:
    """Return the processor's seconds; what takes milliseconds is done ten times."""
    gc.collect()
    gc.freeze()  # what numba has loaded would be searched through in either's time
    began = time.process_time()
    kept[name] = work()
    once = time.process_time() - began
    if once > _SHORT:
        return once
    began = time.process_time()
    for _ in range(10):
        work()
    return (time.process_time() - began) / 10


def compare(case: Case, scale: float, repeats: int) -> dict[str, object]:
    """Measure one case; the sides take turns."""
    train, spec = case.features(scale), case.spec()
    specs = [replace(spec, lr=spec.lr * 1.1**i) for i in range(16)]
    sides: dict[str, Callable[[], LinearHead]] = {
        "plain": lambda: plain_loop(train, case.classes, spec),
        "one": lambda: ours(train, case.classes, [spec]),
        "sixteen": lambda: ours(train, case.classes, specs),
    }
    heads: dict[str, LinearHead] = {}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, work in sides.items():
            took = timed(work, heads, name)
            if turn:  # the first one warms up
                seconds[name].append(took)
    samples = len(train) * case.epochs
    scale_of = {"plain": 1, "one": 1, "sixteen": 16}
    rates = {
        name: samples * scale_of[name] / statistics.median(s)
        for name, s in seconds.items()
    }
    plain = heads["plain"].weight
    apart = {n: np.abs(heads[n].weight - plain).max() for n in ("one", "sixteen")}
    return {
        "case": case.name,
        "samples": len(train),
        **{f"{name}_per_second": round(rate) for name, rate in rates.items()},
        "one_ratio": rates["one"] / rates["plain"],
        "sixteen_ratio": rates["sixteen"] / rates["plain"],
        "weights_differ": float(max(apart.values()) / np.abs(plain).max()),
    }


def compiled(*, wanted: bool) -> float:
    """Have heads trained with numba or without; return the seconds to load it."""
    engines._LOADING_SECONDS = 0.0 if wanted else float("inf")  # noqa: SLF001
    if not wanted:
        sys.modules.pop("featcache.train.kernels", None)
    began = time.perf_counter()
    ours(CASES[0].features(1), 2, [SgdSpec(epochs=1)])
    return time.perf_counter() - began


def random_rows(folder: str) -> float:
    """Return GB/s of random rows of 8 KB from a mapped file, its pages in memory."""
    n, dim = 50_000, 2048
    file = Path(folder) / "features"
    X = np.memmap(file, np.float32, "w+", shape=(n, dim))
    X[:] = 1
    out = np.empty((256, dim), np.float32)
    order = np.random.default_rng(0).permutation(n)[: n - n % 256].reshape(-1, 256)
    rates = []
    for _ in range(5):
        began = time.process_time()
        for rows in order:
            np.take(X, rows, axis=0, out=out, mode="clip")
        rates.append(order.size * dim * 4 / (time.process_time() - began) / 1e9)
    return statistics.median(rates)


def sweep_seconds() -> float:
    """Return the processor's seconds of the default grid on ants-and-bees sizes."""
    train = CASES[0].features(1)
    val = Features(train.X[:153], train.y[:153], train.sample_index[:153])
    began = time.process_time()
    fit_sgd_many(train, val, classes=2, specs=SweepSpec.wide().specs())
    return time.process_time() - began


def main() -> None:
    """Print one line per case, then everything as one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=0.1, help="share of the samples")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engine", choices=["numpy", "numba", "both"], default="both")
    options = parser.parse_args()
    torch.set_num_threads(1)
    engines = ["numpy", "numba"] if options.engine == "both" else [options.engine]
    results: list[dict[str, object]] = []
    with threadpool_limits(1):
        print(
            f"{'case':26}{'engine':8}{'plain/s':>10}{'one/s':>11}{'ratio':>8}"
            f"{'16 heads/s':>12}{'ratio':>8}{'differ':>10}"
        )
        for engine in engines:
            loading = compiled(wanted=engine == "numba")
            for case in CASES:
                row = compare(case, options.scale, options.repeats)
                results.append({"engine": engine, **row})
                print(
                    f"{case.name:26}{engine:8}{row['plain_per_second']:10,}"
                    f"{row['one_per_second']:11,}{row['one_ratio']:8.1f}"
                    f"{row['sixteen_per_second']:12,}{row['sixteen_ratio']:8.1f}"
                    f"{row['weights_differ']:10.1e}"
                )
            swept = sweep_seconds()
            results.append({"engine": engine, "sweep_s": swept, "loading_s": loading})
            print(f"54 small heads: {swept:.2f} s ({engine}, loading: {loading:.1f} s)")
        with tempfile.TemporaryDirectory() as folder:
            rate = random_rows(folder)
    print(f"random rows: {rate:.1f} GB/s")
    print(json.dumps({"results": results, "random_rows_gb_per_s": round(rate, 1)}))


if __name__ == "__main__":
    main()
