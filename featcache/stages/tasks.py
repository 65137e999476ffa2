"""Tasks: what is to be computed, block by block, and what an engine is.

No torch here: who only hands out work and takes in rows has no use for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
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
from featcache.vision.rows import BlockRows


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


class Steps(Protocol):
    """What is done with a block before and after its rows are computed."""

    def prepare(self, block: Block) -> Work:
        """Return the block's rows, with what is known of them filled in."""

    def quarantine(self, work: Work) -> None:
        """Try what was being decoded when a process died."""

    def finish(self, work: Work) -> None:
        """Check and write the rows; from here on the block is done."""

    def watch(self) -> None:
        """Look after the work; to be called several times a second."""


class Engine(Protocol):
    """Computes blocks, several at once; the caller writes them."""

    pieces: Mapping[str, str]  # which implementations are in use, for provenance
    device: str  # kind of device: cpu, cuda or mps
    batch_size: int  # images in one forward pass, at most
    threads: int  # that decode and compute
    clock: Clock  # hears what each stage takes

    def noting(self, ledger: Ledger) -> AbstractContextManager[None]:
        """Return a context in which it is noted what is being decoded."""

    def run(self, blocks: Iterable[Block], steps: Steps) -> None:
        """Have every block computed and written; raise what goes wrong first."""

    def watch(self) -> None:
        """Look after other processes, several times a second, on the main thread."""

    def expel(self, slot: int) -> bool:
        """End what has hung in a slot of the ledger; False where that cannot be."""


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


def together(
    pieces: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    """Return the pieces of all places: once where they are equal.

    Parameters
    ----------
    pieces : mapping of str to mapping of str to str
        Of each place, by their names.

    Returns
    -------
    dict of str to str
        Names and what they are, with the places where these differ.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for place, each in pieces.items():
        for name, piece in each.items():
            found.setdefault(name, {}).setdefault(piece, []).append(place)
    return {
        name: next(iter(kinds))
        if len(kinds) == 1
        else "; ".join(f"{', '.join(at)}: {piece}" for piece, at in kinds.items())
        for name, kinds in found.items()
    }
