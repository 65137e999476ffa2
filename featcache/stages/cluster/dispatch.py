"""Dispatch: blocks out to the actors of a cluster, rows back into the cache.

One thread decides; a few others, the clerks, prepare blocks and write them. What is in
this process does not grow with the cluster: rows wait in Ray's object store until they
are taken, and as long as too many wait to be written, nobody is given another block.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from featcache.core.blocks import Block
from featcache.core.clock import Clock
from featcache.core.errors import DataError, DeviceError, FeatcacheError
from featcache.core.locations import location_to_json
from featcache.core.status import Status
from featcache.core.text import shown
from featcache.stages.cluster.members import Event, Member
from featcache.stages.cluster.roster import KEPT, Roster, first_line
from featcache.stages.jobs import COLUMNS
from featcache.stages.looking_up import look_up
from featcache.stages.tasks import Steps, Work
from featcache.vision.reading import read_bytes
from featcache.vision.rows import BlockRows

Rows = npt.NDArray[np.int64]

_CLERKS = 4  # threads; hashing and writing let go of the interpreter
_WAITING = 16  # blocks that may wait to be written, and to be given out
_POLL = 0.2  # seconds
_TRIES = 5  # of a block whose actors are lost
_ANSWERS = [status for status in Status if status != Status.PENDING]


class Dispatch:
    """One run through the blocks of a cache.

    Parameters
    ----------
    roster : Roster
        Who computes.
    blocks : iterable of Block
        What.
    steps : Steps
        What is done before and after.
    clock : Clock
        Hears what each stage takes, all actors together.
    """

    def __init__(
        self, roster: Roster, blocks: Iterable[Block], steps: Steps, clock: Clock
    ) -> None:
        self._roster, self._steps, self._clock = roster, steps, clock
        self._todo: Iterator[Block] = iter(blocks)
        self._again: deque[Block] = deque()
        self._prepared: deque[Work] = deque()
        self._given: dict[int, tuple[Work, Rows]] = {}
        self._preparing = self._writing = 0
        self._tries: Counter[int] = Counter()
        self._stopped = False

    def run(self) -> None:
        """Work until every block is written.

        Raises
        ------
        Exception
            The first that a clerk or an actor raises.
        KeyboardInterrupt
            After what was being written is.
        """
        with ThreadPoolExecutor(_CLERKS, "clerk") as clerks:
            self._clerks = clerks
            try:
                while self._hand_out():
                    self._take_in()
                    self._steps.watch()
                    self._lost(self._roster.look())
            except BaseException:
                self._stopped = True
                clerks.shutdown(cancel_futures=True)
                raise

    def _hand_out(self) -> bool:
        """Give blocks to whoever has room; False when all are done."""
        while self._preparing + len(self._prepared) < _WAITING:
            block = self._again.popleft() if self._again else next(self._todo, None)
            if block is None:
                break
            self._preparing += 1
            self._clerk("prepared", self._prepare, block)
        while self._prepared and self._writing < _WAITING:
            member = max(self._roster.ready, key=lambda m: m.room, default=None)
            if member is None or member.room < 1:
                break
            self._give(member, self._prepared.popleft())
        waiting = self._preparing or self._prepared or self._given or self._writing
        return bool(waiting or self._again)

    def _prepare(self, block: Block) -> Work:
        work = self._steps.prepare(block)
        look_up(work, self._clock, self._alive)
        return work

    def _give(self, member: Member, work: Work) -> None:
        pending = np.flatnonzero(work.rows.status == Status.PENDING)
        if not len(pending):
            self._finish(work)
            return
        rows = pending.tolist()
        places = [location_to_json(work.files[row]) for row in rows]
        numbers = (work.block.start + pending).tolist()
        if len(pending) == work.block.size:  # all come back: no memory until then
            work.rows.features = work.rows.features[:0].copy()
        self._given[work.block.index] = work, pending
        member.compute(work.block, numbers, places, work.rows.counts[pending].tolist())

    def _take_in(self) -> None:
        """Wait a moment for something to happen; take in all that has."""
        try:
            self._take(self._roster.events.get(timeout=_POLL))
            while True:
                self._take(self._roster.events.get_nowait())
        except Empty:
            pass

    def _take(self, event: Event) -> None:
        name, member, about, future = event
        if name == "prepared":
            self._preparing -= 1
            self._prepared.append(future.result())
        elif name == "written":
            self._writing -= 1
            future.result()
        elif name == "answered":
            assert member is not None
            self._answered(member, about, future)
        else:
            self._lost(self._roster.take(event))

    def _answered(self, member: Member, block: Block, future: "Future[Any]") -> None:
        if block.index not in member.asked:
            return  # it was lost in between, and the block is with another
        error = self._roster.trouble(member, future)
        if error is not None and self._is_the_end(error):
            self._lost(self._roster.lose(member, error), error)
            return
        del member.asked[block.index]
        work, pending = self._given[block.index]
        if error is None:
            error = self._refused(member, work, pending, future.result())
        if error is not None:
            self._lost([block], error)
            return
        member.heard()
        self._roster.proved(member)
        del self._given[block.index]
        answer = future.result()
        _fill(work, pending, answer)
        busy = {f"{member.place} {k}": took for k, took in answer["busy"].items()}
        self._clock.add(answer["stages"], busy)
        self._finish(work)

    def _finish(self, work: Work) -> None:
        self._writing += 1
        self._clerk("written", self._steps.finish, work)

    def _lost(self, blocks: Iterable[Block], error: Exception | None = None) -> None:
        """Have blocks computed again that were with an actor that is lost."""
        for block in blocks:
            work, _ = self._given.pop(block.index)
            self._tries[block.index] += 1
            if self._tries[block.index] >= _TRIES:
                if self._is_a_bug(error):
                    raise error
                why = f"; the last: {first_line(str(error))}" if error else ""
                raise DeviceError(
                    f"{_TRIES} actors were lost, one after another, over the images "
                    f"from {shown(work.files[0])} to {shown(work.files[-1])}{why}; "
                    f"{KEPT}. If memory is short there, lower --workers or --batch-size"
                )
            self._again.append(block)

    def _is_the_end(self, error: Exception) -> bool:
        """Tell whether an actor is lost, and not only an answer."""
        ray = self._roster.exceptions
        ends = (FeatcacheError, ray.RayActorError, ray.RayTaskError)
        return isinstance(error, ends)

    def _is_a_bug(self, error: Exception | None) -> TypeGuard[Exception]:
        """Tell whether no other actor would do better, and the error tells most."""
        if isinstance(error, FeatcacheError):
            return not isinstance(error, DeviceError)
        return isinstance(error, self._roster.exceptions.RayTaskError)

    def _refused(
        self, member: Member, work: Work, pending: Rows, answer: Mapping[str, Any]
    ) -> Exception | None:
        """Return why an answer is not taken, and its actor gets no more work."""
        wrong = fault(work.rows, len(pending), answer)
        if wrong:
            reason = (
                f"{member.place}: its answer is not what was asked for ({wrong}); "
                "install the same featcache[ray] on every node of the cluster"
            )
        elif self._has_the_images(work, pending, answer):
            return None
        else:
            reason = (
                f"{member.place}: the node can no longer read images such as "
                f"{shown(work.files[int(pending[0])])}, which this machine can"
            )
        error = DeviceError(reason) if wrong else DataError(reason)
        self._roster.refuse(member, error)
        return error

    def _has_the_images(
        self, work: Work, pending: Rows, answer: Mapping[str, Any]
    ) -> bool:
        """Tell whether it is the images that cannot be read, or the node."""
        if not (answer["status"] == Status.UNREADABLE).all():
            return True
        try:
            read_bytes(work.files[int(pending[0])], 1)
        except OSError:
            return True
        return False

    def _clerk(self, name: str, work: Callable[[Any], Any], about: Any) -> None:  # noqa: ANN401
        events = self._roster.events
        future = self._clerks.submit(work, about)
        future.add_done_callback(lambda f: events.put((name, None, about, f)))

    def _alive(self) -> None:
        if self._stopped:
            raise _StoppedError


class _StoppedError(Exception):
    """Something else failed, or the user interrupted."""


def fault(rows: BlockRows, count: int, answer: Mapping[str, Any]) -> str:
    """Return what is wrong with an answer, which comes from another machine.

    Parameters
    ----------
    rows : BlockRows
        For which it is meant.
    count : int
        How many of them were asked for.
    answer : mapping
        As `Station.compute` gives it.

    Returns
    -------
    str
        The name of what is missing or of another kind; empty where all is well.
    """
    for name in COLUMNS:
        wanted, found = getattr(rows, name), answer.get(name)
        kind = (wanted.dtype, (count, *wanted.shape[1:]))
        if not isinstance(found, np.ndarray) or (found.dtype, found.shape) != kind:
            return name
    if not np.isin(answer["status"], _ANSWERS).all():
        return "status"
    reasons, computed = answer.get("reasons"), answer.get("computed")
    if not isinstance(reasons, dict) or not reasons.keys() <= {*range(count)}:
        return "reasons"
    if not isinstance(computed, int) or not 0 <= computed <= count:
        return "computed"
    times = (answer.get("stages"), answer.get("busy"))
    return "" if all(isinstance(each, dict) for each in times) else "times"


def _fill(work: Work, pending: Rows, answer: Mapping[str, Any]) -> None:
    """Put an answer into its rows."""
    for name in COLUMNS:
        if len(pending) == work.block.size:
            setattr(work.rows, name, answer[name])
        else:
            getattr(work.rows, name)[pending] = answer[name]
    work.rows.computed += answer["computed"]
    for row, reason in answer["reasons"].items():
        work.rows.reasons[int(pending[row])] = reason
