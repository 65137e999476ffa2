"""The command export: what it prints, and with which exit code."""

import json
import typing

import click
import numpy as np
import pytest

from featcache.cli.exporting import export
from featcache.stages.exporting import Target
from featcache.stages.model_exporting import MODEL_FORMATS, ModelTarget
from featcache.store.tables import FORMATS
from tests.cli.test_commands import cached, run  # noqa: F401 - fixtures
from tests.stages.test_extraction import sampled_pixels

CACHE = "cache/photos-resnet18.h5"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Put sampled pixels in the network's place."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)


def test_export_says_what_it_wrote(run, cached, tmp_path):  # noqa: F811
    """A line for people, or the report."""
    said = run("export", CACHE, "--to", "npy").stdout
    assert said.startswith("cache/photos-resnet18-npy: 20 images x 512 (")
    assert ", skipped 0 in " in said
    report = json.loads(
        run("export", CACHE, "--to", "csv", "--out", "a.csv", "--json").stdout
    )
    assert set(report) == {
        "source", "to", "out", "images", "skipped", "embed_dim", "bytes", "seconds",
    }  # fmt: skip
    assert report["out"] == "a.csv"
    assert len((tmp_path / "a.csv").read_text("utf-8").splitlines()) == 21
    X = np.load(tmp_path / "cache/photos-resnet18-npy/X.npy", mmap_mode="r")
    assert X.shape == (20, 512)


def test_errors_and_usage(run, cached):  # noqa: F811
    """Exit 1 for what is there or missing, 2 for a format that is not."""
    run("export", CACHE, "--to", "csv")
    assert "--overwrite" in run("export", CACHE, "--to", "csv", code=1).stderr
    run("export", CACHE, "--to", "csv", "--overwrite")
    assert "no cache" in run("export", "none.h5", "--to", "csv", code=1).stderr
    run("export", CACHE, "--to", "xlsx", code=2)
    run("export", CACHE, code=2)
    unused = run("export", CACHE, "--to", "npy", "--weights", "w.pth", code=2)
    assert "--weights does nothing with --to npy" in unused.stderr
    assert "is a cache" in run("export", CACHE, "--to", "pt2", code=1).stderr


def test_a_model_is_exported(run, cached, tmp_path):  # noqa: F811
    """A line for people, or the report; a cache's formats are refused."""
    run("fit-head", "--epochs", 1, "--out", "head")
    said = run("export", "head", "--to", "torch").stdout
    assert said.startswith("head/model.pth: resnet18 with linear head, 2 classes (")
    assert ", and model.pth.json in " in said
    words = ("head", "--to", "torch", "--out", "a.safetensors", "--json")
    report = json.loads(run("export", *words).stdout)
    assert set(report) == {
        "source", "to", "out", "about", "backbone", "head", "classes", "bytes",
        "sha256", "seconds",
    }  # fmt: skip
    assert report["bytes"] == (tmp_path / "a.safetensors").stat().st_size
    assert "--overwrite" in run("export", "head", "--to", "torch", code=1).stderr
    assert "no cache" in run("export", "head", "--to", "csv", code=1).stderr


def test_the_formats_are_the_same_everywhere():
    """The command's choices are written down, so that --help loads no numpy."""
    choices = next(p.type for p in export.params if p.name == "to")
    assert isinstance(choices, click.Choice)
    assert tuple(choices.choices) == (*FORMATS, *MODEL_FORMATS)
    assert tuple(FORMATS) == typing.get_args(Target)
    assert tuple(MODEL_FORMATS) == typing.get_args(ModelTarget)
