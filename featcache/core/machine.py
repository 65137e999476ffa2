"""The machine: how many cores this process may use."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from featcache.core.errors import TrainingError

# Set in the process that works for `featcache extract`: the name of a file in which it
# writes down where its ledger of images in work lies.
CHILD = "FEATCACHE_CHILD"

# What torchrun tells each of the processes that train together.
_RANK_WORDS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

# Of glibc (mallopt(3)): the network's activations come from memory that is kept, not
# from the kernel anew for each batch, whose page faults took 4 % of the processor time
# with ResNet-50. One arena, since the others hold at most 64 MiB.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the largest that glibc accepts
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}

_PR_SET_PDEATHSIG = 1  # of Linux' prctl(2)


def cores() -> int:
    """Return how many cores this process may use.

    Returns
    -------
    int
        At least 1; what a container or ``taskset`` allows, where the system tells.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def among_ranks() -> bool:
    """Tell whether this process is one of several that train together.

    Returns
    -------
    bool
        As torchrun says in the environment.
    """
    return os.environ.get("WORLD_SIZE", "1") != "1"


def place_among_ranks() -> tuple[int, int, int, int] | None:
    """Return this process's place among those that train together.

    Returns
    -------
    (int, int, int, int) or None
        Rank, count, and both on this machine alone, as torchrun says; None for a
        process on its own.

    Raises
    ------
    TrainingError
        When the environment says it in part, or what cannot be.
    """
    if not among_ranks():
        return None
    said = {word: os.environ.get(word) for word in _RANK_WORDS}
    try:
        rank, count, local_rank, local_count = (int(said[w] or "") for w in _RANK_WORDS)
        if not (0 <= rank < count and 0 <= local_rank < local_count <= count):
            raise ValueError
    except ValueError:
        found = ", ".join(f"{w}={v or ''}" for w, v in said.items())
        raise TrainingError(
            f"the environment says {found}, which is no place among processes that "
            "train together; start them with 'torchrun --nproc-per-node K -m featcache "
            "finetune ...', or unset WORLD_SIZE to train in one"
        ) from None
    return rank, count, local_rank, local_count


def connected_mark(note: Path) -> Path:
    """Return the file that is there while a child is connected to a Ray cluster.

    Ray ends processes whose cluster is gone, without a word to them.

    Parameters
    ----------
    note : Path
        As `CHILD` names it in the child's environment.

    Returns
    -------
    Path
        Beside it.
    """
    return note.with_name(f"{note.name}-connected")


def end_now(code: int) -> NoReturn:
    """End this process without the destructors of native thread pools.

    Some abort now and then, which makes a failure of work that is done.

    Parameters
    ----------
    code : int
        The exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have this process end when the thread that started it is killed, on Linux.

    Parameters
    ----------
    number : int
        The signal that ends it.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
