"""What several processes of one training do in the tests of them, and one alone.

As a program it is one of the processes: ``several_ranks.py ACTION FILE``, with the
environment that torchrun makes; ``several_ranks.py alone DEVICE`` is one without.
"""

import copy
import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy

from featcache.core.errors import BadImage, BadImagesError, FeatcacheError
from featcache.core.machine import end_now
from featcache.train.ranks import Ranks
from featcache.train.synced_norm import SyncedBatchNorm2d

SIZES = (8, 8, 7, 1, 5)  # of the batches of all: shares are uneven, one is empty


def small(*, drift: bool = False) -> nn.Sequential:
    """Return a network of two convolutions with BatchNorm."""
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    if drift:
        stem.requires_grad_(False)
    rest = nn.Sequential(nn.Conv2d(6, 9, 3), nn.BatchNorm2d(9), nn.ReLU())
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 4))
    return nn.Sequential(stem, rest, nn.MaxPool2d(2), end)


def head_only() -> nn.Sequential:
    """Return the small network, frozen but for its last layer."""
    model = small().eval()
    model[:3].requires_grad_(False)
    return model


def resnet() -> nn.Module:
    """Return a ResNet-18 for 4 classes."""
    from torchvision.models import resnet18

    return resnet18(num_classes=4).double()  # so deep that rounding errors explode


MODELS = {
    "small": small,
    "drift": lambda: small(drift=True),
    "head_only": head_only,
    "accumulated": small,
    "resnet": resnet,
}


def trained(name: str, ranks: Ranks) -> dict[str, np.ndarray]:
    """Train for some steps; return gradients of the first and the state at the end."""
    torch.manual_seed(len(name) + 100 * ranks.rank)  # the main process's weights count
    model, images = MODELS[name](), 32 if name == "resnet" else 12
    network = ranks.wrap(model)
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(chosen, lr=0.05, momentum=0.9, weight_decay=1e-3)
    random, found = np.random.default_rng(7), {}
    every = 2 if name == "accumulated" else 1
    sizes = (4, 3) if name == "resnet" else SIZES
    for step, size in enumerate(sizes):
        pixels = random.normal(size=(size, 3, images, images))
        labels = random.integers(4, size=size)
        own = slice(ranks.rank, None, ranks.count)
        inputs, targets = map(torch.from_numpy, (pixels[own], labels[own]))
        inputs = inputs.to(chosen[0].dtype)
        last = (step + 1) % every == 0 or step + 1 == len(sizes)
        with nullcontext() if last else ranks.no_sync(network):
            loss = cross_entropy(network(inputs), targets, reduction="sum")
            (loss * ranks.count / size / every).backward()
        if last:
            if not found:
                found = {f"gradient {i}": p.grad.clone() for i, p in enumerate(chosen)}
            optimizer.step()
            optimizer.zero_grad()
    return {k: v.numpy() for k, v in {**found, **model.state_dict()}.items()}


def norm_case(case: int) -> tuple[nn.BatchNorm2d, torch.Tensor, torch.Tensor]:
    """Return a BatchNorm, images, and gradients with respect to its output."""
    random = np.random.default_rng(case)
    shape = (int(random.integers(2, 7)), 5, *map(int, random.integers(2, 6, 2)))
    draw = [torch.from_numpy(random.normal(size=shape)).float() for _ in range(2)]
    if case % 2:
        draw = [t.to(memory_format=torch.channels_last) for t in draw]
    norm = nn.BatchNorm2d(5, momentum=None if case % 5 == 0 else 0.3)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.from_numpy(random.normal(size=5)))
    far = 30.0 * (case % 3)  # from 0: a difference of large sums would show
    return norm, draw[0] + far, draw[1]


