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
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from featcache.core.blocks import Block
from featcache.core.clock import Clock
from featcache.core.heads import Floats
from featcache.core.machine import cores
from featcache.core.specs import ViewSpec
from featcache.core.status import Status, UnusableImageError
from featcache.vision.decode import read_file
from featcache.vision.forward import Embed
from featcache.vision.viewer import Viewer
from featcache.vision.views import Pixels

Lookup = Callable[[bytes], Floats | None]
Decoding = Callable[[int], AbstractContextManager[None]]
EmbedFiles = Callable[[Sequence[bytes]], tuple[Floats, dict[int, UnusableImageError]]]
Waiting = npt.NDArray[np.uint8] | bytes  # pixels, or a file that the device decodes

_PATIENCE = 30.0  # seconds in all for workers to stop, when one of them cannot


@dataclass
class BlockRows:
    """The rows of one block, filled in place.

    Parameters
    ----------
    features : ndarray of float32 or float16, shape (b, D)
        NaN in rows whose image cannot be used.
    digests : ndarray of uint8, shape (b, 32)
        sha256 of each image file; zeros where it could not be read.
    status : ndarray of uint8, shape (b,)
        `Status`; rows that are not PENDING are left as they are.
    reasons : dict of int to str
        Why a row of the block could not be used.
    computed : int
        How many images went through the backbone.
    """

    features: npt.NDArray[np.floating]
    digests: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]
    reasons: dict[int, str] = field(default_factory=dict)
    computed: int = 0

    @classmethod
    def pending(cls, size: int, embed_dim: int, dtype: str) -> "BlockRows":
        """Return rows of which none is done.

        Parameters
        ----------
        size : int
            b.
        embed_dim : int
            D.
        dtype : str
            Of the features.

        Returns
        -------
        BlockRows
            Features all NaN.
        """
        return cls(
            np.full((size, embed_dim), np.nan, dtype),
            np.zeros((size, 32), np.uint8),
            np.full(size, Status.PENDING, np.uint8),
        )


@dataclass(frozen=True)
class Extractor:
    """How one image file becomes one feature.

    Parameters
    ----------
    embed : callable
        From uint8 (b, h, w, 3) to float32 (b, D).
    view : ViewSpec
        The crop.
    batch_size : int
        Images in one forward pass, at most.
    pieces : mapping of str to str
        Which implementations are in use, and why one is not; for provenance.
    clock : Clock
        Hears how long each stage takes.
    device : str
        Where the network runs: ``cpu``, ``cuda`` or ``mps``.
    viewer : callable, optional
        From the bytes of an image and the clock to its view; Pillow alone without it.
    embed_files : callable, optional
        From files to features and reasons by row, where the device decodes.
    workers : int
        Threads that suit the device.
    """

    embed: Embed
    view: ViewSpec
    batch_size: int
    pieces: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    device: str = "cpu"
    viewer: Callable[[bytes, Clock], Pixels] | None = None
    embed_files: EmbedFiles | None = None
    workers: int = field(default_factory=cores)

    def fill(
        self,
        rows: BlockRows,
        files: Sequence[Path],
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
        files : sequence of Path
            The image of each row.
        lookup : callable
            From an image's digest to its feature, where that is known already.
        alive : callable
            Called before each image; raises to stop the work.
        decoding : callable
            From a row to a context in which its bytes are decoded.
        """
        batch: list[tuple[int, Waiting]] = []
        for row in np.flatnonzero(rows.status == Status.PENDING).tolist():
            alive()
            with decoding(row):
                pixels = self._pixels(rows, row, files[row], lookup)
            if pixels is not None:
                batch.append((row, pixels))
            if len(batch) == self.batch_size:
                self._forward(rows, batch)
                batch = []
        if batch:
            self._forward(rows, batch)

    def _pixels(
        self, rows: BlockRows, row: int, file: Path, lookup: Lookup
    ) -> Waiting | None:
        try:
            with self.clock.stage("read"):
                data = read_file(file)
                digest = hashlib.sha256(data).digest()
            rows.digests[row] = np.frombuffer(digest, np.uint8)
            known = lookup(digest)
            if known is None and self.embed_files is not None:
                return data
            if known is None:
                viewer = self.viewer or Viewer.plain(self.view)
                return viewer(data, self.clock)
        except UnusableImageError as error:
            rows.status[row] = error.status
            rows.reasons[row] = str(error)
            return None
        rows.features[row] = known
        rows.status[row] = Status.OK
        return None

    def _forward(self, rows: BlockRows, batch: list[tuple[int, Waiting]]) -> None:
        indices = [row for row, _ in batch]
        reasons: dict[int, UnusableImageError] = {}
        with self.clock.stage("forward"):
            if self.embed_files is None:
                features = self.embed(np.stack([pixels for _, pixels in batch]))
            else:
                files = [bytes(data) for _, data in batch]
                features, reasons = self.embed_files(files)
        with np.errstate(over="ignore"):  # the caller refuses what is not finite
            rows.features[indices] = features
        rows.status[indices] = Status.OK
        for at, reason in reasons.items():
            rows.status[indices[at]] = reason.status
            rows.reasons[indices[at]] = str(reason)
        rows.computed += len(batch) - len(reasons)


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
