"""Kill a process that writes checkpoints, again and again, and read what it left.

``python -m tests.store.checkpoint_kills FOLDER COUNT`` prints one line of JSON.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from featcache.store.checkpoints import read_checkpoint, save_checkpoint


def state(number: int) -> dict[str, np.ndarray]:
    """Return tensors that only one state has."""
    return {
        "weight": np.full((50, 100), number, np.float32),
        "step": np.array(number, np.int64),
    }


def write_from(number: int, folder: Path) -> None:
    """Write one state after the other, until killed."""
    while True:
        number += 1
        save_checkpoint(folder, state(number), {"epochs": number})


def found(folder: Path) -> int:
    """Return the number of the state that is there, which must be whole."""
    checkpoint = read_checkpoint(folder)
    if checkpoint is None:
        return 0
    number = checkpoint.about["epochs"]
    for name, expected in state(number).items():
        np.testing.assert_array_equal(checkpoint.tensors[name], expected)
    return number


def lives(folder: Path, count: int) -> Iterator[tuple[int, int]]:
    """Kill a writer so often; give what was there before and after its life."""
    draw = random.Random(0)
    began = time.perf_counter()
    save_checkpoint(folder, state(1), {"epochs": 1})
    longest = max(0.02, 6 * (time.perf_counter() - began))  # on a slow disk, too
    before = 1
    for _ in range(count):
        child = os.fork()
        if child == 0:
            write_from(before, folder)
        time.sleep(draw.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        after = found(folder)
        yield before, after
        before = after


def main() -> None:
    """Print what was found, and what lay around."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    pairs, most = [], 0
    for pair in lives(folder, count):
        pairs.append(pair)
        most = max(most, len(list(folder.iterdir())))
    save_checkpoint(folder, state(0), {"epochs": 0})
    left = sorted(file.name for file in folder.iterdir())
    sys.stdout.write(json.dumps({"pairs": pairs, "most": most, "left": left}) + "\n")


if __name__ == "__main__":
    main()
