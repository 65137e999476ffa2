"""Which settings change a feature's bits, and by how much.

The same views go through the network with combinations of batch size, torch threads,
workers and implementation; each is compared with the usual settings, and the
largest difference between any two of them is printed. An error is a row's largest
absolute difference over its largest absolute value, of the worst row.

    python scripts/bench/reproducibility.py --images FOLDER \
        --backbones resnet18 resnet50 --weights resnet18.pth resnet50.pth
"""

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch

from featcache.core.machine import cores
from featcache.core.specs import ViewSpec
from featcache.core.tolerances import relative_errors
from featcache.stages.sources import find_weights
from featcache.vision import forward
from featcache.vision.backbones import Backbone, network_of
from featcache.vision.decode import decode, read_file
from featcache.vision.forward import Embedder, embedder
from featcache.vision.fused import Unfusable
from featcache.vision.views import normalise, render
from featcache.vision.weights import State

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SIZES = (1, 3, 8, 16)
ENDINGS = (".jpg", ".jpeg", ".png")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """How features are computed; nothing here is to change what they are."""

    pack: int = 8  # batch size that the network is laid out for
    batch: int = 8  # views in one forward pass
    threads: int = 1  # of torch
    workers: int = 1  # threads that call the network at once
    network: str = "fused"  # or plain: torch's own modules, channels_last


USUAL = Setting()
CHANGES = {
    "the same again": USUAL,
    **{f"batches of {n}": replace(USUAL, pack=n, batch=n) for n in (1, 3, 16)},
    "batches of 3, laid out for 16": Setting(pack=16, batch=3),
    "batches of 16, laid out for 1": Setting(pack=1, batch=16),
    "2 workers at once": Setting(workers=2),
    "2 torch threads": Setting(threads=2),
    "2 torch threads, batches of 16": Setting(pack=16, batch=16, threads=2),
    "not fused (channels_last)": Setting(network="plain"),
    "not fused, batches of 1": Setting(network="plain", pack=1, batch=1),
    "not fused, 2 torch threads": Setting(network="plain", threads=2),
}
ALL = (
    *itertools.starmap(
        Setting, itertools.product(SIZES, SIZES, (1, 2), (1,), ("fused",))
    ),
    *(
        Setting(size, size, threads, 1, "plain")
        for size, threads in itertools.product(SIZES, (1, 2))
    ),
    *(Setting(size, size, 1, 2) for size in SIZES),
)


