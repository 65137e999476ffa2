"""The engine of this process: threads that compute the blocks of an extraction."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from featcache.core.blocks import Block
from featcache.core.clock import Clock
from featcache.core.progress import Progress
from featcache.stages.tasks import Setting, Steps, tell_pieces
from featcache.store.ledger import Ledger
from featcache.vision.assembly import assemble
from featcache.vision.backbones import Backbone
from featcache.vision.forward import bfloat16_gain
from featcache.vision.pipeline import Extractor, run_blocks
from featcache.vision.weights import State


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
        self.threads = workers

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

    def run(self, blocks: Iterable[Block], steps: Steps) -> None:
        """Compute blocks, each on one thread.

        Parameters
        ----------
        blocks : iterable of Block
            Taken one by one.
        steps : Steps
            What is done before and after.
        """

        def work(block: Block, alive: Callable[[], None]) -> None:
            with self.clock.worker():
                task = steps.prepare(block)
                self._extractor.fill(
                    task.rows,
                    task.files,
                    lookup=task.reuse.lookup,
                    alive=alive,
                    decoding=lambda row: self._ledger.decoding(block.start + row),
                )
                steps.finish(task)

        run_blocks(blocks, work, self.threads, steps.watch)

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
