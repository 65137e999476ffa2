"""Extraction on three Ray hosts with their own addresses, one of which is cut off."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import featcache
from featcache.core.specs import ExtractSpec
from tests.conftest import make_photos
from tests.ray_hosts import HASTY, hosts
from tests.stages.test_crew import blocks_done, contents, until

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

# Loaded by every Python that is started with its folder on the path.
SLOW = """
import time
from featcache.vision import decode as module

plain = module.read_file

def read_file(path):
    time.sleep(0.15)
    return plain(path)

module.read_file = read_file
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """30 blocks of 8 images, a bad one among them."""
    folder = tmp_path_factory.mktemp("lan") / "photos"
    made = make_photos(folder, {"train": 80, "val": 40})
    (made / "train/bees/03.jpg").write_bytes(b"nonsense")
    return made


@pytest.fixture(scope="module")
def expected(photos):
    """Every column that this machine alone gives."""
    alone = ExtractSpec(device="cpu", on_error="skip")
    cache = photos.with_name("one.h5")
    return contents(featcache.extract(photos, alone, weights="random:0", cache=cache))


@pytest.fixture
def slow_images(tmp_path, monkeypatch):
    """Images take 0.15 s more each, in every process started from here on."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    )


class Command:
    """``featcache extract --engine ray`` on host 0."""

    def __init__(self, lan, photos, cache) -> None:
        self._partial = cache.with_name(f"{cache.name}.partial")
        words = ["--engine", "ray", "--address", lan.address, "--actor-cpus", "1"]
        words += ["--weights", "random:0", "--on-error", "skip", "--json"]
        self._process = lan.popen(
            0,
            [
                *(sys.executable, "-m", "featcache", "extract", str(photos)),
                *("--cache", str(cache), *words),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @property
    def done(self) -> int:
        """Blocks."""
        assert self._process.poll() is None, self._process.stderr.read().decode()
        return blocks_done(self._partial)

    def end(self) -> tuple[dict, str]:
        """Return what it says in the end, on stdout and stderr."""
        out, said = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, said.decode()
        return json.loads(out), said.decode()


def test_a_host_that_is_cut_off_costs_its_blocks_in_flight(
    photos, expected, slow_images, tmp_path
):
    """Others compute them; the host comes back, and the bytes are those of one."""
    with hosts(3, settings=HASTY) as lan:
        command = Command(lan, photos, tmp_path / "it.h5")
        until(lambda: command.done >= 5)
        lan.cut(2)
        cut_at = command.done
        until(lambda: command.done >= cut_at + 8)
        lan.mend(2)
        until(lambda: not lan.is_up(2))
        lan.start(2)
        report, said = command.end()
    assert re.search(r"host2 \(\d\) is lost .* to be computed again", said)
    assert report["computed"] == 239
    with featcache.open_cache(tmp_path / "it.h5") as cache:
        assert contents(cache) == expected


def test_a_network_that_stutters_costs_nothing(photos, expected, slow_images, tmp_path):
    """Cut for less than Ray waits: nobody is lost."""
    with hosts(3, settings={}) as lan:
        command = Command(lan, photos, tmp_path / "it.h5")
        until(lambda: command.done >= 5)
        lan.cut(2)
        time.sleep(5)
        lan.mend(2)
        report, said = command.end()
        assert lan.is_up(2)
    assert "lost" not in said
    assert report["computed"] == 239
    with featcache.open_cache(tmp_path / "it.h5") as cache:
        assert contents(cache) == expected
