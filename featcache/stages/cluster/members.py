"""Members: the actors of a cluster that work for this process, one by one."""

import queue
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from featcache.core.blocks import Block
from featcache.core.demands import Demand
from featcache.stages.cluster.orders import Orders
from featcache.stages.cluster.station import Answer

# What has happened: its name, the member or None, what it was about, how it ended.
Event = tuple[str, "Member | None", Any, "Future[Any]"]
Events = queue.SimpleQueue[Event]

_SPARE = 1  # blocks beyond one for each thread, so that none waits for the next


@dataclass(frozen=True, eq=False)
class Call:
    """What every member is told, and how it is hired.

    Parameters
    ----------
    ray : module
        Connected.
    demand : Demand
        Of one actor.
    orders : Orders
        What to do.
    tensors : ObjectRef
        The weights.
    most : int
        Blocks that may be with one member, as far as memory is concerned.
    station : class
        Of which a member is an instance on some node.
    """

    ray: ModuleType
    demand: Demand
    orders: Orders
    tensors: Any
    most: int
    station: Any


class Member:
    """One actor, from when it is asked for until it is lost.

    Parameters
    ----------
    call : Call
        What it is told.
    number : int
        How many were hired before.
    events : queue
        Hears of every answer.

    Attributes
    ----------
    place : str
        Its machine, once it has said hello.
    state : {"asked for", "met", "ready", "refused", "lost"}
        Only the ready ones get work.
    said : mapping
        What it made ready.
    asked : dict of int to Block
        What it works on.
    useful : bool
        Whether it has done a block.
    since : float
        When it was asked for, or heard of last; `time.monotonic`.
    """

    def __init__(self, call: Call, number: int, events: Events) -> None:
        self.number = number
        self.place = f"actor {number + 1}"
        self.state = "asked for"
        self.said: Mapping[str, Any] = {}
        self.asked: dict[int, Block] = {}
        self.useful = False
        self.since = time.monotonic()
        self._call, self._events = call, events
        self._pinged = False
        lanes = call.orders.setting.workers + _SPARE
        self._actor = call.station.options(
            num_cpus=call.demand.cpus,
            num_gpus=call.demand.gpus,
            max_concurrency=lanes,
            scheduling_strategy="SPREAD",
        ).remote()
        self._lanes = min(lanes, call.most)
        self._send("hello", None, self._actor.hello.remote())

    @property
    def room(self) -> int:
        """How many more blocks it can be given."""
        return self._lanes - len(self.asked) if self.state == "ready" else 0

    def begin(self) -> None:
        """Have it make ready to compute."""
        self.state, self.since = "met", time.monotonic()
        call = self._call
        ref = self._actor.begin.remote(call.orders, call.tensors)
        self._send("begun", None, ref)

    def compute(self, block: Block, *rows: Any) -> None:  # noqa: ANN401 - JSON data
        """Give it rows of a block.

        Parameters
        ----------
        block : Block
            To which the rows belong.
        *rows
            As `Station.compute` takes them.
        """
        self.asked[block.index] = block
        self._send("answered", block, self._actor.compute.remote(*rows))

    def heard(self) -> None:
        """Note that it lives."""
        self.since, self._pinged = time.monotonic(), False

    def ping(self) -> None:
        """Ask whether it lives, unless it has been asked."""
        if not self._pinged:
            self._pinged = True
            apart = self._actor.ping.options(concurrency_group="apart")
            self._send("pinged", None, apart.remote())

    def let_go(self) -> list[Block]:
        """End the actor.

        Returns
        -------
        list of Block
            What it had in work.
        """
        self.state = "lost"
        self._call.ray.kill(self._actor)
        given, self.asked = [*self.asked.values()], {}
        return given

    def _send(self, name: str, about: Block | None, ref: Any) -> None:  # noqa: ANN401
        future: Future[Answer] = ref.future()
        future.add_done_callback(lambda f: self._events.put((name, self, about, f)))
