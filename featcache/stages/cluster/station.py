"""The station: what works on a node of a cluster, as an actor of Ray.

It keeps one worker process, as an extraction on several devices does: an image that
crashes a decoder takes that process down and not the actor, which finds the image out,
has it tried apart, and goes on. Nothing of a cache is written here.
"""

import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from featcache.core.clock import Clock
from featcache.core.errors import DataError, DeviceError, FeatcacheError
from featcache.core.locations import location_from_json
from featcache.core.machine import CHILD
from featcache.core.progress import SILENT
from featcache.core.text import shown
from featcache.stages.cluster.orders import Orders, installed
from featcache.stages.crew import Crew
from featcache.stages.jobs import COLUMNS
from featcache.stages.suspects import try_suspects
from featcache.store.ledger import Ledger
from featcache.vision.isolation import SECONDS
from featcache.vision.reading import read_bytes
from featcache.vision.rows import BlockRows

_POLL = 0.2  # seconds between two looks after the worker process

Answer = dict[str, Any]


class Station:
    """An actor: a worker process on a node, and what looks after it.

    Its methods answer with plain data; an error of featcache's is its class and its
    message, ``{"error", "text"}``.
    """

    def __init__(self) -> None:
        # A cluster that a supervised command has started inherits its environment.
        os.environ.pop(CHILD, None)
        self._clock = Clock()
        self._failure: BaseException | None = None

    def hello(self) -> Answer:
        """Tell who this is.

        Returns
        -------
        dict
            ``host`` and ``versions``; no library has been loaded for it.
        """
        return {"host": platform.node(), "versions": installed()}

    def begin(self, orders: Orders, tensors: bytes) -> Answer:
        """Make ready to compute.

        Parameters
        ----------
        orders : Orders
            What to do.
        tensors : bytes
            The weights.

        Returns
        -------
        dict
            ``pieces``, ``batch_size``, ``device`` and ``threads``.
        """
        self._orders = orders
        with _told() as answer:
            for sample in orders.samples:
                _require_readable(sample)
            ready: Future[Answer] = Future()
            threading.Thread(
                target=self._keep, args=(tensors, ready), daemon=True
            ).start()
            answer.update(ready.result())
        return answer

    def compute(
        self, numbers: Sequence[int], places: Sequence[Any], views: Sequence[int]
    ) -> Answer:
        """Compute rows.

        Parameters
        ----------
        numbers : sequence of int
            Of the rows in the cache.
        places : sequence
            The image of each, as `location_to_json` gives it.
        views : sequence of int
            How many views of each are wanted.

        Returns
        -------
        dict
            ``features``, ``digests`` and ``status`` of the rows, ``reasons`` by row,
            how many were ``computed``, and what that took: ``stages`` and ``busy``.
        """
        wanted = self._orders.wanted
        files = [location_from_json(place) for place in places]
        rows = BlockRows.pending(
            len(files),
            wanted.row_shape(wanted.embed_dim),
            wanted.dtype,
            np.array(views, np.int64),
        )
        with _told() as answer:
            filled = False
            while not filled:
                suspects = self._ledger.suspects
                try_suspects(rows, files, numbers, suspects, wanted.view)
                filled = self._crew.fill(rows, files, numbers, self._alive)
            stages, busy = self._clock.take()
            answer.update({name: getattr(rows, name) for name in COLUMNS})
            answer.update({"reasons": rows.reasons, "computed": rows.computed})
            answer.update({"stages": stages, "busy": busy})
        return answer

    def ping(self) -> None:
        """Answer, if only the process still runs."""

    def _keep(self, tensors: bytes, ready: "Future[Answer]") -> None:
        """Start the worker process and look after it; one thread's life.

        Linux ends a process with the thread that has started it.
        """
        orders = self._orders
        try:
            crew = self._crew = Crew(
                [orders.device],
                orders.setting,
                orders.wanted,
                self._clock,
                SILENT,
                tensors,
            )
            crew.start()
            with (
                _nameless() as path,
                Ledger(path) as self._ledger,
                crew.noting(self._ledger),
            ):
                ready.set_result(
                    {
                        "pieces": dict(crew.pieces),
                        "batch_size": crew.batch_size,
                        "device": crew.device,
                        "threads": crew.threads,
                    }
                )
                while True:
                    crew.watch()
                    hung = self._ledger.hung(SECONDS)
                    if hung is not None:
                        crew.expel(hung[1])
                    time.sleep(_POLL)
        except BaseException as error:
            self._failure = error
            if not ready.done():
                ready.set_exception(error)

    def _alive(self) -> None:
        if self._failure is not None:
            raise self._failure


@contextmanager
def _told() -> Iterator[Answer]:
    """Give a dict for an answer, which errors of featcache's and the node's go into."""
    answer: Answer = {}
    try:
        yield answer
    except FeatcacheError as error:
        answer.update({"error": type(error).__name__, "text": str(error)})
    except (OSError, MemoryError) as error:
        said = f"{type(error).__name__}: {error}"
        answer.update({"error": DeviceError.__name__, "text": said})


@contextmanager
def _nameless() -> Iterator[Path]:
    """Give a path to a file that is gone with this process, however that ends."""
    if not hasattr(os, "memfd_create"):  # only Linux has it
        with TemporaryDirectory(prefix="featcache-") as folder:
            yield Path(folder, "inflight")
        return
    descriptor = os.memfd_create("featcache-inflight")
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _require_readable(sample: Any) -> None:  # noqa: ANN401 - JSON data
    place = location_from_json(sample)
    try:
        read_bytes(place, 1)
    except OSError as error:
        raise DataError(
            f"cannot read {shown(place)} ({error.strerror or error}), which the "
            "machine of this command can; every node has to see the images at the same "
            "place: a folder that all of them mount, or an address such as s3:// with "
            "credentials on each"
        ) from None
