"""Heads fitted by several processes: those that one process would fit."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.errors import DeviceError, SpecError
from featcache.core.resources import Resources
from featcache.core.solver_specs import RidgeSpec
from featcache.store.artifacts import open_model
from tests.conftest import make_photos
from tests.stages import fit_together
from tests.stages.test_extraction import age, sampled_pixels

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/stages/fit_together.py"
ITS_OWN = ("seconds", "model", "heads")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The photos' cache in one file and in three, and one of several views."""
    folder = tmp_path_factory.mktemp("together")
    photos = make_photos(folder / "photos", {"train": 24, "val": 12, "test": 5})
    age(photos)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featcache.vision.forward.embedder", sampled_pixels)
        how = {"weights": "random:0"}
        featcache.extract(photos, cache=folder / "whole.h5", **how)
        for part in ("1/3", "2/3", "3/3"):
            for name, views in (("photos", 1), ("viewed", 3)):
                cache = folder / f"{name}.h5"
                featcache.extract(
                    photos, cache=cache, views=views, shard=part, **how
                ).close()
    return folder


def start(folder, *words):
    """Start two processes as torchrun does; return what each found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    told |= {"MASTER_PORT": port, "OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT}
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, folder, *words],
            env={
                **os.environ,
                **{k: str(v) for k, v in told.items()},
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return [json.loads((folder / f"found-{r}.json").read_text()) for r in range(2)]


@pytest.fixture(scope="module")
def together(folder):
    """What the two found; they are started once for all cases."""
    return start(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", fit_together.CASES)
def test_the_head_is_that_of_one_process(folder, together, name):
    """To rounding; with the same report, and the same to the bit in both."""
    (report, weight), second = (found[name] for found in together)
    assert second[1] == weight
    alone = fit_together.fit(folder, name, processes=2, out=folder / f"alone {name}")
    scale = np.abs(alone.head.weight).max()
    assert np.allclose(weight, alone.head.weight, atol=2e-5 * scale, rtol=0)
    expected = json.loads(json.dumps(alone.report.to_json()))
    assert report.keys() == expected.keys()
    for key in report.keys() - set(ITS_OWN):
        numbers = not isinstance(report[key], str | None)
        wanted = expected[key]
        close = pytest.approx(wanted, rel=1e-4, abs=1e-6) if numbers else wanted
        assert report[key] == close, key
    model = open_model(folder / f"together {name}")
    assert model.head.weight.tolist() == weight


@pytest.mark.slow
def test_each_process_reads_its_own_rows(together, folder):
    """Together all of them, none twice, and from few files."""
    own = [{tuple(row) for row in found["read"]} for found in together]
    assert not own[0] & own[1]
    with featcache.open_cache(folder / fit_together.PARTS) as cache:
        assert len(own[0] | own[1]) == len(cache)
    assert abs(len(own[0]) - len(own[1])) <= 3
    files = [{name for name, _ in rows} for rows in own]
    assert len(files[0]) + len(files[1]) == 4  # one of three files is shared


@pytest.mark.slow
def test_what_one_cannot_open_stops_both(folder):
    """The one says why; the other that it heard so."""
    found = start(folder, "failing")
    for case, error, message in (
        ("missing", "CacheNotFoundError: ", "part 3 of 3 is missing beside"),
        ("other", "CacheMismatchError: ", "do not find the same images in"),
    ):
        first, second = (one[case] for one in found)
        assert first.startswith("PeerError: ")
        assert second.startswith(error)
        assert message in first
        assert message in second


@pytest.mark.slow
def test_torchrun_extracts_parts_and_fits_a_head_of_them(tmp_path):
    """The command lines of the documentation; one report, on one process's stdout."""
    make_photos(tmp_path / "photos", {"train": 8, "val": 4})

    def run(*words):
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", "2", "-m", "featcache", *words),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    run("extract", "photos", "--weights", "random:0", "--shard", "auto")
    parts = "cache/photos-resnet18-part-*-of-2.h5"
    report = json.loads(run("fit-head", parts, "--epochs", "2", "--json"))
    (folder,) = (tmp_path / "runs").iterdir()
    assert report["model"] == f"runs/{folder.name}/model.safetensors"
    model = open_model(folder)
    with featcache.open_cache(tmp_path / parts) as cache:
        assert len(cache) == 24
        assert model.classes == cache.classes
    assert (
        report["val_accuracy"] == featcache.evaluate(model, tmp_path / parts).accuracy
    )


def test_only_sgd_on_the_cpu_works_in_several_processes(monkeypatch, tmp_path):
    """Said before anybody waits for anybody."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match="only the solver sgd works in several"):
        featcache.fit_head(tmp_path / "it.h5", RidgeSpec())
    with pytest.raises(DeviceError, match="several processes fit a head on the CPU"):
        featcache.fit_head(tmp_path / "it.h5", resources=Resources(device="cuda"))