class Matrix:
    """One backbone, its views, and their features under any setting.

    Parameters
    ----------
    name : str
        Of the backbone.
    state : dict of str to tensor
        Its weights.
    view : ViewSpec
        Normalisation and crop.
    pixels : ndarray of uint8, shape (n, h, w, 3)
        The views.
    """

    def __init__(self, name: str, state: State, view: ViewSpec, pixels: Pixels) -> None:
        self.name, self.state, self.view, self.pixels = name, state, view, pixels
        self._networks: dict[tuple[str, int], Embedder] = {}
        self._found: dict[Setting, Floats] = {}

    def build(self, kind: str, pack: int) -> Embedder:
        """Return the network as `extract` makes it, or as it does without fusing."""
        backbone = Backbone(self.name, self.state)
        build = partial(embedder, backbone, self.view, device=CPU, precision="float32")
        if kind == "fused":
            return build(batch_size=pack)
        refusal = Unfusable("the benchmark asks for the plain network")
        with mock.patch.object(forward, "fuse", side_effect=refusal):
            return build(batch_size=pack)

    def network(self, kind: str, pack: int) -> Embedder:
        """Return the network of a setting, built once; a plain one has no layout."""
        key = kind, pack if kind == "fused" else 0
        if key not in self._networks:
            self._networks[key] = self.build(kind, pack)
        return self._networks[key]

    def compute(self, setting: Setting, network: Embedder) -> Floats:
        """Return the features (n, D) of every view."""
        parts = np.split(
            self.pixels, range(setting.batch, len(self.pixels), setting.batch)
        )
        with torch_threads(setting.threads):
            if setting.workers == 1:
                return np.concatenate([network(part) for part in parts])
            with ThreadPoolExecutor(setting.workers) as pool:
                return np.concatenate(list(pool.map(network, parts)))

    def features(self, setting: Setting) -> Floats:
        """Return the features under a setting, computed once."""
        if setting not in self._found:
            network = self.network(setting.network, setting.pack)
            self._found[setting] = self.compute(setting, network)
        return self._found[setting]

    def torchvision(self) -> Floats:
        """Return the features of torchvision's own forward, contiguous, one thread."""
        network = network_of(self.name, self.state).eval()
        images = torch.from_numpy(self.pixels).permute(0, 3, 1, 2)
        with torch_threads(1), torch.inference_mode():
            inputs = normalise(images, self.view).contiguous()
            return np.concatenate([network(part).numpy() for part in inputs.split(8)])

    def compared(self) -> Iterator[tuple[str, int, float]]:
        """Yield each change, the rows bit-equal to the usual ones, and the error."""
        usual = self.features(USUAL)
        again = self.compute(USUAL, self.build("fused", USUAL.pack))
        for name, setting in CHANGES.items():
            found = again if setting == USUAL else self.features(setting)
            yield name, equal_rows(found, usual), error(found, usual)
        found = self.torchvision()
        yield "torchvision's own network", equal_rows(found, usual), error(found, usual)

    def largest(self) -> float:
        """Return the largest error between any two of `ALL` and torchvision."""
        every = [*map(self.features, ALL), self.torchvision()]
        return max(itertools.starmap(error, itertools.combinations(every, 2)))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def equal_rows(found: Floats, expected: Floats) -> int:
    """Return how many rows have equal bytes."""
    pairs = zip(found, expected, strict=True)
    return sum(one.tobytes() == other.tobytes() for one, other in pairs)


def error(found: Floats, expected: Floats) -> float:
    """Return the largest error of a row, as ``featcache verify --sample`` has it."""
    return float(relative_errors(expected, found).max())


def views(folder: Path | None, count: int, view: ViewSpec) -> Pixels:
    """Return views (n, h, w, 3) of a folder's first images, or of random pixels."""
    if folder is None:
        random = np.random.default_rng(0)
        return random.integers(0, 256, (count, view.crop, view.crop, 3), np.uint8)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS)
    step = max(1, len(files) // count)  # from every class
    chosen = files[: step * count : step]
    return np.stack([render(decode(read_file(p), view), view) for p in chosen])


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--weights", nargs="+", default=["random:0"])
    parser.add_argument("--images", type=Path, help="a folder; random pixels without")
    parser.add_argument("--count", type=int, default=16, help="views")
    args = parser.parse_args()
    every = len(args.backbones) // len(args.weights)
    rows: dict[str, list[str]] = {}
    result: dict[str, object] = {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
    }
    for name, weights in zip(args.backbones, args.weights * every, strict=True):
        source = find_weights(name, weights)
        pixels = views(args.images, args.count, source.view)
        matrix = Matrix(name, source.load(), source.view, pixels)
        changes = list(matrix.compared())
        largest = matrix.largest()
        for change, equal, off in changes:
            rows.setdefault(change, []).append(
                f"{equal}/{len(pixels)} | {off:.1e}"
                if off
                else f"{equal}/{len(pixels)} | 0"
            )
        between = f"any two of {len(ALL) + 1} combinations"
        rows.setdefault(between, []).append(f"| {largest:.1e}")
        result[name] = {
            "weights": os.path.basename(weights),  # noqa: PTH119 - may be random:0
            "views": len(pixels),
            "changes": {change: [equal, off] for change, equal, off in changes},
            "largest_between_any_two": largest,
        }
    heads = [f"{name}: equal rows | error" for name in args.backbones]
    print("| change |", " | ".join(heads), "|")
    print("|---|" + "--:|--:|" * len(heads))
    for change, cells in rows.items():
        print(f"| {change} |", " | ".join(cells), "|")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
