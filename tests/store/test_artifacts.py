"""Model files: what is read is what was saved, or nothing."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from featcache.core.errors import ModelError, StorageError
from featcache.core.heads import LinearHead, initial_head, unit_rows
from featcache.core.knn import KnnHead
from featcache.core.specs import ViewSpec
from featcache.store.artifacts import Model, _digest, open_model, save_model

MODEL = Model(
    head=initial_head(2, 512, seed=0),
    classes=("ants", "bees"),
    view=ViewSpec(),
    backbone="resnet18",
    weights_sha256="5" * 64,
    weights="IMAGENET1K_V1",
    state=None,
    report={"val_accuracy": 0.95, "history": [1, None, "x"]},
)
BANK = unit_rows(np.random.default_rng(0).standard_normal((5, 512)).astype("f4"))
KNN = KnnHead(BANK, np.array([0, 1, 1, 0, 1], np.int32), 2, k=3, temperature=0.07)
FORTRAN = LinearHead(np.asfortranarray(MODEL.head.weight), MODEL.head.bias)


def same(one, two):
    """Tell whether two models are equal in every bit."""
    tensors = [
        {"weight": m.head.weight, "bias": m.head.bias, **(m.state or {})}
        for m in (one, two)
    ]
    plain = [replace(m, head=None, state=None).__dict__ for m in (one, two)]
    if one.head.normalize is not two.head.normalize:
        return False
    return plain[0] == plain[1] and {k: v.tobytes() for k, v in tensors[0].items()} == {
        k: v.tobytes() for k, v in tensors[1].items()
    }


def forged(path, *, signed=True, tensors=None, drop=(), head=MODEL.head, **changes):
    """Write a model file with other contents, with the digest that belongs to them."""
    save_model(replace(MODEL, head=head), path)
    tensors = {**load_file(path), **(tensors or {})}
    for name in drop:
        tensors.pop(name, None)
    header = read_metadata(path)
    model = {**json.loads(header["model"]), **changes}
    for name in drop:
        model.pop(name, None)
    header["model"] = json.dumps(model)
    if signed:
        header["sha256"] = _digest(header["model"], tensors)
    save_file(tensors, path, header)
    return path


def read_metadata(path):
    """Return the texts in the header of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


@pytest.fixture
def path(tmp_path):
    """Where a model is, in a folder yet to be made."""
    return tmp_path / "run" / "model.safetensors"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="head"),
        pytest.param({"classes": ("caf\udce9", "蜂\n")}, id="any names"),
        pytest.param({"view": ViewSpec(resize=232, exif="ignore")}, id="other view"),
        pytest.param({"head": replace(MODEL.head, normalize=True)}, id="unit rows"),
        pytest.param(
            {"weights": "caf\udce9.pth", "precision": "bfloat16"}, id="others"
        ),
        pytest.param(
            {"state": {"conv1.weight": np.ones((2, 3), "f4"), "b": np.zeros(0, "f4")}},
            id="fine-tuned",
        ),
        pytest.param({"head": FORTRAN}, id="memory in any order"),
    ],
)
def test_what_is_read_is_what_was_saved(path, change):
    """Bit for bit, by the file's name or its folder's."""
    model = replace(MODEL, **change)
    save_model(model, path)
    for place in (path, str(path), path.parent):
        opened = open_model(place)
        assert same(opened, model)
        assert opened.fine_tuned == ("state" in change)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
def test_every_changed_byte_is_refused(path):
    """Or changes nothing: not a class, a number or a word is another one."""
    save_model(MODEL, path)
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    random = np.random.default_rng(0)
    places = [*range(header), *random.integers(header, len(data), 200)]
    unchanged = 0
    for place in places:
        broken = bytearray(data)
        broken[place] ^= 1 << random.integers(8)
        path.write_bytes(broken)
        try:
            opened = open_model(path)
        except ModelError as error:
            line = str(error)
        else:
            unchanged += 1
            line = "the same" if same(opened, MODEL) else f"another\nat {place}"
        assert line.isprintable()
    assert unchanged < 10


