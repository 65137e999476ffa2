"""What training may use: memory and device. It changes seconds, hardly the result."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featcache.core.shares import Share

_ASSUMED = 4 << 30  # bytes, where the system does not tell
_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # what version 1 writes for it is near 2**63


@dataclass(frozen=True)
class Resources:
    """What training may use.

    Parameters
    ----------
    memory : int, optional
        Bytes that features may take. What is larger is read from the file in windows,
        once an epoch. Half of what is free without it.
    device : str
        ``cpu``; or where torch computes: ``cuda``, ``cuda:1``.
    part : Share, optional
        What this process does of it, where several train together.
    """

    memory: int | None = None
    device: str = "cpu"
    part: "Share | None" = None

    @property
    def share(self) -> "Share":
        """What this process does: all of it without a part."""
        from featcache.core.shares import ALONE  # numpy, for which --help cannot wait

        return self.part or ALONE

    def budget(self) -> int:
        """Return how many bytes the features may take.

        Returns
        -------
        int
            As asked for, else half of `available_memory`.
        """
        return available_memory() // 2 if self.memory is None else self.memory


def available_memory(proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> int:
    """Return how much memory this process could still take.

    Parameters
    ----------
    proc, cgroups : Path
        Where Linux tells.

    Returns
    -------
    int
        Bytes: the machine's, or what the tightest limit of the process's control
        groups leaves, if that is less. What only caches files counts as free.
    """
    try:
        free = _fields(proc / "meminfo")["MemAvailable"] << 10
    except (OSError, KeyError, ValueError):
        return _physical() // 2
    for folder, names in _groups(proc, cgroups):
        limit, used, cached = names
        try:
            top = int((folder / limit).read_text())
            held = int((folder / used).read_text())
            held -= _fields(folder / "memory.stat").get(cached, 0)
        except (OSError, ValueError):  # no such group; "max"
            continue
        if top < _NO_LIMIT:
            free = min(free, max(0, top - held))
    return free


def _groups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Return the process's groups and their parents, with the names of their files."""
    second = ("memory.max", "memory.current", "inactive_file")
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (cgroups / "memory", first) if controllers else (cgroups, second)
        # In a container the path may be the host's, and the group lies at the root.
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            yield folder, names
            if folder == root:
                break


def _fields(file: Path) -> dict[str, int]:
    """Read lines such as ``MemAvailable:  123 kB``."""
    words = (line.split() for line in file.read_text().splitlines())
    return {w[0].rstrip(":"): int(w[1]) for w in words if len(w) > 1}


def _physical() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2 * _ASSUMED
