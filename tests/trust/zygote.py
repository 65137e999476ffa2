"""A process to fork extractions from: all is imported, the network is replaced.

A fork costs milliseconds where a new process costs seconds of imports, so hundreds of
real extractions can be killed. Start it with one thread (``OMP_NUM_THREADS=1`` and
``OPENBLAS_NUM_THREADS=1``): a fork copies no other.
"""

import gc
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
COLUMNS = ("features", "labels", "splits", "paths", "digests", "status", "classes")
BLOCK_ROWS = 8  # of every cache below 512 rows


def proof(name: str, **options: Any) -> dict[str, Any]:
    """Run ``tests.trust.NAME`` in a process of one thread; return what it reports."""
    words = [w for k, v in options.items() for w in (f"--{k}", str(v))]
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.trust.{name}", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Outcome:
    """How a forked extraction ended: ``ok``, ``error``, ``killed`` or ``broken``."""

    state: str
    value: Any = None  # what was returned; kind and text of an error


def sampled_pixels(pixels: np.ndarray) -> np.ndarray:
    """Stand in for a network: the feature is 512 pixels of the view."""
    return pixels.reshape(len(pixels), -1)[:, ::294].astype(np.float32)


sampled_pixels.description = "sampled pixels"


class Zygote:
    """Holds what forked extractions share; ``decoded`` counts their images."""

    def __init__(self) -> None:
        shared = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        self._shared, self._lock = shared, threading.Lock()
        self._replace_network()
        gc.collect()
        gc.freeze()  # a collection in a child would copy every page

    def _replace_network(self) -> None:
        import torch

        # Imported before any fork, which would spend its time on that.
        from featcache.stages import engines, extraction, filling  # noqa: F401
        from featcache.stages.sources import find_weights
        from featcache.vision import backbones, forward, weights
        from featcache.vision.viewer import Viewer

        torch.set_num_threads(1)
        state = find_weights("resnet18", "random:0").load()
        digest = weights.state_sha256(state)
        backbones.random_weights = lambda *_: state
        backbones.Backbone = lambda *_: None
        weights.state_sha256 = lambda _: digest
        forward.embedder = lambda *_, **__: sampled_pixels
        decode = Viewer.__call__

        def counted(*args):
            with self._lock:
                self._shared[0] += 1
            return decode(*args)

        Viewer.__call__ = counted

    @property
    def decoded(self) -> int:
        """Images that the last fork began to decode, killed or not."""
        return int(self._shared[0])

    def extract(self, data: Path, cache: Path, workers: int = 1) -> None:
        """Extract, here or in a fork."""
        import featcache
        from featcache.core.specs import ExtractSpec

        featcache.extract(
            data, ExtractSpec(workers=workers), weights="random:0", cache=cache
        )

    def fork(
        self,
        action: Callable[[], Any],
        kill_after: float | None = None,
        once_decoded: int = 0,
    ) -> Outcome:
        """Run an action in a child, SIGKILL it, tell its end.

        The seconds count from when so many images have begun to be decoded; a child
        that ends before is not killed.
        """
        self._shared[0] = 0
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _live(action, writer)
        os.close(writer)
        if kill_after is not None:
            while self.decoded < once_decoded and not _ended(child):
                time.sleep(0.0005)
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            ended = "killed" if number == signal.SIGKILL else "broken"
            return Outcome(ended, f"signal {number}")
        return Outcome(*json.loads(text))


def _ended(child: int) -> bool:
    """Tell whether a child has ended; it can still be waited for."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, child, flags) is not None


def _live(action: Callable[[], Any], writer: int) -> None:
    """Spend a child's life."""
    from featcache.core.errors import FeatcacheError

    write, leave = os.write, os._exit
    try:
        told = ["ok", action()]
    except FeatcacheError as error:
        told = ["error", [type(error).__name__, str(error)]]
    except BaseException:
        told = ["broken", traceback.format_exc()]
    write(writer, json.dumps(told).encode()[:60_000])
    leave(0)


def contents(cache: Path) -> dict[str, bytes]:
    """Return what a cache holds, after checking every digest of it."""
    from featcache.store.reader import open_cache

    with open_cache(cache) as opened:
        opened.check()
        return {name: opened.columns[name].tobytes() for name in COLUMNS}


def make_folder(root: Path, images: int, left_out: int) -> tuple[Path, Path]:
    """Make a folder of images, and its earlier state with some of them left out."""
    import shutil

    from tests.conftest import picture

    now, before = root / "photos", root / "before"
    for number in range(images):
        folder = now / "train" / ("ants", "bees")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{number:04d}.{'png' if number % 3 else 'jpg'}"
        picture(number, (number % 200, 100, 50), (40, 30)).save(path)
    shutil.copytree(now, before)
    step = images // left_out
    for number in range(0, left_out * step, step):
        next(before.rglob(f"{number:04d}.*")).unlink()
    return now, before
