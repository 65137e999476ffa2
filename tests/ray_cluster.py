"""A Ray cluster of several nodes on this machine, for tests; nodes can be killed."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

OBJECT_STORE = 100_000_000  # bytes a node
QUIET = {
    "RAY_AUTH_MODE": "disabled",  # else it depends on files in the home folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning of what will change
}


class RayCluster:
    """Nodes with raylets, object stores and logical CPUs of their own.

    Node 0 is the head, where drivers connect; it goes when the cluster is closed.
    """

    def __init__(self, cluster: Any, cpus: float, folder: Path) -> None:
        self._cluster = cluster
        self._cpus = cpus
        self._folder = folder
        self._nodes: list[Any] = []
        self.add_node()

    @property
    def address(self) -> str:
        """What ``ray.init(address=...)`` takes."""
        return str(self._cluster.address)

    def add_node(self, cpus: float | None = None) -> int:
        """Start another node, wait until it is alive, and return its number."""
        head = {"include_dashboard": False, "temp_dir": str(self._folder)}
        node = self._cluster.add_node(
            num_cpus=self._cpus if cpus is None else cpus,
            object_store_memory=OBJECT_STORE,
            **({} if self._nodes else head),
        )
        self._nodes.append(node)
        return len(self._nodes) - 1

    def node_id(self, i: int) -> str:
        """Return what ``ray.nodes()`` and a task's context call a node."""
        return str(self._nodes[i].node_id)

    def workers(self, i: int) -> list[int]:
        """Return the processes of a node's workers, idle ones and actors."""
        return [pid for pid in descendants(self._services(i)) if is_worker(pid)]

    def kill_node(self, i: int) -> None:
        """Kill a node at once: its raylet and all workers, by SIGKILL."""
        if i == 0:
            raise ValueError("node 0 is the head; close the cluster instead")
        # The raylet first, or it would start new workers.
        raylet = self._services(i)
        kill([*raylet, *descendants(raylet)])
        self._cluster.remove_node(self._nodes[i], allow_graceful=False)

    def close(self) -> None:
        """Stop all nodes and wait until no process of theirs is left."""
        mine = [pid for i in range(len(self._nodes)) for pid in self._services(i)]
        mine += descendants(mine)
        with suppress(Exception):  # whatever is left is killed
            self._cluster.shutdown()
        kill(mine)
        gone(mine)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _services(self, i: int) -> list[int]:
        return [process.pid for _, process in self._nodes[i].live_processes()]


def descendants(pids: Iterable[int]) -> list[int]:
    """Return the children of processes, their children, and so on."""
    found = []
    for pid in pids:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                children = [int(c) for c in (task / "children").read_text().split()]
                found += [*children, *descendants(children)]
    return found


def is_worker(pid: int) -> bool:
    """Return whether Ray calls a process a worker or an actor."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    return False


def kill(pids: Iterable[int]) -> None:
    """Kill processes by SIGKILL, those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def gone(pids: Iterable[int], timeout: float = 10) -> None:
    """Wait until processes are gone, or dead and not yet waited for."""
    end = time.monotonic() + timeout
    for pid in pids:
        while running(pid):
            if time.monotonic() > end:
                raise TimeoutError(f"process {pid} outlived the cluster")
            time.sleep(0.02)


def running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"


@contextmanager
def cluster(nodes: int = 2, cpus: float = 1) -> Iterator[RayCluster]:
    """Start a cluster; a test that uses it is skipped where there is no Ray."""
    ray = pytest.importorskip("ray", reason="no Ray here: pip install 'featcache[ray]'")
    from ray.cluster_utils import Cluster

    # Sockets lie below it, whose paths may have 107 letters.
    folder = Path(tempfile.mkdtemp(prefix="fc", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        started = RayCluster(Cluster(), cpus, folder)
        try:
            for _ in range(nodes - 1):
                started.add_node()
            yield started
        finally:
            ray.shutdown()  # the driver in this process, if there is one
            started.close()
