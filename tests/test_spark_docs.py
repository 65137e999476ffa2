"""docs/spark.md: its code, run by Spark on this machine, gives what extract gives."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import featcache
from featcache.stages.sources import find_weights
from tests.conftest import make_photos

TEXT = (Path(__file__).parents[1] / "docs/spark.md").read_text("utf-8")
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def spark():
    """Two cores of this machine, as the environment of a Spark driver."""
    pytest.importorskip("pyspark", reason="no Spark here: pip install pyspark")
    if shutil.which("java") is None:
        pytest.skip("no Java here, which Spark runs on")
    conf = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "512m",
    }
    given = " ".join(f"--conf {name}={value}" for name, value in conf.items())
    return os.environ | {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": f"--master local[2] {given} pyspark-shell",
        "PYTHONPATH": str(Path(featcache.__file__).parents[1]),
    }


@pytest.mark.slow
def test_spark_computes_what_extract_computes(spark, tmp_path):
    """Row by row, with a name that URLs escape and one bad image; and the head fits."""
    train = make_photos(tmp_path / "photos", {"train": 12}) / "train"
    (train / "bees/00.jpg").rename(train / "bees/a b%20ü.jpg")
    state = find_weights("resnet18", "random:0").load()
    torch.save(dict(state), tmp_path / "resnet18.pth")
    cache = featcache.extract(
        tmp_path / "photos",
        weights=str(tmp_path / "resnet18.pth"),
        cache=tmp_path / "it.h5",
    )
    (train / "bees/bad.jpg").write_bytes(b"nonsense")
    kept = "np.savez('found', X=X, y=y, paths=table['path'].to_numpy())"
    check = "print(head.score(X[good], y[good]))"
    code = tmp_path / "recipe.py"
    code.write_text("\n".join([*CODE, kept, check]), "utf-8")
    ran = subprocess.run(
        [sys.executable, code],
        cwd=tmp_path,
        env=spark,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"image \d+: no image format that Pillow knows", ran.stderr)
    assert float(ran.stdout) > 0.9
    found = np.load(tmp_path / "found.npz", allow_pickle=True)
    names = [path.removeprefix("file:") for path in found["paths"]]
    rows = {
        os.path.relpath(name, tmp_path / "photos"): (x, label)
        for name, x, label in zip(names, found["X"], found["y"], strict=True)
    }
    assert np.isnan(rows.pop("train/bees/bad.jpg")[0]).all()
    assert sorted(rows) == sorted(map(os.fsdecode, cache.paths))
    features = cache.features()
    for path, expected, label in zip(cache.paths, features.X, features.y, strict=True):
        x, name = rows[os.fsdecode(path)]
        assert name == cache.classes[label]
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)
