"""The crew: one process per device, between which the blocks of a cache are shared.

The processes get names of images and give back rows; the cache is written by this
process alone, which holds its lock. So whatever becomes of a worker, even one that
outlives this process, no byte of a cache can come from it unasked.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from featcache.core.blocks import Block
from featcache.core.clock import Clock
from featcache.core.errors import DeviceError
from featcache.core.locations import Location
from featcache.core.progress import Progress
from featcache.core.specs import FeatureSpec
from featcache.core.status import Status
from featcache.stages.jobs import COLUMNS
from featcache.stages.looking_up import look_up
from featcache.stages.posts import assign
from featcache.stages.processes import Worker, WorkerLostError, ending
from featcache.stages.tasks import Setting, Steps, tell_pieces, together
from featcache.store.ledger import Ledger
from featcache.vision.isolation import crashed
from featcache.vision.rows import BlockRows

_POLL = 0.2  # seconds between two looks whether the work is to stop
_KEPT = (
    "What is done is kept: run the same command again to go on; if memory is short, "
    "lower --workers or --batch-size"
)
_Result = TypeVar("_Result")


class Crew:
    """Worker processes, one for each device.

    Parameters
    ----------
    devices : sequence of str
        As `featcache.stages.devices.device_list` gives them.
    setting : Setting
        What to compute; its workers are divided between the devices.
    wanted : FeatureSpec
        The features' identity.
    clock : Clock
        Hears what each stage takes, all processes together.
    progress : Progress
        Hears of processes that end before the work does.
    tensors : bytes
        The weights; without them each process reads the file.
    """

    def __init__(
        self,
        devices: Sequence[str],
        setting: Setting,
        wanted: FeatureSpec,
        clock: Clock,
        progress: Progress,
        tensors: bytes = b"",
    ) -> None:
        self.clock = clock
        self.device = ""  # this, the batch size and the pieces are known by `start`
        self.batch_size = 0
        self.pieces: Mapping[str, str] = {}
        self._progress = progress
        self._posts = assign(devices, setting, wanted, tensors)
        self._workers: list[Worker] = []
        self._ledger: Ledger | None = None
        self._burying = threading.Lock()
        self._known: set[int] = set()  # suspects so far
        self.threads = sum(post.job.threads for post in self._posts)

    def start(self) -> None:
        """Start the processes and wait until each can work.

        Raises
        ------
        FeatcacheError
            What one of them says; `DeviceError` when it ends without a word.
        """
        for post in self._posts:
            self._workers.append(Worker(post, self._bury))
        found = [self._started(worker) for worker in self._workers]
        self.device = found[0]["device"]
        self.batch_size = max(each["batch_size"] for each in found)
        self.pieces = together(
            {
                post.place: each["pieces"]
                for post, each in zip(self._posts, found, strict=True)
            }
        )
        for post, each in zip(self._posts, found, strict=True):
            tell_pieces(
                each["pieces"],
                each["batch_size"],
                post.job.threads,
                self._progress,
                post.place,
            )

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
        for worker in self._workers:
            worker.attach(ledger)
        try:
            yield
        finally:
            with self._burying:  # who ends after this has decoded for nobody
                self._ledger = None

    def run(self, blocks: Iterable[Block], steps: Steps) -> None:
        """Have blocks computed, each by one process.

        Parameters
        ----------
        blocks : iterable of Block
            Taken one by one.
        steps : Steps
            What is done before and after.
        """
        from featcache.vision.pipeline import run_blocks  # imports torch

        def work(block: Block, alive: Callable[[], None]) -> None:
            task, numbers = steps.prepare(block), range(block.start, block.stop)
            look_up(task, self.clock, alive)
            while not self.fill(task.rows, task.files, numbers, alive):
                steps.quarantine(task)
            steps.finish(task)

        lanes = self.threads + len(self._posts)  # one waits at each process
        run_blocks(blocks, work, lanes, steps.watch)

    def fill(
        self,
        rows: BlockRows,
        files: Sequence[Location],
        numbers: Sequence[int],
        alive: Callable[[], None],
    ) -> bool:
        """Have the pending rows among some computed.

        Parameters
        ----------
        rows : BlockRows
            Filled in place.
        files : sequence of Path, Member or Cell
            The image of each row.
        numbers : sequence of int
            Of each row, as the ledger has it.
        alive : callable
            Raises when the work is to stop.

        Returns
        -------
        bool
            False when the process that had them has ended.

        Raises
        ------
        FeatcacheError
            What a worker says before it ends.
        """
        pending = np.flatnonzero(rows.status == Status.PENDING)
        if not len(pending):
            return True
        worker = self._least_loaded(alive)
        into = {name: getattr(rows, name) for name in COLUMNS}
        try:
            answer = worker.ask(
                [numbers[row] for row in pending.tolist()],
                [files[row] for row in pending.tolist()],
                rows.counts[pending].tolist(),
                sum(column[pending].nbytes for column in into.values()),
            )
            message, payload = _result(answer, alive)
        except WorkerLostError:
            return False
        self._take_in(worker, message)
        _unpack(payload, rows, pending)
        rows.computed += message["computed"]
        for row, reason in message["reasons"].items():
            rows.reasons[int(pending[int(row)])] = reason
        return True

    def watch(self) -> None:
        """Start processes anew that an image took down; give up on others.

        Called on a thread that outlives them: Linux ends a process with the thread
        that has started it.

        Raises
        ------
        DeviceError
            When no process is left.
        FeatcacheError
            What a worker said before it ended.
        """
        for index, worker in enumerate(self._workers):
            if worker.ended and worker.failure is not None:
                raise worker.failure
            if worker.ended:
                self._replace(index, worker)
                return  # the others are looked at next time

    def expel(self, slot: int) -> bool:
        """End the process that has hung in a slot of the ledger.

        Parameters
        ----------
        slot : int
            Of the ledger.

        Returns
        -------
        bool
            True.
        """
        for worker in self._workers:
            if slot in worker.post.slots:
                worker.expelled = True
                worker.kill()
        return True

    def close(self) -> None:
        """End every process."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.close()

    def _started(self, worker: Worker) -> Mapping[str, Any]:
        try:
            return _result(worker.ready)
        except WorkerLostError:
            raise DeviceError(
                f"{worker.post.place}: its process {ending(worker.returncode)} before "
                "it could work; if memory is short, lower --batch-size or name fewer "
                "devices"
            ) from None

    def _bury(self, worker: Worker) -> None:
        """Have the images that a process was decoding tried apart."""
        with self._burying:
            if self._ledger is not None:
                worker.suspects = self._ledger.accuse(worker.post.slots)

    def _replace(self, index: int, worker: Worker) -> None:
        worker.close()
        code, place = worker.returncode, worker.post.place
        guilty = worker.suspects - self._known
        self._known |= worker.suspects
        if guilty and (worker.expelled or crashed(code)):
            self._progress.say(
                f"{place}: an image took the process down; it is tried apart, and left "
                "out and named if it does so again"
            )
            self._workers[index] = again = Worker(worker.post, self._bury)
            assert self._ledger is not None
            again.attach(self._ledger)
            return
        del self._workers[index]
        line = f"{place}: its process {ending(code)}"
        if not self._workers:
            raise DeviceError(f"{line}; no other is left. {_KEPT}")
        self._progress.say(f"warning: {line}; the others go on without it")

    def _least_loaded(self, alive: Callable[[], None]) -> Worker:
        while True:
            alive()
            working = [worker for worker in [*self._workers] if not worker.ended]
            if working:
                return min(working, key=lambda worker: worker.load)
            time.sleep(_POLL)  # until `watch` starts another, or gives up

    def _take_in(self, worker: Worker, message: Mapping[str, Any]) -> None:
        place = worker.post.place
        busy = {f"{place} {name}": took for name, took in message["busy"].items()}
        self.clock.add(message["stages"], busy)


def _result(
    future: "Future[_Result]", alive: Callable[[], None] = lambda: None
) -> _Result:
    """Wait for a result, but not longer than the work goes on."""
    while True:
        alive()
        try:
            return future.result(_POLL)  # without a limit, Windows hears no Ctrl-C
        except TimeoutError:
            continue


def _unpack(payload: bytes, rows: BlockRows, pending: "np.ndarray[Any, Any]") -> None:
    """Put the bytes of an answer into their rows."""
    at = 0
    for name in COLUMNS:
        column = getattr(rows, name)
        shape = (len(pending), *column.shape[1:])
        size = column[pending].nbytes
        column[pending] = np.frombuffer(
            payload, column.dtype, size // column.itemsize, at
        ).reshape(shape)
        at += size
