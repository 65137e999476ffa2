"""A worker: a process that computes blocks for another one, on one device.

Run as ``python -m featcache.stages.worker``. It knows nothing of the cache: on stdin
come lines of JSON, first the `Job`, with the weights behind it where they are shipped,
then ``{"ledger", "first", "stop"}``, then blocks, ``{"number", "rows", "files",
"views"}``; on stdout go ``{"ready"}`` once and an answer
for each block: a line of JSON, and the bytes of its features, digests and status behind
it. It ends when stdin does, however its parent has ended.
"""

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from featcache.core.clock import Clock
from featcache.core.errors import FeatcacheError, WeightsError
from featcache.core.layers import row_size
from featcache.core.locations import location_from_json
from featcache.core.machine import end_with_parent
from featcache.stages.engines import build_extractor
from featcache.stages.jobs import COLUMNS, Job
from featcache.store.ledger import Slots
from featcache.vision.pipeline import Extractor, one_core_each
from featcache.vision.rows import BlockRows
from featcache.vision.weights import state_sha256, unpacked

_Lines = queue.SimpleQueue[bytes]


class _Voice:
    """Answers on stdout, one at a time."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def say(self, message: Mapping[str, Any], payload: bytes = b"") -> None:
        with self._lock:
            self._out.write(json.dumps(message).encode() + b"\n" + payload)
            self._out.flush()

    def fail(self, error: BaseException) -> None:
        """Tell why the process ends, once, and end it."""
        ours = isinstance(error, FeatcacheError)
        text = str(error) if ours else "".join(traceback.format_exception(error))
        message = {"error": type(error).__name__ if ours else "", "text": text}
        with self._lock, suppress(OSError):  # where the parent has gone
            self._out.write(json.dumps(message).encode() + b"\n")
            self._out.flush()
            os._exit(1)  # in here: nobody speaks after this
        os._exit(1)


def main() -> None:
    """Work until stdin ends."""
    voice = _Voice(_own_stdout())
    end_with_parent(getattr(signal, "SIGKILL", signal.SIGTERM))
    lines: _Lines = queue.SimpleQueue()
    job = Job(**json.loads(sys.stdin.buffer.readline() or os._exit(0)))
    tensors = sys.stdin.buffer.read(job.shipped)
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    try:
        _work(job, tensors, lines, voice)
    except BaseException as error:
        voice.fail(error)


def _own_stdout() -> BinaryIO:
    """Return stdout, where from now on what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def _listen(lines: _Lines) -> None:
    """Take in what the parent says; end the process at once when it is gone.

    Nothing has to be put in order: only the parent writes the cache.
    """
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


def _work(job: Job, tensors: bytes, lines: _Lines, voice: _Voice) -> None:
    clock = Clock()
    extractor = _extractor(job, tensors, clock)
    clock.take()  # the parent counts the start
    ready = {"pieces": dict(extractor.pieces), "batch_size": extractor.batch_size}
    voice.say({"ready": {**ready, "device": extractor.device}})
    ledger = json.loads(lines.get())
    slots = range(ledger["first"], ledger["stop"])
    with Slots(Path(ledger["ledger"]), slots) as own, one_core_each():
        bench = _Bench(job, extractor, own, lines, voice)
        threads = [threading.Thread(target=bench.run) for _ in range(job.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()  # never: the process ends when stdin does


def _extractor(job: Job, tensors: bytes, clock: Clock) -> Extractor:
    setting = job.setting()
    state = unpacked(tensors) if job.shipped else setting.source.load()
    if state_sha256(state) != job.weights_sha256:
        raise WeightsError(
            f"{setting.source.name} has changed since the extraction began; run the "
            "same command again"
        )
    return build_extractor(setting, state, job.device, clock)


@dataclass(frozen=True, eq=False)
class _Bench:
    """Where the threads of a worker take blocks from and lay answers down."""

    job: Job
    extractor: Extractor
    slots: Slots
    lines: _Lines
    voice: _Voice

    def run(self) -> None:
        """Compute blocks; one thread's life."""
        try:
            while True:
                self._answer(json.loads(self.lines.get()))
        except BaseException as error:
            self.voice.fail(error)

    def _answer(self, asked: Mapping[str, Any]) -> None:
        files = [location_from_json(file) for file in asked["files"]]
        job, views = self.job, self.job.views
        size = row_size(job.backbone, job.layer, job.view["crop"])
        shape = (size,) if views == 1 else (views, size)
        counts = np.array(asked["views"], np.int64)
        rows = BlockRows.pending(len(files), shape, self.job.dtype, counts)
        with self.extractor.clock.worker():
            self.extractor.fill(
                rows,
                files,
                decoding=lambda row: self.slots.decoding(asked["rows"][row]),
            )
        stages, busy = self.extractor.clock.take()
        message = {
            "number": asked["number"],
            "computed": rows.computed,
            "reasons": rows.reasons,
            "stages": stages,
            "busy": busy,
        }
        payload = b"".join(getattr(rows, name).tobytes() for name in COLUMNS)
        self.voice.say(message, payload)


if __name__ == "__main__":
    main()
