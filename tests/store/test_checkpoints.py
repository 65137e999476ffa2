"""A checkpoint is there whole, or is refused."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featcache.core.errors import CheckpointError, StorageError
from featcache.store import files
from featcache.store.checkpoints import (
    read_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)

ROOT = Path(__file__).parents[2]
TENSORS = {
    "model.weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "model.tracked": np.array(7, np.int64),
    "optimizer.0.step": np.array(3.0, np.float32),
}
ABOUT = {"epochs": 2, "history": [{"loss": 0.1 + 0.2}, {"loss": 1e-300}], "best": None}


@pytest.fixture
def folder(tmp_path):
    """A folder with a checkpoint in it."""
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, TENSORS, ABOUT)
    return folder


def tensors_file(folder):
    (file,) = folder.glob("*.safetensors")
    return file


NUMBERS = st.sampled_from([np.float32, np.float64, np.int64, np.uint8])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
STATES = st.dictionaries(
    st.text("abc.019_", min_size=1),
    NUMBERS.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)),
    max_size=4,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(STATES, st.dictionaries(st.text(), JSON, max_size=3))
def test_what_is_read_is_what_was_written(tmp_path_factory, tensors, about):
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    save_checkpoint(folder, tensors, about)
    found = read_checkpoint(folder)
    assert found.folder == folder
    assert found.about == about
    assert found.tensors.keys() == tensors.keys()
    for name, expected in tensors.items():
        assert found.tensors[name].dtype == expected.dtype
        assert found.tensors[name].flags.writeable
        np.testing.assert_array_equal(found.tensors[name], expected, strict=True)


def test_a_transposed_tensor_keeps_its_values(tmp_path):
    turned = np.arange(6.0).reshape(2, 3).T
    save_checkpoint(tmp_path, {"turned": turned}, {})
    np.testing.assert_array_equal(read_checkpoint(tmp_path).tensors["turned"], turned)


def test_the_one_before_is_gone(folder):
    save_checkpoint(folder, {"weight": np.ones(3)}, {"epochs": 3})
    assert read_checkpoint(folder).about == {"epochs": 3}
    assert len(list(folder.iterdir())) == 2


def test_no_checkpoint_is_none(tmp_path):
    assert read_checkpoint(tmp_path) is None
    assert read_checkpoint(tmp_path / "nowhere") is None


def test_any_changed_byte_is_found(folder):
    for file in list(folder.iterdir()):
        whole = file.read_bytes()
        for position in range(0, len(whole), 3):
            broken = bytearray(whole)
            broken[position] ^= 1 << position % 8
            file.write_bytes(broken)
            with pytest.raises(CheckpointError):
                read_checkpoint(folder)
        file.write_bytes(whole)
    assert read_checkpoint(folder).about == ABOUT


@pytest.mark.parametrize("which", ["checkpoint.json", "*.safetensors"])
def test_any_truncation_is_found(folder, which):
    (file,) = folder.glob(which)
    whole = file.read_bytes()
    for length in range(0, len(whole), 13):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="remove it to train from the start"):
            read_checkpoint(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1, 2]", "no checkpoint of featcache"),
        ('{"format": "another"}', "no checkpoint of featcache"),
        ("[" * 100_000, "cannot be gone on from"),
        ('{"format": "featcache-checkpoint"}', "there is no 'format_version'"),
        ("caf\u00e9", "cannot be gone on from"),
    ],
)
def test_a_foreign_file_is_refused(folder, text, reason):
    (folder / "checkpoint.json").write_text(text, "utf-8")
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(folder)


def test_a_newer_format_is_refused(folder):
    file = folder / "checkpoint.json"
    fields = json.loads(file.read_text("ascii"))
    file.write_text(json.dumps({**fields, "format_version": 2}), "ascii")
    with pytest.raises(
        CheckpointError, match="format version 2, this featcache reads 1"
    ):
        read_checkpoint(folder)


def test_missing_tensors_are_named(folder):
    name = tensors_file(folder).name
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}, which it names, is not there"):
        read_checkpoint(folder)


def test_a_path_cannot_be_smuggled_in(folder, tmp_path):
    file = folder / "checkpoint.json"
    digest = tensors_file(folder).name.removeprefix("checkpoint-")[:64]
    file.write_text(file.read_text("ascii").replace(digest, "../../secret"), "ascii")
    with pytest.raises(CheckpointError, match="do not match their digest"):
        read_checkpoint(folder)


def test_a_damaged_one_is_replaced(folder):
    (folder / "checkpoint.json").write_text("{", "ascii")
    save_checkpoint(folder, TENSORS, ABOUT)
    assert read_checkpoint(folder).about == ABOUT
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("failing", [1, 2], ids=["tensors", "JSON"])
def test_a_full_disk_leaves_the_one_before(folder, monkeypatch, failing):
    calls, sync = [], files.sync_file

    def full(path):
        calls.append(path)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(StorageError, match="make room"):
        save_checkpoint(folder, {"weight": np.ones(3)}, {"epochs": 3})
    assert read_checkpoint(folder).about == ABOUT
    monkeypatch.undo()
    save_checkpoint(folder, {"weight": np.ones(3)}, {"epochs": 4})
    assert read_checkpoint(folder).about == {"epochs": 4}
    assert len(list(folder.iterdir())) == 2


def test_removing_takes_only_what_is_ours(folder):
    (folder / "notes.txt").touch()
    (folder / f".checkpoint.json.{'0' * 32}.partial").touch()
    remove_checkpoint(folder)
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    remove_checkpoint(folder)
    assert not folder.exists()
    remove_checkpoint(folder)  # nothing to do


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writers are forks")
def test_a_killed_writer_leaves_a_whole_state(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.store.checkpoint_kills", tmp_path / "run", "60"],
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr  # every state that was found was whole
    told = json.loads(ran.stdout)
    assert all(after >= before for before, after in told["pairs"])
    assert len({after for _, after in told["pairs"]}) > 10  # they did get to write
    assert told["most"] > 2  # some were killed between two files
    assert told["left"][-1] == "checkpoint.json"
    assert len(told["left"]) == 2