@pytest.mark.parametrize("length", [0, 7, 8, 100, 1000, -1])
def test_a_truncated_file_is_refused(path, length):
    """Wherever it was cut off."""
    save_model(MODEL, path)
    os.truncate(path, length % path.stat().st_size)
    with pytest.raises(
        ModelError, match=r"model.safetensors is no model file: .*eader"
    ):
        open_model(path)


@pytest.mark.parametrize("name", ["none.safetensors", "."])
def test_a_missing_model_is_refused(tmp_path, name):
    """The error says what makes one."""
    with pytest.raises(ModelError, match=r"no model .*; make one with 'featcache fit"):
        open_model(tmp_path / name)


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"format": "featcache-modem"}],
    ids=["none", "torch", "other"],
)
def test_other_safetensors_files_are_told_apart(tmp_path, metadata):
    """Weights of a backbone are a likely slip."""
    path = tmp_path / "resnet18.safetensors"
    save_file({"conv1.weight": np.zeros(3, "f4")}, path, metadata)
    message = "resnet18.safetensors is not a model of featcache; as weights of a back"
    with pytest.raises(ModelError, match=message):
        open_model(path)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        pytest.param("3", "has format version 3, this featcache reads up to 2", id="3"),
        pytest.param("0", "is damaged: it has no format version", id="0"),
        pytest.param(None, "is damaged: it has no format version", id="none"),
        pytest.param("one", "is no model file: invalid literal", id="word"),
    ],
)
def test_only_this_version_is_read(path, version, message):
    """A newer one asks for an upgrade."""
    save_model(MODEL, path)
    metadata = {**read_metadata(path), "format_version": version}
    metadata = {k: v for k, v in metadata.items() if v is not None}
    save_file(load_file(path), path, metadata)
    with pytest.raises(ModelError, match=message):
        open_model(path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        pytest.param(
            {"signed": False, "classes": ["bees", "ants"]}, "match", id="text"
        ),
        pytest.param({"signed": False, "drop": ["head.bias"]}, "match", id="tensors"),
        pytest.param({"drop": ["head.bias"]}, "there is no head.bias", id="no bias"),
        pytest.param({"drop": ["classes"]}, "there is no classes", id="no classes"),
        pytest.param({"classes": ["ants"]}, r"head is \(2, 512\), exp", id="1 class"),
        pytest.param({"classes": [1, 2]}, "classes must be some values", id="numbers"),
        pytest.param({"classes": 2}, "has no len", id="number"),
        pytest.param({"backbone": "resnet50"}, r"expected \(2, 2048\)", id="other D"),
        pytest.param({"backbone": "vgg16"}, "unknown backbone 'vgg16'", id="backbone"),
        pytest.param({"backbone": []}, "unhashable", id="no backbone"),
        pytest.param({"view": {}}, "not a view: there is no mean", id="view"),
        pytest.param({"view": None}, "not a view: ", id="no view"),
        pytest.param(
            {"precision": "int8"}, "precision must be float32", id="precision"
        ),
        pytest.param({"weights": 1}, "weights must be a text", id="weights"),
        pytest.param({"weights_sha256": "5"}, "must be 64 hex digits", id="digest"),
        pytest.param({"report": []}, "report must be a JSON object", id="report"),
        pytest.param(
            {"tensors": {"head.bias": np.zeros(3, "f4")}}, "head is", id="bias"
        ),
        pytest.param(
            {"tensors": {"head.bias": np.zeros(2)}}, "not all float32", id="double"
        ),
    ],
)
def test_hostile_models_are_refused(path, how, message):
    """Even where the digest matches, since whoever made the file made that too."""
    with pytest.raises(ModelError, match=f"is damaged: .*{message}"):
        open_model(forged(path, **how))


@given(
    value=st.recursive(st.none() | st.integers() | st.text(), st.lists), data=st.data()
)
def test_no_json_breaks_a_model(tmp_path_factory, value, data):
    """Whatever the JSON in it says, a model is read or refused in one line."""
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    names = ["classes", "view", "backbone", "weights", "precision", "report"]
    forged(path, **{data.draw(st.sampled_from(names)): value})
    try:
        line = open_model(path).backbone
    except ModelError as error:
        line = str(error)
    assert line.isprintable()