def figures(
    norm: nn.BatchNorm2d, x: torch.Tensor, dy: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return all that a forward and a backward pass give, and the statistics."""
    norm = norm.to(x.device)
    norm(x + 1)  # so that the running statistics are followed twice
    inputs = x.clone().requires_grad_()
    outputs = norm(inputs)
    outputs.backward(dy)
    return {
        "output": outputs.detach(),
        "input's gradient": inputs.grad,
        "weight's gradient": norm.weight.grad,
        "bias's gradient": norm.bias.grad,
        "mean": norm.running_mean,
        "variance": norm.running_var,
        "batches": norm.num_batches_tracked,
    }


def norm_errors(ranks: Ranks, cases: int = 60) -> dict[str, float]:
    """Compare SyncedBatchNorm2d with torch's over the whole batch, on random cases.

    Returns the largest error of each figure, over its largest value.
    """
    worst: dict[str, float] = {}
    for case in range(cases):
        norm, x, dy = norm_case(case)
        # Any split will do, not only every K-th; in every fourth case one has all.
        owner = np.random.default_rng([case, 1]).integers(ranks.count, size=len(x))
        own = torch.from_numpy(owner * int(case % 4 > 0) == ranks.rank)
        found = figures(SyncedBatchNorm2d(copy.deepcopy(norm)), x[own], dy[own])
        for figure, whole in figures(norm, x, dy).items():
            got, expected = found[figure], whole
            if figure in ("output", "input's gradient"):
                expected = whole[own]
            elif "gradient" in figure:  # each has its part of the sum
                got = torch.tensor(ranks.sum(got.tolist()))
            error = float((got - expected).abs().max()) if got.numel() else 0.0
            size = max(float(whole.abs().max()), 1e-3)
            worst[figure] = max(worst.get(figure, 0.0), error / size)
    return worst


def norm_errors_alone(device: str) -> float:
    """Compare on a device, as the only process; return the largest error in all."""
    backend = "nccl" if device == "cuda" else "gloo"
    store = distributed.HashStore()
    distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    worst = 0.0
    for case in range(20):
        norm, x, dy = norm_case(3 * case)  # all near 0
        found, expected = (
            figures(n, x.to(device), dy.to(device))
            for n in (SyncedBatchNorm2d(copy.deepcopy(norm)), norm)
        )
        for figure, whole in expected.items():
            worst = max(worst, float((found[figure] - whole).abs().max()))
    return worst


def bfloat16_is_finite(ranks: Ranks) -> bool:
    """Train in bfloat16 on a batch of which one process has no image."""
    model = small()
    network = ranks.wrap(model)
    inputs = torch.full((1, 3, 12, 12), 2.0)[ranks.rank :: ranks.count]
    with torch.autocast("cpu", torch.bfloat16):
        scores = network(inputs)
    scores.float().sum().backward()
    return all(bool(p.grad.isfinite().all()) for p in model.parameters())


def spoken(ranks: Ranks) -> dict[str, object]:
    """Say what the processes tell each other."""
    rows = np.arange(10)[ranks.rank :: ranks.count]
    gathered = ranks.gather(np.stack([rows, rows**2], 1)[: 5 - 2 * ranks.rank])
    none = ranks.gather(np.zeros((0, 3), np.float32))
    return {
        "sum": ranks.sum([0.1 * (ranks.rank + 1), 1e300, 2**40]),
        "gathered": [part.tolist() for part in gathered],
        "none": [[str(part.dtype), *part.shape] for part in none],
        "told": ranks.told({"folder": "runs/caf\udce9", "n": None, "by": ranks.rank}),
        "main": ranks.main,
    }


def failed_together(ranks: Ranks) -> list[list[str]]:
    """Fail in the second process, in both, and in none; return what was raised."""
    heard = []
    for who in ((1,), (0, 1), ()):
        try:
            with ranks.agreeing():
                if ranks.rank in who:
                    words = f"process {ranks.rank} found one"
                    raise BadImagesError(words, [BadImage("a.jpg", "truncated")])
            heard.append(["nothing", ""])
        except FeatcacheError as error:
            heard.append([type(error).__name__, str(error)])
    return heard


def main_was_first(ranks: Ranks, file: Path) -> bool:
    """Tell whether the main process had done its work when this one began."""
    with ranks.main_first():
        if ranks.main:
            time.sleep(0.2)
            file.with_suffix(".fetched").touch()
        return file.with_suffix(".fetched").exists()


def everything(ranks: Ranks, file: Path) -> None:
    """Write down what this process found, for the tests to look at."""
    arrays = {
        f"{name}/{key}": array
        for name in MODELS
        for key, array in trained(name, ranks).items()
    }
    np.savez(file.with_suffix(f".{ranks.rank}.npz"), **arrays)
    found = {
        "place": [ranks.rank, ranks.count, str(ranks.device)],
        "norm_errors": norm_errors(ranks),
        "bfloat16_is_finite": bfloat16_is_finite(ranks),
        "spoken": spoken(ranks),
        "failed_together": failed_together(ranks),
        "main_was_first": main_was_first(ranks, file),
    }
    file.with_suffix(f".{ranks.rank}.json").write_text(json.dumps(found))


def one_fails(ranks: Ranks, file: Path) -> None:
    """Have one process fail while the other waits for it in a backward pass."""
    network = ranks.wrap(small())
    for step in range(100):
        if ranks.rank == 1 and step == 2:
            raise BadImagesError("a.jpg is truncated", [])
        network(torch.ones(2, 3, 12, 12)).sum().backward()


def one_dies(ranks: Ranks, file: Path) -> None:
    """Have one process be killed while the other waits for it."""
    if ranks.rank == 1:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.barrier()


def nothing(ranks: Ranks, file: Path) -> None:
    """Only meet and part."""
    ranks.barrier()


ACTIONS = {a.__name__: a for a in (everything, one_fails, one_dies, nothing)}


def main() -> None:
    """Be one of the processes, as the command line is."""
    torch.set_num_threads(1)
    if sys.argv[1] == "alone":
        sys.stdout.write(f"{norm_errors_alone(sys.argv[2])}\n")
        end_now(0)
    try:
        with Ranks.joined("cpu") as ranks:
            ACTIONS[sys.argv[1]](ranks, Path(sys.argv[2]))
    except FeatcacheError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        end_now(1)
    end_now(0)


if __name__ == "__main__":
    main()
