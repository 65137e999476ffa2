"""Let every system call that writes a cache fail, or kill the process there.

python -m tests.trust.faults --most 0 --seed 0
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.trust.zygote import Outcome, Zygote, contents, make_folder

CALLS = ("open", "pwrite", "write", "fsync", "posix_fallocate", "ftruncate")
CALLS += ("replace", "close")
ANY = ("kill", "ENOSPC", "EIO")
WRITES = ("kill", "torn", "short", "ENOSPC", "EIO", "EDQUOT")
ELSEWHERE = ("kill", "torn", "EIO")  # from every start but the first

KEPT = {"it.h5", "it.h5.partial", "it.h5.partial.old"}  # what an error may leave
KILLED = {"it.h5.lock", "it.h5.inflight"}  # and what a kill may
IMAGES, LEFT_OUT = 20, 5


class Faults:
    """Counts the calls on files of one folder; one of them fails."""

    def __init__(self, folder: Path, number: int = -1, kind: str = "") -> None:
        self.folder, self.number, self.kind = os.fspath(folder), number, kind
        self.trace: list[str] = []
        self._files: set[int] = set()

    def install(self) -> None:
        """Take the place of the calls in `os`; for a process that ends soon."""
        for name in CALLS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real):
        def call(*args, **kwargs):
            if not self._concerns(name, args[0]):
                return real(*args, **kwargs)
            self.trace.append(name)
            if len(self.trace) - 1 == self.number:
                return self._fail(name, real, args, kwargs)
            result = real(*args, **kwargs)
            if name == "open":
                self._files.add(result)
            elif name == "close":
                self._files.discard(args[0])
            return result

        return call

    def _concerns(self, name: str, subject: Any) -> bool:
        if name in ("open", "replace"):
            return os.fspath(subject).startswith(self.folder)
        return subject in self._files

    def _fail(self, name: str, real, args, kwargs):
        if self.kind in ("short", "torn"):
            half = memoryview(args[1]).cast("B")[: max(1, len(args[1]) // 2)]
            result = real(args[0], half, *args[2:])
            if self.kind == "short":
                return result
        if self.kind in ("kill", "torn"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "close":  # as Linux: the descriptor is gone, error or not
            self._files.discard(args[0])
            real(*args, **kwargs)
        number = getattr(errno, self.kind)
        raise OSError(number, os.strerror(number))


class Proof:
    """Extractions from several beginnings, with one fault each."""

    def __init__(self, root: Path) -> None:
        self.zygote, self.root = Zygote(), root
        self.now, self.before = make_folder(root, IMAGES, LEFT_OUT)
        self.folder = root / "cache"
        self.cache = self.folder / "it.h5"
        self.expected = self._whole(self.now)
        self.old = self._whole(self.before)
        # The folder as an extraction may find it. Call 30 is within the rows.
        self.starts = {"nothing": None, "the older cache": self._keep("older")}
        for name, data in (("half", self.now), ("half of the older", self.before)):
            self._clear(None)
            outcome = self._extract(data, Faults(self.folder, 30, "kill"))
            assert outcome.state == "killed", outcome
            self.starts[name] = self._keep(name)
        self.ends: Counter[str] = Counter()

    def _whole(self, data: Path) -> dict[str, bytes]:
        self._clear(None)
        outcome = self._extract(data, Faults(self.folder))
        assert outcome.state == "ok", outcome
        return contents(self.cache)

    def _keep(self, name: str) -> Path:
        return Path(shutil.copytree(self.folder, self.root / name))

    def _clear(self, start: Path | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if start is not None:
            shutil.copytree(start, self.folder)

    def _extract(self, data: Path, faults: Faults) -> Outcome:
        def action() -> list[str]:
            faults.install()
            self.zygote.extract(data, self.cache)
            return faults.trace

        return self.zygote.fork(action)

    def cases(self) -> list[tuple[str, int, str, str]]:
        """Return every (start, number of the call, its name, kind of fault)."""
        found = []
        for name, start in self.starts.items():
            self._clear(start)
            trace = self._extract(self.now, Faults(self.folder)).value
            for number, call in enumerate(trace):
                kinds = WRITES if call in ("pwrite", "write") else ANY
                if start is not None:
                    kinds = tuple(kind for kind in kinds if kind in ELSEWHERE)
                found += [(name, number, call, kind) for kind in kinds]
        return found

    def prove(self, case: tuple[str, int, str, str]) -> None:
        """Inject one fault, look at what is left, and resume."""
        name, number, _, kind = case
        self._clear(self.starts[name])
        outcome = self._extract(self.now, Faults(self.folder, number, kind))
        self._look(outcome, kind, KILLED if name.startswith("half") else set())
        self.ends[outcome.state] += 1
        again = self._extract(self.now, Faults(self.folder))
        assert again.state == "ok", again
        assert contents(self.cache) == self.expected, "resumed to other bytes"
        # A complete cache is answered without the lock, so a dead one's may stay.
        self._nothing_but({"it.h5"} | (KILLED if outcome.state == "killed" else set()))

    def _look(self, outcome: Outcome, kind: str, before: set[str]) -> None:
        if self.cache.exists():
            assert contents(self.cache) in (self.expected, self.old), "a bad file"
        if kind in ("kill", "torn"):
            assert outcome.state == "killed", outcome
            return
        if outcome.state == "error":
            error, message = outcome.value
            assert error == "StorageError", message
            assert message.startswith("cannot write "), message
            assert os.strerror(getattr(errno, kind)) in message
            assert ("make room" in message) == (kind != "EIO"), message
            assert "\n" not in message
        else:
            assert outcome.state == "ok", outcome.value
        self._nothing_but(KEPT | before)

    def _nothing_but(self, names: set[str]) -> None:
        left = {path.name for path in self.folder.iterdir()} - names
        assert not left, f"left behind: {left}"


def main() -> None:
    """Print one line of JSON, or every case that broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--most", type=int, default=60, help="0: all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    failed = []
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # fsync is free
    with tempfile.TemporaryDirectory(dir=memory) as root:
        proof = Proof(Path(root))
        every = proof.cases()
        chosen = random.Random(args.seed).sample(every, args.most or len(every))
        for case in chosen:
            try:
                proof.prove(case)
            except Exception as error:
                failed.append(f"{case}: {str(error)[-600:]}")
    result = {
        "faults": len(chosen),
        "possible": len(every),
        "calls": sum(kind == "kill" for *_, kind in every),
        "kinds": dict(sorted(Counter(kind for *_, kind in chosen).items())),
        "ends": dict(sorted(proof.ends.items())),
        "seconds": round(time.perf_counter() - began, 1),
    }
    if failed:
        sys.stdout.write("\n".join(failed) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
