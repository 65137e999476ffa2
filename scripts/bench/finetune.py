"""Fine-tuning against the tutorial's loop, epoch for epoch, side by side in one run.

The tutorial's loop is its own: ImageFolder with RandomResizedCrop and mirroring, a
DataLoader of worker processes, an eager contiguous float32 ResNet, SGD, a train and a
val phase in each epoch; head-only its frozen backbone stays in train(), runs without
gradients, and sees every image again in each epoch. Ours is ``featcache finetune``.
They take turns and medians are printed, with the ratio. The first epoch of each is told
apart: ours decodes every image before it, and remembers what it can.

    python scripts/bench/finetune.py FOLDER --weights resnet18.pth
    python scripts/bench/finetune.py FOLDER --weights resnet18.pth --only tutorial
    python scripts/bench/finetune.py FOLDER --device cuda --batch-size 64

The limit is the network alone: the same tensor again and again, forward, backward and
step, with the tutorial's layout and with channels_last. An epoch cannot be faster than
its training images at that rate, unless something is remembered instead of computed.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_RATE_SECONDS = 4.0  # that one measurement of the network alone takes


@dataclass(frozen=True)
class Mode:
    """What is trained, and in which precision."""

    name: str
    flag: str
    precision: str

    @property
    def full(self) -> bool:
        """Whether every layer is trained."""
        return self.flag == "--full"


MODES = (
    Mode("full float32", "--full", "float32"),
    Mode("full bfloat16", "--full", "bfloat16"),
    Mode("head-only float32", "--head-only", "float32"),
)


@dataclass
class Side:
    """Seconds per epoch of one side."""

    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)

    def add(self, seconds: list[float]) -> None:
        """Note the epochs of one turn."""
        self.first.append(seconds[0])
        self.later += seconds[1:]


class Tutorial:
    """The tutorial's loop; one object for all turns of a mode."""

    def __init__(self, options: argparse.Namespace, mode: Mode) -> None:
        self.device = torch.device(options.device)
        self.phases = phases(options)
        self.model = network(options, mode, len(self.phases["train"].dataset.classes))
        self.optimizer = sgd(self.model, mode)
        self.criterion = nn.CrossEntropyLoss()

    def epoch(self) -> float:
        """Train and measure once; return the seconds."""
        began = time.perf_counter()
        for phase, loader in self.phases.items():
            self.model.train(phase == "train")
            loss_sum, right = 0.0, 0
            for inputs, labels in loader:
                loss, found = self.step(phase, inputs, labels)
                loss_sum += loss * len(labels)
                right += found
        return time.perf_counter() - began

    def step(
        self, phase: str, inputs: torch.Tensor, labels: torch.Tensor
    ) -> tuple[float, int]:
        """Take one batch through; return its loss and how many were right."""
        inputs, labels = inputs.to(self.device), labels.to(self.device)
        self.optimizer.zero_grad()
        with torch.set_grad_enabled(phase == "train"):
            outputs = self.model(inputs)
            loss = self.criterion(outputs, labels)
            if phase == "train":
                loss.backward()
                self.optimizer.step()
        return loss.item(), int((outputs.argmax(1) == labels).sum())


