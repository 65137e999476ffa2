"""Saved indexes: what a start read of each shard's headers, for the next start.

One file a shard, in a folder of the user's own for what can be made again. A first line
holds the sha256 of all behind it, a second one, of JSON, says of which state of which
shard it is and what follows: columns of numbers and fixed-width bytes, one behind the
other. A file that does not match is as good as none, so that it may be lost, damaged
or written by two processes at once.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from featcache.core.text import shown
from featcache.store.reuse import RACY_NS

_FORMAT = "featcache shard index 1"
_ENDING = ".index"
_HEX = 64  # letters of a sha256

Columns = Mapping[str, npt.NDArray[Any]]


class ShardIndexes:
    """A folder of saved indexes; threads and processes may share it.

    Parameters
    ----------
    folder : Path
        Made when something is saved.
    tell : callable
        Hears one line if nothing can be saved.
    """

    def __init__(self, folder: Path, tell: Callable[[str], object]) -> None:
        self._folder, self._tell = folder, tell
        self._lock = threading.Lock()
        self._refused = False

    def find(self, shard: str, size: int, mtime_ns: int) -> Columns | None:
        """Return what was saved of a shard in the state that it has now.

        Parameters
        ----------
        shard : str
            An address that means the same everywhere on this machine.
        size, mtime_ns : int
            Its bytes, and when it last changed in nanoseconds.

        Returns
        -------
        dict of str to ndarray, or None
            Read-only columns; None where there is nothing, or nothing sound, of
            exactly this state.
        """
        try:
            data = self._file(shard).read_bytes()
        except OSError:
            return None
        said, rest = data[:_HEX], data[_HEX + 1 :]
        if hashlib.sha256(rest).hexdigest().encode() != said:
            return None
        line, _, body = rest.partition(b"\n")
        head = json.loads(line)
        if head.get("state") != _state(shard, size, mtime_ns):
            return None
        columns, at = {}, 0
        for name, kind, count in head["columns"]:
            columns[name] = np.frombuffer(body, kind, count, at)
            at += columns[name].nbytes
        return columns

    def keep(self, shard: str, size: int, mtime_ns: int, columns: Columns) -> None:
        """Save what was read of a shard.

        Parameters
        ----------
        shard : str
            As `find` takes it.
        size, mtime_ns : int
            As they were before it was read. Of a shard that changed a moment before
            nothing is saved: it may change again and look the same.
        columns : mapping of str to ndarray
            One-dimensional, without Python objects.
        """
        if self._refused or mtime_ns >= time.time_ns() - RACY_NS:
            return
        kinds = [[name, v.dtype.str, len(v)] for name, v in columns.items()]
        head = {"state": _state(shard, size, mtime_ns), "columns": kinds}
        line = json.dumps(head).encode() + b"\n"
        rest = b"".join([line, *(v.tobytes() for v in columns.values())])
        said = hashlib.sha256(rest).hexdigest().encode()
        try:
            self._write(self._file(shard), said + b"\n" + rest)
        except OSError as error:
            self._give_up(error)

    def _file(self, shard: str) -> Path:
        name = hashlib.sha256(os.fsencode(shard)).hexdigest()
        return self._folder / f"{name}{_ENDING}"

    def _write(self, path: Path, data: bytes) -> None:
        # Not synced: what a power failure tears does not match its digest.
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            first, self._refused = not self._refused, True
        if first:
            self._tell(
                f"warning: cannot write {shown(self._folder)}: {error.strerror}; each "
                "start will read the headers of all shards again"
            )


def _state(shard: str, size: int, mtime_ns: int) -> list[Any]:
    return [_FORMAT, shard, size, mtime_ns]
