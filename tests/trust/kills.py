"""Kill real extractions at random moments; exit 0 only if every promise held.

python -m tests.trust.kills --count 300 --seed 0
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.shards import SOURCES, as_source
from tests.trust.zygote import BLOCK_ROWS, Zygote, contents, make_folder


class Kills:
    """Extractions that are killed and resumed until they are complete."""

    def __init__(
        self, root: Path, images: int, workers: int, seed: int, source: str = "folder"
    ) -> None:
        self.zygote, self.random, self.workers = Zygote(), random.Random(seed), workers
        now, older = make_folder(root, images, images // 4)
        self.now, before = (as_source(each, source) for each in (now, older))
        self.images, self.missing = images, images // 4
        self.older, whole = root / "older.h5", root / "whole.h5"
        self.run(before, self.older)
        began = time.perf_counter()
        self.run(self.now, whole)
        self.seconds = time.perf_counter() - began
        self.expected, self.old = contents(whole), contents(self.older)
        self.cache = root / "cache" / "it.h5"
        self.kills = self.repeated = 0
        self.found: Counter[str] = Counter()

    def run(self, data: Path, cache: Path) -> None:
        outcome = self.zygote.fork(lambda: self.zygote.extract(data, cache))
        assert outcome.state == "ok", outcome

    def life(self, kills: int) -> None:
        """Kill one extraction up to so many times, then let it end."""
        shutil.rmtree(self.cache.parent, ignore_errors=True)
        self.cache.parent.mkdir()
        new, before = self.images, None
        if self.random.random() < 0.5:
            shutil.copy(self.older, self.cache)
            new, before = self.missing, self.old
        decoded = killed = 0
        while True:
            outcome = self.zygote.fork(
                lambda: self.zygote.extract(self.now, self.cache, self.workers),
                **(self.moment(new) if killed < kills else {}),
            )
            decoded += self.zygote.decoded
            if outcome.state != "killed":
                break
            killed += 1
            self.look(before)
        assert outcome.state == "ok", outcome
        assert contents(self.cache) == self.expected
        left = {path.name for path in self.cache.parent.iterdir()}
        assert left <= {"it.h5", "it.h5.lock", "it.h5.inflight"}, left
        repeated = decoded - new
        assert 0 <= repeated <= killed * self.workers * BLOCK_ROWS, repeated
        self.repeated += repeated
        self.kills += killed

    def moment(self, new: int) -> dict[str, float]:
        """Draw when to kill: after a time, or in the work, however fast the machine.

        A machine that became slower since the first extraction would end every life
        before the work begins if only the time counted.
        """
        if self.random.random() < 0.5:
            return {"kill_after": self.random.uniform(0, self.seconds / 2)}
        return {
            "kill_after": self.random.uniform(0, 0.01),
            "once_decoded": self.random.randint(1, new),
        }

    def look(self, before: dict[str, bytes] | None) -> None:
        """Check what a kill has left behind."""
        if self.cache.exists():
            found = contents(self.cache)
            assert found in (self.expected, before)
            self.found["the old file" if found == before else "the new file"] += 1
        elif self.cache.with_name("it.h5.partial").exists():
            self.found["an unfinished file"] += 1
        else:
            self.found["nothing"] += 1


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--source", default="folder", choices=["folder", *SOURCES])
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as root:
        proof = Kills(Path(root), args.images, args.workers, args.seed, args.source)
        lives = 0
        while proof.kills < args.count:
            proof.life(min(args.count - proof.kills, 5))
            lives += 1
    result = {
        "kills": proof.kills,
        "extractions": lives,
        "images": args.images,
        "workers": args.workers,
        "images_repeated": proof.repeated,
        "images_repeated_at_most": proof.kills * args.workers * BLOCK_ROWS,
        "found_after_kill": dict(proof.found),
        "seconds": round(time.perf_counter() - began, 1),
        "seconds_uninterrupted": round(proof.seconds, 2),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
