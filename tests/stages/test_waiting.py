"""Two at once: waiting for another writer, and reading while one writes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main
from featcache.core.specs import ExtractSpec
from featcache.store.lock import writing
from tests.conftest import picture
from tests.stages.test_extraction import Listener, sampled_pixels

pytest.importorskip("fcntl", reason="Windows locks by other means")

ROOT = Path(__file__).parents[2]
TARGET = Path("cache/photos-resnet18.h5")
HOLD_A_SECOND = """
import sys, time
from pathlib import Path
from featcache.store.lock import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Sampled pixels in the network's place; the test's own folder."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)
    monkeypatch.chdir(tmp_path)


@contextmanager
def holder(seconds):
    """Hold the lock in another process for a time."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_SECOND, TARGET, str(seconds)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@contextmanager
def waiting(photos, spec):
    """Extract in another thread, which waits when this begins and is done after."""
    results, listener = [], Listener()

    def run():
        settings = {"weights": "random:0", "progress": listener}
        results.append(featcache.extract(photos, spec, **settings))

    with writing(TARGET):
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while not any(line.endswith("; waiting") for line in listener.lines):
            assert thread.is_alive()
            time.sleep(0.01)
        yield results
    thread.join(60)
    assert sum("is being written by" in line for line in listener.lines) == 1


def test_the_command_waits_for_another_process(photos):
    """It tells for whom, and then does all of its work."""
    words = ["extract", str(photos), "--weights", "random:0", "--wait", "--json"]
    with holder(1) as process:
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["computed"] == 20
    assert f"is being written by process {process.pid} on " in result.stderr
    assert [p.name for p in TARGET.parent.iterdir()] == [TARGET.name]


def test_the_wait_ends_when_the_other_is_killed(photos):
    """A dead holder's claim is taken over."""
    with holder(600) as process:
        timer = threading.Timer(0.5, process.send_signal, [signal.SIGKILL])
        timer.start()
        cache = featcache.extract(photos, ExtractSpec(wait=True), weights="random:0")
        timer.join()
    assert cache.report.computed == 20
    assert [p.name for p in TARGET.parent.iterdir()] == [TARGET.name]


def test_what_the_other_did_is_not_done_again(photos):
    """After the wait the cache is looked at anew."""
    other = featcache.extract(photos, weights="random:0", cache="other.h5")
    with waiting(photos, ExtractSpec(wait=True)) as results:
        other.path.replace(TARGET)
    assert results[0].report.computed == 0


def test_the_folder_is_looked_at_again_after_the_wait(photos):
    """It may have changed in hours; no row is of yesterday."""
    with waiting(photos, ExtractSpec(wait=True)) as results:
        picture(5, (1, 2, 3)).save(photos / "val" / "bees" / "late.png")
    assert results[0].report.images == results[0].report.computed == 21


def test_a_reader_keeps_the_file_that_it_opened(photos):
    """While and after a re-extraction with other settings replaces it."""
    first = featcache.extract(photos, weights="random:0")
    with featcache.open_cache(first.path) as reader:
        before = reader.features().X.copy()
        picture(5, (1, 2, 3)).save(photos / "train" / "ants" / "00.jpg")
        second = featcache.extract(
            photos, ExtractSpec(overwrite=True), weights="random:0", dtype="float16"
        )
        assert (second.path, second.spec.dtype) == (first.path, "float16")
        assert np.array_equal(reader.features().X, before)
        reader.check()
        with featcache.open_cache(first.path) as newer:
            assert not np.array_equal(newer.features().X, before)
