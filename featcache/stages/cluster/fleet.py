"""The fleet: an engine whose workers are actors on the machines of a Ray cluster.

The actors get places of images and give back rows; the cache is written by this
process alone, by the same steps as ever. So an actor, or a node with all of its actors,
may be lost at any time: what it had in work goes to another.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import Empty
from types import ModuleType

from featcache.core.blocks import Block, block_rows
from featcache.core.clock import Clock
from featcache.core.demands import suitable
from featcache.core.errors import DeviceError
from featcache.core.progress import Progress
from featcache.core.specs import ExtractSpec
from featcache.core.text import plural
from featcache.stages.cluster.connection import nodes_alive
from featcache.stages.cluster.dispatch import Dispatch
from featcache.stages.cluster.members import Call
from featcache.stages.cluster.orders import Orders
from featcache.stages.cluster.roster import Roster
from featcache.stages.cluster.station import Station
from featcache.stages.tasks import Steps, together
from featcache.store.ledger import Ledger

_DEVICES = ("auto", "cpu", "cuda")
_POLL = 0.2  # seconds
_LATECOMERS = 60.0  # seconds that those who have said hello are waited for
_MEMORY = 2 << 30  # bytes of rows that may be under way with one actor


class Fleet:
    """Actors of a cluster.

    Parameters
    ----------
    ray : module
        Connected.
    orders : Orders
        What each has to do.
    how : ExtractSpec
        What the user said of actors and devices.
    tensors : bytes
        The weights.
    clock : Clock
        Hears what each stage takes, all actors together.
    progress : Progress
        Hears of what is lost and what is waited for.

    Raises
    ------
    DeviceError
        When the cluster has not the device that is wanted.
    """

    def __init__(
        self,
        ray: ModuleType,
        orders: Orders,
        how: ExtractSpec,
        tensors: bytes,
        clock: Clock,
        progress: Progress,
    ) -> None:
        if how.device not in _DEVICES:
            raise DeviceError(
                f"--device {how.device}: with --engine ray, Ray gives each actor its "
                f"GPU; expected one of {', '.join(_DEVICES)}"
            )
        self.clock = clock
        self.device = ""  # this and the next are known by `start`
        self.batch_size = self.threads = 0
        self.pieces: Mapping[str, str] = {}
        self._ray, self._progress = ray, progress
        demand = suitable(nodes_alive(ray), how.device, how.actor_cpus)
        threads = how.workers or demand.threads
        if demand.gpus and not how.workers:
            from featcache.vision.cuda import LANES  # imports torch

            threads += LANES  # that wait there: as many more keep the cores decoding
        call = Call(
            ray,
            demand,
            replace(
                orders,
                setting=replace(orders.setting, workers=threads),
                device="cuda:0" if demand.gpus else "cpu",
            ),
            ray.put(tensors),
            max(1, _MEMORY // _block_bytes(orders)),
            ray.remote(concurrency_groups={"apart": 1})(Station),
        )
        self._roster = Roster(call, how.actors, progress)

    def start(self) -> None:
        """Hire actors, and wait until those that have come can work.

        Raises
        ------
        FeatcacheError
            What keeps one from working; `DeviceError` when there is no room.
        """
        roster, since = self._roster, None
        while True:
            roster.look()
            with suppress(Empty):
                roster.take(roster.events.get(timeout=_POLL))
            if not roster.ready:
                continue
            since = since or time.monotonic()
            coming = any(member.state == "met" for member in roster.members)
            if not coming or time.monotonic() - since > _LATECOMERS:
                break
        self._know(roster)

    @contextmanager
    def noting(self, ledger: Ledger) -> Iterator[None]:
        """Do nothing: each actor notes for itself what it decodes.

        Parameters
        ----------
        ledger : Ledger
            In which nothing is noted.

        Yields
        ------
        None
            Blocks are computed in here.
        """
        del ledger
        yield

    def run(self, blocks: Iterable[Block], steps: Steps) -> None:
        """Have blocks computed by whoever is there.

        Parameters
        ----------
        blocks : iterable of Block
            Taken one by one.
        steps : Steps
            What is done before and after.
        """
        Dispatch(self._roster, blocks, steps, self.clock).run()

    def watch(self) -> None:
        """Do nothing: the work itself looks after its actors."""

    def expel(self, slot: int) -> bool:
        """Tell that nobody here is decoding.

        Parameters
        ----------
        slot : int
            Of a ledger in which nothing stands.

        Returns
        -------
        bool
            False.
        """
        del slot
        return False

    def close(self) -> None:
        """End every actor."""
        self._roster.close()

    def _know(self, roster: Roster) -> None:
        ready = roster.ready
        first = ready[0].said
        self.device = first["device"]
        self.batch_size = max(member.said["batch_size"] for member in ready)
        self.threads = sum(member.said["threads"] for member in ready)
        each = {member.place: member.said["pieces"] for member in ready}
        actors = plural(len(ready), "actor")
        self.pieces = {**together(each), "engine": f"Ray {self._ray.__version__}"}
        self._progress.say(f"Ray {self._ray.__version__}: {actors} ready")
        for name, piece in self.pieces.items():
            self._progress.detail(f"{name}: {piece}")


def _block_bytes(orders: Orders) -> int:
    """Return what the largest block of a cache takes."""
    wanted = orders.wanted
    size = 2 if wanted.dtype == "float16" else 4
    row = wanted.views * wanted.embed_dim * size
    return row * block_rows(orders.setting.expected, row)