@pytest.mark.parametrize("text", ["[]", "1", "{", "[" * 100_000, "{}"], ids=range(5))
def test_a_description_of_another_kind_is_refused(path, text):
    """A list, a number, half an object, a hundred thousand brackets, nothing."""
    save_model(MODEL, path)
    tensors = load_file(path)
    signed = {"model": text, "sha256": _digest(text, tensors)}
    save_file(tensors, path, {**read_metadata(path), **signed})
    with pytest.raises(ModelError, match="is damaged: "):
        open_model(path)


def test_tensors_that_numpy_does_not_know_are_refused(path):
    """Half floats of another kind are no tensors of ours."""
    save_model(MODEL, path)
    path.write_bytes(
        path.read_bytes().replace(b'"F32","shape":[2]', b'"F8_E4M3","shape":[8]')
    )
    with pytest.raises(ModelError, match="is no model file: "):
        open_model(path)


def test_a_full_disk_keeps_the_old_model(path, monkeypatch):
    """The error has its remedy, and nothing half is left behind."""
    save_model(MODEL, path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        StorageError, match=r"model.safetensors: No space left .*; make"
    ):
        save_model(replace(MODEL, classes=("a", "b")), path)
    assert same(open_model(path), MODEL)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_only_heads_that_normalise_need_a_newer_reader(path):
    """A plain head is written as ever; of unit rows an old reader knows nothing."""
    versions = []
    for head in (MODEL.head, replace(MODEL.head, normalize=True)):
        save_model(replace(MODEL, head=head), path)
        versions.append(read_metadata(path)["format_version"])
        assert open_model(path).head.normalize is head.normalize
    assert versions == ["1", "2"]


def test_neighbours_are_read_as_they_were_saved(path):
    """Bank, labels and settings, bit for bit; an older reader refuses the version."""
    save_model(replace(MODEL, head=KNN), path)
    assert read_metadata(path)["format_version"] == "2"
    head = open_model(path).head
    assert head.bank.tobytes() == KNN.bank.tobytes()
    assert head.labels.tolist() == KNN.labels.tolist()
    assert (head.classes, head.k, head.temperature) == (2, 3, 0.07)
    assert head.embed_dim == 512


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kind": "tree"}, "head is of an unknown kind, 'tree'"),
        ({"kind": ["knn"]}, "unknown kind"),
        ({"kind": "linear"}, "there is no head.weight"),
        ({"k": 0}, "k must be a whole number, at least 1"),
        ({"k": 2.0}, "k must be a whole number"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"temperature": "x"}, "temperature must be positive"),
        ({"drop": ["k"]}, "there is no k"),
        ({"drop": ["head.labels"]}, "there is no head.labels"),
        ({"backbone": "resnet50"}, r"bank is \(5, 512\) .* \(n, 2048\)"),
        ({"classes": ["ants"]}, "labels are not all from 0 to 0"),
        ({"tensors": {"head.labels": np.full(5, -1, "i4")}}, "not all from 0 to 1"),
        ({"tensors": {"head.labels": np.zeros(5, "i8")}}, "labels are int64"),
        ({"tensors": {"head.labels": np.zeros((5, 1), "i4")}}, "expected"),
        ({"tensors": {"head.labels": np.zeros(4, "i4")}}, "expected"),
        (
            {
                "tensors": {
                    "head.labels": np.zeros(0, "i4"),
                    "head.bank": np.zeros((0, 512), "f4"),
                }
            },
            "expected",
        ),
        ({"tensors": {"head.bank": BANK.astype("f2")}}, "not all float32"),
        ({"tensors": {"head.bank": 2 * BANK / np.abs(BANK).max()}}, "length one"),
        ({"tensors": {"head.bank": BANK * np.float32("nan")}}, "length one"),
    ],
    ids=range(19),
)
def test_hostile_neighbours_are_refused(path, how, message):
    """Shapes, dtypes, labels within the classes, settings within their rules."""
    with pytest.raises(ModelError, match=f"is damaged: .*{message}"):
        open_model(forged(path, head=KNN, **how))


def test_normalize_must_be_a_truth_value(path):
    """A file from elsewhere cannot smuggle in another type."""
    with pytest.raises(ModelError, match="normalize must be False or True, got 1"):
        open_model(forged(path, normalize=1))
