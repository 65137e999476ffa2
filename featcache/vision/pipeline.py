"""The pipeline: blocks of image files to blocks of features, on threads.

Each worker reads, decodes, crops and forwards its own block; Pillow and torch let go
of the interpreter while they work, so decoding and forward passes of different
workers overlap and nothing is copied between processes.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

from featcache.core.blocks import Block
from featcache.core.clock import Clock
from featcache.core.heads import Floats
from featcache.core.locations import Location
from featcache.core.machine import cores
from featcache.core.specs import AugmentSpec, ViewSpec
from featcache.core.status import Status, UnusableImageError
from featcache.core.view_specs import TUTORIAL
from featcache.core.viewed import adopt
from featcache.vision.ahead import Read, reading
from featcache.vision.decode import read_file
from featcache.vision.forward import Embed
from featcache.vision.rows import BlockRows
from featcache.vision.viewer import Viewer
from featcache.vision.views import Pixels

Lookup = Callable[[bytes], Floats | None]
Decoding = Callable[[int], AbstractContextManager[None]]
EmbedFiles = Callable[[Sequence[bytes]], tuple[Floats, dict[int, UnusableImageError]]]
# Row, view, and its pixels, or a file that the device decodes.
Waiting = tuple[int, int, Pixels | bytes]

_PATIENCE = 30.0  # seconds in all for workers to stop, when one of them cannot


@dataclass(frozen=True)
class Extractor:
    """How one image file becomes one feature, or one for each of its views.

    Parameters
    ----------
    embed : callable
        From uint8 (b, h, w, 3) to float32 (b, D).
    view : ViewSpec
        The crop.
    batch_size : int
        Views in one forward pass, at most.
    pieces : mapping of str to str
        Which implementations are in use, and why one is not; for provenance.
    clock : Clock
        Hears how long each stage takes.
    device : str
        Where the network runs: ``cpu``, ``cuda`` or ``mps``.
    viewer : Viewer, optional
        From the bytes of an image to its views; Pillow alone without it.
    embed_files : callable, optional
        From files to features and reasons by row, where the device decodes.
    workers : int
        Threads that suit the device.
    augment : AugmentSpec
        How views beyond the first are drawn.
    """

    embed: Embed
    view: ViewSpec
    batch_size: int
    pieces: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    device: str = "cpu"
    viewer: Viewer | None = None
    embed_files: EmbedFiles | None = None
    workers: int = field(default_factory=cores)
    augment: AugmentSpec = TUTORIAL

    def fill(
        self,
        rows: BlockRows,
        files: Sequence[Location],
        *,
        lookup: Lookup = lambda _: None,
        alive: Callable[[], None] = lambda: None,
        decoding: Decoding = lambda _: nullcontext(),
    ) -> None:
        """Compute the pending rows of a block.

        Parameters
        ----------
        rows : BlockRows
            Filled in place.
        files : sequence of Path or Member
            The image of each row.
        lookup : callable
            From an image's digest to its features as a row has them, where they are
            known already.
        alive : callable
            Called before each image; raises to stop the work.
        decoding : callable
            From a row to a context in which its bytes are decoded.
        """
        batch: list[Waiting] = []
        pending = np.flatnonzero(rows.status == Status.PENDING).tolist()
        with reading(read_file, [files[row] for row in pending]) as reads:
            for row in pending:
                alive()
                with self.clock.stage("read"):
                    read = next(reads)  # outside of decoding: a store may be slow
                with decoding(row):
                    views = self._views(rows, row, read, lookup)
                batch += [(row, view, pixels) for view, pixels in enumerate(views)]
                while len(batch) >= self.batch_size:
                    self._forward(rows, batch[: self.batch_size])
                    batch = batch[self.batch_size :]
        if batch:
            self._forward(rows, batch)

    def _views(
        self, rows: BlockRows, row: int, read: Read, lookup: Lookup
    ) -> Sequence[Pixels | bytes]:
        """Return what has to go through the network for a row: nothing or all."""
        count = int(rows.counts[row])
        try:
            with self.clock.stage("read"):
                data = read()
                digest = hashlib.sha256(data).digest()
            rows.digests[row] = np.frombuffer(digest, np.uint8)
            known = lookup(digest)
            if known is not None and adopt(rows.features[row], known, count):
                rows.status[row] = Status.OK
                return ()
            if self.embed_files is not None:  # FeatureSpec allows it one view alone
                return (data,)
            viewer = self.viewer or Viewer.plain(self.view)
            return viewer.several(data, self.clock, digest, count, self.augment)
        except UnusableImageError as error:
            rows.status[row] = error.status
            rows.reasons[row] = str(error)
            return ()

    def _forward(self, rows: BlockRows, batch: list[Waiting]) -> None:
        indices, views, waiting = map(list, zip(*batch, strict=True))
        reasons: dict[int, UnusableImageError] = {}
        with self.clock.stage("forward"):
            if self.embed_files is None:
                features = self.embed(np.stack(waiting))
            else:
                features, reasons = self.embed_files(waiting)
        with np.errstate(over="ignore"):  # the caller refuses what is not finite
            rows.views[indices, views] = features
        # Views come in order: with the last one of a row, all of them are there.
        done = [r for r, view, _ in batch if view + 1 == rows.counts[r]]
        rows.status[done] = Status.OK
        for at, reason in reasons.items():
            rows.status[indices[at]] = reason.status
            rows.reasons[indices[at]] = str(reason)
        rows.computed += len(done) - len(reasons)


class _StoppedError(Exception):
    """Another worker failed, or the user interrupted."""


def run_blocks(
    blocks: Iterable[Block],
    work: Callable[[Block, Callable[[], None]], None],
    workers: int,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Work through blocks on threads.

    Parameters
    ----------
    blocks : iterable of Block
        Taken one by one, as workers get free.
    work : callable
        Called with a block and an ``alive`` function that raises once the work is to
        stop.
    workers : int
        Number of threads.
    watch : callable
        Called several times a second; raises to give up, and then workers that do
        not stop within seconds are left behind.

    Raises
    ------
    Exception
        The first that a worker raised, or ``watch``; the others stop at their next
        image.
    KeyboardInterrupt
        After every worker has stopped.
    """
    crew = _Crew(iter(blocks), work)
    threads = [threading.Thread(target=crew.run, daemon=True) for _ in range(workers)]
    with one_core_each():
        try:
            for thread in threads:
                thread.start()
            _wait(threads, watch)
        except BaseException:
            crew.stop.set()
            for thread in threads:
                thread.join(_PATIENCE / len(threads))
            raise
    if crew.failures:
        raise crew.failures[0]


