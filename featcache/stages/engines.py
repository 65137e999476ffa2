"""Engines: what computes the blocks of an extraction, here or in other processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, overload

from featcache.core.blocks import Block
from featcache.core.clock import Clock
from featcache.core.layers import POOLED, Layer
from featcache.core.locations import Location
from featcache.core.manifest import Manifest
from featcache.core.progress import Progress
from featcache.core.specs import AugmentSpec, Precision
from featcache.core.text import plural
from featcache.core.view_specs import TUTORIAL
from featcache.stages.sources import WeightsSource
from featcache.store.ledger import Ledger
from featcache.store.reuse import Reuse
from featcache.vision.assembly import assemble
from featcache.vision.backbones import Backbone
from featcache.vision.forward import bfloat16_gain
from featcache.vision.pipeline import Extractor
from featcache.vision.rows import BlockRows
from featcache.vision.weights import State


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every engine has to know.

    Parameters
    ----------
    source : WeightsSource
        The weights, which also name the view.
    precision : {"float32", "bfloat16"}
        Of the network's arithmetic.
    batch_size : int
        Images in one forward pass; 0 for what suits the device.
    workers : int
        Threads of all devices together; 0 for what suits them.
    expected : int
        Images to come, for what pays in long runs only.
    augment : AugmentSpec
        How views beyond the first are drawn.
    layer : str
        Where features are taken.
    """

    source: WeightsSource
    precision: Precision
    batch_size: int
    workers: int
    expected: int
    augment: AugmentSpec = TUTORIAL
    layer: Layer = POOLED


class Files(Sequence[Location]):
    """Where the images of a block lie, each found out when somebody asks.

    Parameters
    ----------
    manifest : Manifest
        All images.
    block : Block
        Which of them.
    """

    def __init__(self, manifest: Manifest, block: Block) -> None:
        self._manifest, self._rows = manifest, range(block.start, block.stop)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> Location: ...

    @overload
    def __getitem__(self, row: slice) -> list[Location]: ...

    def __getitem__(self, row: int | slice) -> Location | list[Location]:
        if isinstance(row, slice):
            return [self._manifest.file(index) for index in self._rows[row]]
        return self._manifest.file(self._rows[row])


@dataclass(frozen=True, eq=False)
class Work:
    """One block to be computed.

    Parameters
    ----------
    block : Block
        Which rows of the cache.
    rows : BlockRows
        Filled in place.
    files : sequence of Path or Member
        The image of each row.
    reuse : Reuse
        What earlier caches know.
    """

    block: Block
    rows: BlockRows
    files: Sequence[Location]
    reuse: Reuse


class Engine(Protocol):
    """Computes blocks, several at once; the caller writes them."""

    pieces: Mapping[str, str]  # which implementations are in use, for provenance
    device: str  # kind of device: cpu, cuda or mps
    batch_size: int  # images in one forward pass, at most
    threads: int  # that decode and compute
    lanes: int  # blocks that are worth being in work at once
    clock: Clock  # hears what each stage takes

    def noting(self, ledger: Ledger) -> AbstractContextManager[None]:
        """Return a context in which it is noted what is being decoded."""

    def working(self) -> AbstractContextManager[None]:
        """Return a context in which the calling thread works on a block."""

    def compute(self, work: Work, alive: Callable[[], None]) -> bool:
        """Compute the pending rows of a block.

        ``alive`` raises once the work is to stop. False: a process died over this or
        another block; its suspects are in the ledger, and the rows still pending.
        """

    def watch(self) -> None:
        """Look after other processes, several times a second, on the main thread."""

    def expel(self, slot: int) -> bool:
        """End what has hung in a slot of the ledger; False where that cannot be."""


