"""An image that took the process down is tried apart by the next one, once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.errors import DecoderHungError
from featcache.core.machine import CHILD
from featcache.core.predictions import ImageFile
from featcache.core.specs import SgdSpec, ViewSpec
from featcache.stages import guarding
from featcache.stages.guarding import UNGUARDED, guarded

IMAGE = ImageFile("photos/caf\udce9.jpg", 1, 2)
OTHER = ImageFile("photos/b.jpg", 1, 2)


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Work as the child of a command; return the folder of its files."""
    monkeypatch.setenv(CHILD, str(tmp_path / "note"))
    return tmp_path


def died_over(folder, *images):
    """Leave behind what a process does that died while it decoded images."""
    lines = np.zeros((1024, 2), "<i8")
    for slot, image in enumerate(images):
        lines[slot] = (image.key + 1, 1)
    (folder / "inflight").write_bytes(lines.tobytes())


def test_a_guilty_image_is_tried_once(child, monkeypatch):
    """The verdict outlives later crashes; the healthy suspect is let go."""
    tried = []

    def suspicion(file, view):
        tried.append(str(file))
        return "crashes" if str(file) == IMAGE.name else None

    monkeypatch.setattr(guarding, "suspicion", suspicion)
    died_over(child, IMAGE, OTHER)
    for _ in range(2):
        with guarded() as (guard, folder):
            assert folder == child
            assert guard.sentence(IMAGE, ViewSpec()) == "crashes"
            assert guard.sentence(OTHER, ViewSpec()) is None
        died_over(child, OTHER)
    assert tried == [IMAGE.name, OTHER.name, OTHER.name]


def test_a_decoder_that_hangs_is_named(child, monkeypatch):
    """And stays in the ledger for the next process."""
    monkeypatch.setattr(guarding, "SECONDS", -1)
    with guarded() as (guard, _):
        guard.watch()
        named = r"photos/caf\\xe9\.jpg does not end"
        with guard.decoding(IMAGE), pytest.raises(DecoderHungError, match=named):
            guard.watch()
    assert (child / "inflight").exists()


def test_nothing_is_written_in_the_users_own_process(monkeypatch):
    monkeypatch.delenv(CHILD, raising=False)
    with guarded() as (guard, folder):
        assert guard is UNGUARDED
        assert guard.sentence(IMAGE, ViewSpec()) is None
    assert not folder.exists()


HOSTILE = """
import signal, sys
from featcache.vision import decode as module

plain = module.read_file

def read_file(path):
    if path.name == "crash.jpg":
        signal.raise_signal(signal.SIGSEGV)
    return plain(path)

module.read_file = read_file
pipeline = sys.modules.get("featcache.vision.pipeline")
if pipeline is not None:
    pipeline.read_file = read_file
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_a_crash_costs_predict_one_image(shared_photos, tmp_path):
    """Each image is told once, the guilty one by name, and the exit code is 1."""
    cache = featcache.extract(
        shared_photos, weights="random:0", cache=tmp_path / "a.h5"
    )
    model = featcache.fit_head(cache, SgdSpec(lr=1e-4), out=tmp_path / "run").model
    photos = tmp_path / "photos"
    shutil.copytree(shared_photos / "val", photos)
    (photos / "ants/01.jpg").rename(photos / "ants/crash.jpg")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(HOSTILE)
    paths = [tmp_path / "site", Path(featcache.__file__).parents[1]]
    done = subprocess.run(
        [sys.executable, "-m", "featcache", "predict", str(model), str(photos)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "an image took the process down" in done.stderr
    assert "crash.jpg: decoding it crashes the process (SIGSEGV)" in done.stderr
    told = [Path(line.split("\t")[0]).name for line in done.stdout.splitlines()]
    assert len(told) == 7
    assert "crash.jpg" not in told
