"""A decoder that crashes or never returns costs its one image, by name."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.errors import BadImagesError, DecoderHungError
from featcache.core.specs import ExtractSpec, ViewSpec
from featcache.core.status import Status
from featcache.store.ledger import Ledger, ledger_path
from featcache.vision import isolation
from featcache.vision.isolation import crashed, suspicion

posix = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")

# A decoder as hostile as native code can be: loaded by every Python that is started
# with its folder on the path, it crashes or hangs on the files of these names.
HOSTILE = """
import os, signal, time
from featcache.vision import decode as module

plain = module.read_file

def read_file(path):
    if path.name == "crash.jpg":
        signal.raise_signal(signal.SIGSEGV)  # of this thread, as a real one
    if path.name == "hang.jpg":
        time.sleep(3600)
    return plain(path)

module.read_file = read_file
if hasattr(module, "__file__"):
    import sys
    pipeline = sys.modules.get("featcache.vision.pipeline")
    if pipeline is not None:
        pipeline.read_file = read_file
"""


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Put the hostile decoder into every Python started from here on."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOSTILE)
    root = Path(featcache.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root)]))


@pytest.fixture
def spoilt(photos):
    """Two images with the names that the hostile decoder waits for."""
    (photos / "train" / "ants" / "00.jpg").rename(photos / "train/ants/crash.jpg")
    (photos / "val" / "bees" / "00.jpg").rename(photos / "val/bees/hang.jpg")
    return photos


@pytest.mark.slow
@posix
def test_a_suspect_is_tried_in_a_process_of_its_own(hostile, spoilt):
    """Crash, hang and health are told apart."""
    view = ViewSpec()
    assert suspicion(spoilt / "train/ants/01.jpg", view) is None
    assert "crashes the process (SIGSEGV)" in suspicion(
        spoilt / "train/ants/crash.jpg", view
    )
    hung = suspicion(spoilt / "val/bees/hang.jpg", view, seconds=3)
    assert hung == "decoding it does not end within 3 s"


def test_a_damaged_image_is_no_suspect(tmp_path):
    """What the decoder refuses by itself is named by itself."""
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert suspicion(tmp_path / "a.jpg", ViewSpec()) is None


@posix
@pytest.mark.slow
def test_a_crash_costs_one_image_and_the_run_goes_on(hostile, spoilt, tmp_path):
    """The command restarts its worker, names the image, and computes all others."""
    (spoilt / "val/bees/hang.jpg").unlink()
    command = [sys.executable, "-m", "featcache", "extract", str(spoilt)]
    command += ["--weights", "random:0", "--cache", "c.h5"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "an image took the process down" in done.stderr
    assert "crash.jpg: decoding it crashes the process (SIGSEGV)" in done.stderr
    skipped = subprocess.run(
        [*command, "--on-error", "skip"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert skipped.returncode == 0, skipped.stderr
    assert "computed 0, reused 18, skipped 1" in skipped.stdout
    cache = featcache.open_cache(tmp_path / "c.h5")
    assert Status.QUARANTINED in cache.status
    assert sorted(p.name for p in tmp_path.glob("c.h5*")) == ["c.h5"]


@posix
@pytest.mark.slow
def test_a_crash_that_no_image_caused_ends_the_run(tmp_path, photos, monkeypatch):
    """The command does not start again and again, and does not blame an image."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, signal\n"
        "if 'FEATCACHE_CHILD' in os.environ: os.kill(os.getpid(), signal.SIGABRT)\n"
    )
    root = Path(featcache.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root)]))
    done = subprocess.run(
        [sys.executable, "-m", "featcache", "extract", str(photos)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGABRT
    assert done.stderr.count("the process crashed (6), and not over an image") == 1


@posix
@pytest.mark.slow
def test_modules_in_the_users_folder_are_not_run(tmp_path, photos):
    """A queue.py beside the images is the user's business."""
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong module ran')")
    program = "import sys; sys.argv[0] = 'featcache'; "
    program += "from featcache.cli.main import run; run()"
    words = ["extract", "photos", "--weights", "random:0"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "20 images x 512" in done.stdout


def test_a_suspect_that_is_healthy_is_computed(photos, tmp_path):
    """Being in work when the process was killed is no guilt."""
    target = tmp_path / "c.h5"
    lines = np.zeros((1024, 2), "<i8")
    lines[0] = (3 + 1, 1)
    ledger_path(target).write_bytes(lines.tobytes())
    cache = featcache.extract(photos, weights="random:0", cache=target)
    assert cache.report.computed == 20
    assert not ledger_path(target).exists()


@pytest.mark.slow
@posix
def test_a_guilty_suspect_is_left_out_and_stays_out(
    hostile, spoilt, tmp_path, monkeypatch
):
    """Quarantine is written down: the next run does not try the image again."""
    (spoilt / "val/bees/hang.jpg").unlink()
    target = tmp_path / "c.h5"
    lines = np.zeros((1024, 2), "<i8")
    row = 5  # crash.jpg, after 01 to 05
    lines[7] = (row + 1, 1)
    ledger_path(target).write_bytes(lines.tobytes())
    with pytest.raises(BadImagesError, match=r"crash\.jpg: .*\(SIGSEGV\)"):
        featcache.extract(spoilt, weights="random:0", cache=target)
    monkeypatch.setattr(isolation, "suspicion", pytest.fail)
    skip = ExtractSpec(on_error="skip")
    cache = featcache.extract(spoilt, skip, weights="random:0", cache=target)
    assert (cache.report.computed, cache.report.skipped) == (0, 1)
    assert cache.status[row] == Status.QUARANTINED


def test_a_decoder_that_hangs_is_named_and_kept_for_the_next_run(
    photos, tmp_path, monkeypatch
):
    """The run ends with the image's name, which stays in the ledger for the next."""
    from featcache.vision import pipeline

    def patient(path):
        if path.name == "03.jpg":
            time.sleep(20)
        return plain(path)

    plain = pipeline.read_file
    monkeypatch.setattr(pipeline, "read_file", patient)
    monkeypatch.setattr(pipeline, "_PATIENCE", 0.1)
    monkeypatch.setattr("featcache.stages.filling.SECONDS", 0.5)
    target = tmp_path / "c.h5"
    with pytest.raises(DecoderHungError, match=r"03\.jpg does not end within 0\.5 s"):
        featcache.extract(photos, weights="random:0", cache=target)
    with Ledger(ledger_path(target)) as ledger:
        assert ledger.suspects


@pytest.mark.parametrize(
    ("returncode", "expected"),
    [
        pytest.param(-signal.SIGSEGV, True, id="crash"),
        pytest.param(0xC0000005, True, id="access violation of Windows"),
        pytest.param(0, False, id="done"),
        pytest.param(1, False, id="an error of ours"),
        pytest.param(-9, False, id="killed from outside"),
        pytest.param(130, False, id="Ctrl-C"),
    ],
)
def test_what_counts_as_a_crash(returncode, expected):
    """Only faults of native code start the work again."""
    assert crashed(returncode) is expected