def _wait(
    threads: Iterable[threading.Thread], watch: Callable[[], None] = lambda: None
) -> None:
    for thread in threads:
        while thread.is_alive():
            watch()
            thread.join(0.2)  # a join without a limit cannot be interrupted on Windows


class _Crew:
    """Workers that share one queue of blocks and stop together."""

    def __init__(
        self,
        blocks: Iterator[Block],
        work: Callable[[Block, Callable[[], None]], None],
    ) -> None:
        self.stop = threading.Event()
        self.failures: list[BaseException] = []
        self._blocks = blocks
        self._work = work
        self._lock = threading.Lock()

    def run(self) -> None:
        """Take blocks until none is left or somebody stops; one thread's life."""
        try:
            while (block := self._take()) is not None:
                self._work(block, self._alive)
        except _StoppedError:
            pass
        except BaseException as error:
            self.failures.append(error)
            self.stop.set()

    def _take(self) -> Block | None:
        with self._lock:
            return None if self.stop.is_set() else next(self._blocks, None)

    def _alive(self) -> None:
        if self.stop.is_set():
            raise _StoppedError


@contextmanager
def one_core_each() -> Iterator[None]:
    """Give each new thread one core's worth of torch, and restore that afterwards.

    Measured: workers of one OpenMP thread each degrade linearly on a shared machine;
    two OpenMP threads in one network wait for each other and collapse.

    Yields
    ------
    None
        Threads started inside run torch on one core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
