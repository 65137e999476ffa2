"""Histories: what a run's folder tells of its epochs, finished or not."""

from dataclasses import asdict, replace

import numpy as np
import pytest

import featcache
from featcache.core.errors import CheckpointError, ModelError
from featcache.core.manifest import TRAIN
from featcache.core.reports import EpochRecord
from featcache.stages.histories import read_run
from featcache.store.checkpoints import save_checkpoint
from tests.store.conftest import make_content

EPOCHS = tuple(
    EpochRecord(n, 0.1 / n, 1 / n, 1 - 0.5 / n, 0.3, 0.9, 0.01) for n in (1, 2, 3)
)


@pytest.fixture
def cache(tmp_path):
    return make_content(24).complete(tmp_path / "it.h5")


@pytest.fixture
def run(cache, tmp_path):
    """The folder of a run of three epochs."""
    featcache.fit_head(cache, featcache.SgdSpec(epochs=3), out=tmp_path / "run")
    return tmp_path / "run"


def test_the_history_is_that_of_the_training(cache, tmp_path):
    """Every digit of it; a file of the folder names the run, too."""
    fitted = featcache.fit_head(cache, featcache.SgdSpec(epochs=3), out=tmp_path / "a")
    assert read_run(tmp_path / "a").records == fitted.history
    found = read_run(fitted.model)
    assert (found.name, found.records, found.finished) == ("a", fitted.history, True)
    assert found.best_epoch == fitted.report.best_epoch


def test_without_val_its_values_are_none(tmp_path):
    content = make_content(24)
    splits = np.full(24, TRAIN, np.uint8)
    content = replace(content, manifest=replace(content.manifest, splits=splits))
    cache = content.complete(tmp_path / "train.h5")
    fitted = featcache.fit_head(cache, featcache.SgdSpec(epochs=2), out=tmp_path / "b")
    found = read_run(tmp_path / "b").records
    assert found == fitted.history
    assert [(e.val_loss, e.val_accuracy) for e in found] == [(None, None)] * 2


def test_an_interrupted_run_is_read_from_its_checkpoint(run):
    """Also where the folder holds files of a run before it."""
    about = {"history": [asdict(e) for e in EPOCHS], "best": asdict(EPOCHS[1])}
    save_checkpoint(run / "checkpoint", {"w": np.ones(3, np.float32)}, about)
    found = read_run(run)
    assert (found.records, found.best_epoch, found.finished) == (EPOCHS, 2, False)


def test_a_damaged_checkpoint_is_an_error(run):
    folder = run / "checkpoint"
    folder.mkdir()
    (folder / "checkpoint.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        read_run(run)


def test_a_solver_without_epochs_has_no_history(cache, tmp_path):
    featcache.fit_head(cache, featcache.KnnSpec(k=1), out=tmp_path / "k")
    with pytest.raises(ModelError, match="was fitted by knn, which has no epochs"):
        read_run(tmp_path / "k")


def test_a_folder_that_is_none_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="nowhere is no folder; expected that of a"):
        read_run(tmp_path / "nowhere")


HEAD = "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds\n"


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("report.json", None, "there is no .*report.json; expected the folder"),
        ("history.csv", None, "there is no .*history.csv; expected the folder"),
        ("report.json", "{", "report.json cannot be read"),
        ("report.json", "[" * 100_000, "report.json cannot be read"),
        ("report.json", "[1]", "it holds no object"),
        ("report.json", '{"best_epoch": 9}', "epoch 9 was the best, but history.csv"),
        ("report.json", '{"best_epoch": [1]}', r"epoch \[1\] was the best"),
        ("history.csv", "", "history.csv has no epoch"),
        ("history.csv", HEAD, "history.csv has no epoch"),
        ("history.csv", "epoch,lr\n1,2\n", "epoch 1 has no train_loss"),
        ("history.csv", HEAD + "1,x,1,1,1,1,1\n", "could not convert string to float"),
        ("history.csv", HEAD + "1,1,,1,1,1,1\n", "could not convert string to float"),
        ("history.csv", HEAD + "nan,1,1,1,1,1,1\n", "cannot convert float NaN"),
        ("history.csv", HEAD + "inf,1,1,1,1,1,1\n", "cannot convert float infinity"),
        ("history.csv", HEAD + "1,1\n", "epoch 1 has no train_loss"),
        ("history.csv", "\0", "history.csv"),
    ],
)
def test_a_damaged_run_is_an_error(run, file, text, match):
    if text is None:
        (run / file).unlink()
    else:
        (run / file).write_text(text)
    with pytest.raises(ModelError, match=match):
        read_run(run)


def test_bytes_that_are_no_text_are_an_error(run):
    (run / "history.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"history.csv cannot be read"):
        read_run(run)