class ThreadEngine:
    """Threads of this process, on one device.

    Parameters
    ----------
    extractor : Extractor
        The threads share it.
    workers : int
        How many threads.
    """

    def __init__(self, extractor: Extractor, workers: int) -> None:
        self._extractor = extractor
        self.pieces = extractor.pieces
        self.device = extractor.device
        self.batch_size = extractor.batch_size
        self.clock = extractor.clock
        self.threads = self.lanes = workers

    @contextmanager
    def noting(self, ledger: Ledger) -> Iterator[None]:
        """Note what is being decoded.

        Parameters
        ----------
        ledger : Ledger
            Open.

        Yields
        ------
        None
            Blocks are computed in here.
        """
        self._ledger = ledger
        yield

    def working(self) -> AbstractContextManager[None]:
        """Return a context in which the calling thread works on a block.

        Returns
        -------
        context manager
            It counts the thread's processor time.
        """
        return self.clock.worker()

    def compute(self, work: Work, alive: Callable[[], None]) -> bool:
        """Compute the pending rows of a block, on the calling thread.

        Parameters
        ----------
        work : Work
            The block.
        alive : callable
            Raises when the work is to stop.

        Returns
        -------
        bool
            True.
        """
        self._extractor.fill(
            work.rows,
            work.files,
            lookup=work.reuse.lookup,
            alive=alive,
            decoding=lambda row: self._ledger.decoding(work.block.start + row),
        )
        return True

    def watch(self) -> None:
        """Do nothing: there is no other process."""

    def expel(self, slot: int) -> bool:
        """Tell that a thread cannot be ended.

        Parameters
        ----------
        slot : int
            Where it hangs.

        Returns
        -------
        bool
            False.
        """
        del slot
        return False


def build_extractor(
    setting: Setting, state: State, device: str, clock: Clock
) -> Extractor:
    """Return what turns image files into features, in this process.

    Parameters
    ----------
    setting : Setting
        What to compute.
    state : dict of str to tensor
        The backbone's tensors.
    device : str
        One device.
    clock : Clock
        Hears how long each stage takes.

    Returns
    -------
    Extractor
        Ready.

    Raises
    ------
    DeviceError
        When there is no such device.
    """
    return assemble(
        Backbone(setting.source.backbone, state, setting.layer),
        setting.source.view,
        device=device,
        precision=setting.precision,
        batch_size=setting.batch_size,
        expected=setting.expected,
        clock=clock,
        augment=setting.augment,
    )


def tell_pieces(
    pieces: Mapping[str, str],
    batch_size: int,
    threads: int,
    progress: Progress,
    place: str = "",
) -> None:
    """Tell those who asked for more which pieces are in use.

    Parameters
    ----------
    pieces : mapping of str to str
        Names and what they are.
    batch_size : int
        Images in one forward pass.
    threads : int
        That decode and compute.
    progress : Progress
        Hears a line for each piece.
    place : str
        The device, where there are several.
    """
    before = f"{place} " if place else ""
    for name, piece in pieces.items():
        progress.detail(f"{before}{name}: {piece}")
    batch = plural(batch_size, "image")
    progress.detail(
        f"{before}work: {plural(threads, 'thread')}, {batch} in a forward pass"
    )


def one_device(
    device: str, setting: Setting, state: State, clock: Clock, progress: Progress
) -> ThreadEngine:
    """Return the engine of this process.

    Parameters
    ----------
    device : str
        One device.
    setting : Setting
        What to compute.
    state : dict of str to tensor
        The backbone's tensors.
    clock : Clock
        Hears how long each stage takes.
    progress : Progress
        Hears which pieces are in use.

    Returns
    -------
    ThreadEngine
        Ready.

    Raises
    ------
    DeviceError
        When there is no such device.
    """
    extractor = build_extractor(setting, state, device, clock)
    workers = setting.workers or extractor.workers
    tell_pieces(extractor.pieces, extractor.batch_size, workers, progress)
    if setting.precision == "bfloat16" and extractor.device == "cpu":
        gain = bfloat16_gain()
        if gain < 1:
            progress.say(
                f"warning: this processor multiplies bfloat16 at {gain:.1f}x the speed "
                "of float32: --precision bfloat16 gains nothing here"
            )
    return ThreadEngine(extractor, workers)