def phases(options: argparse.Namespace) -> dict[str, DataLoader]:
    """Return the tutorial's loaders of train and val."""
    tail = [transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
    random = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    fixed = [transforms.Resize(256), transforms.CenterCrop(224)]
    return {
        phase: DataLoader(
            datasets.ImageFolder(
                str(options.data / phase), transforms.Compose([*steps, *tail])
            ),
            batch_size=options.batch_size,
            shuffle=True,
            num_workers=options.tutorial_workers,
        )
        for phase, steps in {"train": random, "val": fixed}.items()
    }


def network(options: argparse.Namespace, mode: Mode, classes: int) -> nn.Module:
    """Return the tutorial's network."""
    model = getattr(models, options.backbone)(weights=None)
    if options.weights:
        state = torch.load(options.weights, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    model.requires_grad_(mode.full)
    model.fc = nn.Linear(model.fc.in_features, classes)
    return model.to(options.device)


def sgd(model: nn.Module, mode: Mode) -> torch.optim.SGD:
    """Return the tutorial's optimizer."""
    trained = model if mode.full else model.fc
    return torch.optim.SGD(trained.parameters(), lr=0.001, momentum=0.9)


def ours(options: argparse.Namespace, mode: Mode) -> list[float]:
    """Run featcache once; return the seconds of its epochs."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *("finetune", str(options.data), mode.flag, "--json", "--out", folder),
            *("--backbone", options.backbone, "--device", options.device),
            *("--epochs", str(options.epochs + 1), "--precision", mode.precision),
            *("--batch-size", str(options.batch_size)),
            *("--weights", str(options.weights or "random:0")),
        ]
        subprocess.run(
            [sys.executable, "-m", "featcache", *words],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with (Path(folder) / "history.csv").open(encoding="utf-8") as file:
            return [float(row["seconds"]) for row in csv.DictReader(file)]


def rate(options: argparse.Namespace, mode: Mode, layout: torch.memory_format) -> float:
    """Return images per second of the network alone, on one tensor."""
    model = network(options, mode, 2).to(memory_format=layout).train()
    optimizer, criterion = sgd(model, mode), nn.CrossEntropyLoss()
    images = torch.rand(options.batch_size, 3, 224, 224, device=options.device)
    images = images.contiguous(memory_format=layout)
    labels = torch.arange(options.batch_size, device=options.device) % 2

    def step() -> None:
        optimizer.zero_grad()
        with cast(options, mode):
            loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()

    return options.batch_size / seconds_of(step, options.device)


def cast(options: argparse.Namespace, mode: Mode) -> AbstractContextManager[Any]:
    """Return what makes a network compute in a mode's precision."""
    if mode.precision == "float32":
        return nullcontext()
    return torch.autocast(options.device.split(":")[0], torch.bfloat16)


def seconds_of(step: Callable[[], None], device: str) -> float:
    """Return the median seconds of a step, after some that warm up."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for _ in range(3):
        step()
    wait()
    took, began = [], time.perf_counter()
    while time.perf_counter() - began < _RATE_SECONDS:
        start = time.perf_counter()
        step()
        wait()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def measure(options: argparse.Namespace, mode: Mode) -> dict[str, Any]:
    """Measure one mode; the sides take turns."""
    tutorial = Tutorial(options, mode)
    theirs, mine = Side(), Side()
    rates: dict[str, list[float]] = {"contiguous": [], "channels_last": []}
    for turn in range(options.turns):
        if options.only != "featcache":
            epochs = 1 if turn else 2  # the first warms up
            theirs.add([0.0, *(tutorial.epoch() for _ in range(epochs))][-2:])
        if options.only != "tutorial":
            mine.add(ours(options, mode))
        for name, found in rates.items():
            found.append(rate(options, mode, getattr(torch, LAYOUTS[name])))
    images = {name: len(x.dataset) for name, x in tutorial.phases.items()}
    return {
        "mode": mode.name,
        "images": images,
        "tutorial": median(theirs.later),
        "featcache": median(mine.later),
        "featcache_first": median(mine.first),
        "rates": {name: statistics.median(found) for name, found in rates.items()},
        "epochs": {"tutorial": theirs.later, "featcache": mine.later},
    }


LAYOUTS = {"contiguous": "contiguous_format", "channels_last": "channels_last"}


def median(seconds: list[float]) -> float | None:
    """Return the median, or None of nothing."""
    return statistics.median(seconds) if seconds else None


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    theirs, mine = row["tutorial"], row["featcache"]
    limit = row["images"]["train"] / max(row["rates"].values())
    cells = [
        f"{row['mode']:<18}",
        text(theirs, "9.2f"),
        text(mine, "10.2f"),
        text(theirs / mine if theirs and mine else None, "6.2f"),
        text(row["featcache_first"], "8.2f"),
        f"{row['rates']['contiguous']:11.1f}",
        f"{row['rates']['channels_last']:14.1f}",
        f"{limit:9.2f}",
        text(limit / mine if mine else None, "9.0%"),
    ]
    return "  ".join(cells)


def text(value: float | None, form: str) -> str:
    """Return a number, or a dash as wide."""
    if value is None:
        return f"{'-':>{form.partition('.')[0]}}"
    return f"{value:{form}}"


def main() -> None:
    """Print a line for each mode, then everything as one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--weights", type=Path, help=".pth file; random without it")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--tutorial-workers", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--epochs", type=int, default=2, help="of ours, after the first"
    )
    parser.add_argument("--modes", default=",".join(m.name for m in MODES))
    parser.add_argument("--only", choices=["tutorial", "featcache"])
    options = parser.parse_args()
    print(f"{options.backbone}, batch {options.batch_size}, {options.device}, seconds")
    print(
        f"{'per epoch':<18}   tutorial   featcache   ratio     first   contiguous/s"
        "  channels_last/s    limit    reached"
    )
    rows = []
    for mode in MODES:
        if mode.name in options.modes.split(","):
            rows.append(measure(options, mode))
            print(line(rows[-1]), flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
