"""Models as files: each runs without featcache and says what `predict` says."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torchvision.models import get_model

import featcache
from featcache.core import errors
from featcache.core.heads import LinearHead, unit_rows
from featcache.core.knn import KnnHead
from featcache.core.specs import ViewSpec
from featcache.stages.model_exporting import export_model
from featcache.store.artifacts import Model, open_model, save_model
from featcache.vision import portable
from featcache.vision.backbones import Backbone, random_weights
from tests.conftest import picture
from tests.store.conftest import make_content

README = Path(__file__).parents[2] / "README.md"
CLASSES = ("ants", "bees", 'caf\xe9 "\u2603"')
CROP = 32

# Runs the lines once for each photo and prints the probabilities of all.
RUNNER = """
import json, shutil, sys
sys.modules["featcache"] = None  # importing it is an ImportError
lines, photos = json.load(sys.stdin)
found = []
for photo in photos:
    shutil.copy(photo, "photo.jpg")
    names = {}
    exec(lines, names)
    found.append([float(p) for p in names["probabilities"]])
sys.stdout.write("\\n" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def state():
    """Tensors of random:0."""
    return random_weights("resnet18", 0)


@pytest.fixture(scope="module")
def heads():
    """One of each kind."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((3, 512)).astype(np.float32)
    bias = random.standard_normal(3).astype(np.float32)
    bank = unit_rows(np.abs(random.standard_normal((50, 512)).astype(np.float32)))
    labels = random.integers(0, 3, 50).astype(np.int32)
    return {
        "linear": LinearHead(weight / 300, bias),
        "l2": LinearHead(weight, bias, normalize=True),
        "knn": KnnHead(bank, labels, 3, 5, 0.07),
    }


@pytest.fixture
def make(tmp_path, state, heads):
    """Write a model with a head of some kind, on random:0."""

    def made(kind="linear", **fields):
        model = Model(
            head=heads[kind],
            classes=CLASSES,
            view=ViewSpec(resize=40, crop=CROP),
            backbone="resnet18",
            weights_sha256=Backbone("resnet18", state).weights_sha256,
            weights="random:0",
            state=None,
            report={},
        )
        path = tmp_path / "run/model.safetensors"
        save_model(replace(model, **fields), path)
        return path

    return made


@pytest.fixture
def photos(tmp_path):
    """A wide one, a tall one, and one that the camera turned."""
    paths = [tmp_path / f"{name}.jpg" for name in ("wide", "tall", "turned")]
    picture(1, (150, 60, 40), (81, 60)).save(paths[0])
    picture(2, (20, 180, 40), (45, 90)).save(paths[1])
    turned = picture(3, (90, 60, 200), (70, 50))
    turned.getexif()[0x0112] = 6
    turned.save(paths[2], exif=turned.getexif())
    return paths


def images(count):
    """Return normalised images (count, 3, CROP, CROP)."""
    random = np.random.default_rng(count)
    shape = (count, 3, CROP, CROP)
    return torch.from_numpy(random.standard_normal(shape).astype(np.float32))


def expected_scores(path, state, inputs):
    features = Backbone("resnet18", state)(inputs).numpy()
    return open_model(path).head.scores(features)


def close(found, expected):
    """Tell whether scores differ by 1e-5 of the largest at most."""
    error = np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()
    return error <= 1e-5


def readme_lines(*marks):
    """Return README's Python blocks that hold these words, one after another."""
    text = README.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = [[block for block in blocks if mark in block] for mark in marks]
    assert [len(one) for one in found] == [1] * len(marks), marks
    return "\n".join(one[0] for one in found)


def run_readme(folder, photos, *marks):
    """Run README's lines in a process that has no featcache."""
    given = json.dumps([readme_lines(*marks), [str(photo) for photo in photos]])
    command = [sys.executable, "-X", "utf8", "-c", RUNNER]
    wanted = {"capture_output": True, "encoding": "utf-8", "cwd": folder}
    done = subprocess.run(command, input=given, check=False, **wanted)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return lines[: len(photos)], np.array(json.loads(lines[-1]))


def require_agreement(path, photos, said, probabilities):
    predictions = featcache.predict(path, photos).predictions
    assert probabilities.shape == (len(photos), len(CLASSES))
    for row, line, prediction in zip(probabilities, said, predictions, strict=True):
        assert CLASSES[row.argmax()] == prediction.label
        assert prediction.label in line
        assert abs(row.max() - prediction.probability) <= 1e-5
        assert 0.34 < prediction.probability < 0.999  # neither all alike nor certain


@pytest.mark.slow
def test_a_state_dict_is_torchvisions(make, state):
    """It loads strictly into the plain network, which then gives our scores."""
    path = make()
    report = export_model(path.parent, "torch")
    assert report.out == path.with_name("model.pth")
    assert (report.backbone, report.head, report.classes) == ("resnet18", "linear", 3)
    tensors = torch.load(report.out, weights_only=True)
    network = get_model("resnet18", num_classes=3).eval()
    network.load_state_dict(tensors)
    head = open_model(path).head
    assert np.array_equal(tensors["fc.weight"], head.weight)
    assert np.array_equal(tensors["fc.bias"], head.bias)
    with torch.inference_mode():
        assert close(network(images(3)), expected_scores(path, state, images(3)))


@pytest.mark.slow
def test_the_json_says_what_goes_in_and_comes_out(make):
    """Beside the file, and inside where there is room; it knows the file's digest."""
    path = make()
    out = path.with_name("travels.safetensors")
    report = export_model(path, "torch", out=out)
    about = json.loads(report.about.read_text("utf-8"))
    assert report.about == path.with_name("travels.safetensors.json")
    data = out.read_bytes()
    assert about.pop("sha256") == report.sha256 == sha256(data).hexdigest()
    assert about.pop("file") == out.name
    assert report.bytes == len(data)
    assert about["classes"] == list(CLASSES)
    assert ViewSpec.from_json(about["view"]) == open_model(path).view
    assert about["input"]["shape"] == ["n", 3, CROP, CROP]
    assert about["output"]["shape"] == ["n", 3]
    assert "random:0" not in json.dumps(about)  # it may be a path of this machine
    with safe_open(out, framework="pt") as file:
        assert json.loads(file.metadata()[portable.METADATA]) == about
        inside = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors = torch.load(export_model(path, "torch").out, weights_only=True)
    assert inside.keys() == tensors.keys()
    assert all(torch.equal(inside[name], tensors[name]) for name in tensors)


@pytest.mark.slow
def test_readme_shows_how_to_use_a_state_dict(make, photos):
    """These lines, without featcache, say what `predict` says."""
    path = make()
    export_model(path, "torch")
    done = run_readme(path.parent, photos, "load_state_dict", "inference_mode")
    require_agreement(path, photos, *done)


@pytest.mark.slow
def test_readme_shows_how_to_use_a_program(make, photos):
    """These lines, without featcache, say what `predict` says."""
    path = make()
    export_model(path, "pt2")
    path.with_name("model.pt2.json").unlink()  # what it says is inside, too
    done = run_readme(path.parent, photos, "torch.export.load", "inference_mode")
    require_agreement(path, photos, *done)


@pytest.mark.slow
def test_readme_shows_how_to_use_onnx(make, photos):
    """These lines, without featcache and torch, say what `predict` says."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path = make()
    export_model(path, "onnx")
    path.with_name("model.onnx.json").unlink()
    assert "torch" not in readme_lines("onnxruntime")
    require_agreement(path, photos, *run_readme(path.parent, photos, "onnxruntime"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "l2", "knn"])
def test_programs_hold_any_head(make, state, kind):
    """What torch.export.load gives takes any number of images."""
    path = make(kind)
    report = export_model(path, "pt2")
    assert report.head == kind
    program = torch.export.load(report.out).module()
    for count in (1, 3):
        expected = expected_scores(path, state, images(count))
        assert close(program(images(count)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "l2", "knn"])
def test_onnx_holds_any_head(make, state, kind):
    """What onnxruntime computes is what torch does; it takes any number of images."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = make(kind)
    session = onnxruntime.InferenceSession(export_model(path, "onnx").out)
    assert [i.name for i in session.get_inputs()] == [portable.INPUT]
    assert [o.name for o in session.get_outputs()] == [portable.OUTPUT]
    for count in (1, 3):
        expected = expected_scores(path, state, images(count))
        (found,) = session.run(None, {portable.INPUT: images(count).numpy()})
        assert close(found, expected)


@pytest.mark.parametrize(
    ("kind", "words"), [("l2", "--standardize l2"), ("knn", "--solver knn")]
)
def test_what_fc_cannot_hold_is_refused(make, kind, words):
    """With the reason, and with what to do."""
    path = make(kind)
    with pytest.raises(errors.ModelError, match=words) as caught:
        export_model(path, "torch")
    assert "--to onnx or --to pt2" in str(caught.value)
    assert list(path.parent.iterdir()) == [path]


def test_a_fine_tuned_backbone_is_exported(make, state):
    """The model's own tensors, not those it began with."""
    own = {name: tensor.numpy().copy() for name, tensor in state.items()}
    own["conv1.weight"] *= 2
    path = make(state=own)
    with pytest.raises(errors.ModelError, match="leave out --weights"):
        export_model(path, "torch", weights="random:0")
    tensors = torch.load(export_model(path, "torch").out, weights_only=True)
    assert np.array_equal(tensors["conv1.weight"], own["conv1.weight"])


def test_weights_are_found_and_checked(make, state, tmp_path):
    """They may have moved; others, or none, are refused, and nothing is written."""
    path = make(weights=str(tmp_path / "moved.pth"))
    with pytest.raises(errors.WeightsError, match=r"moved\.pth"):
        export_model(path, "torch")
    with pytest.raises(errors.ModelError, match="holds others"):
        export_model(path, "torch", weights="random:1")
    assert list(path.parent.iterdir()) == [path]
    torch.save(state, tmp_path / "here.pth")
    assert export_model(path, "torch", weights=tmp_path / "here.pth").out.is_file()


@pytest.mark.slow
def test_nothing_is_replaced_unasked(make):
    """Neither the file nor the JSON beside it; the model itself never."""
    path = make()
    report = export_model(path, "torch")
    with pytest.raises(
        errors.StorageError, match=r"model\.pth is there .* --overwrite"
    ):
        export_model(path, "torch")
    report.out.unlink()
    with pytest.raises(errors.StorageError, match=r"model\.pth\.json is there"):
        export_model(path, "torch")
    assert not report.out.exists()
    assert export_model(path, "torch", overwrite=True).out.is_file()
    with pytest.raises(errors.StorageError, match="the model itself"):
        export_model(path, "torch", out=path, overwrite=True)
    assert open_model(path)


def test_an_export_is_whole_or_not_at_all(make, monkeypatch):
    """What fails half way leaves what was there, and nothing beside it."""
    path = make()
    export_model(path, "torch")
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(portable, "torch_bytes", lambda _: b"half")
    monkeypatch.setattr("featcache.store.files.sync_file", full)
    with pytest.raises(errors.StorageError, match="No space left"):
        export_model(path, "torch", overwrite=True)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_what_cannot_be_exported_is_said(make, tmp_path):
    """Unknown formats, names that do not fit, caches, and what is no model."""
    path = make()
    with pytest.raises(errors.SpecError, match=r"'onx'; did you mean 'onnx'"):
        export_model(path, "onx")
    with pytest.raises(errors.SpecError, match=r"ends in \.onnx, got"):
        export_model(path, "onnx", out=tmp_path / "model.pb")
    with pytest.raises(errors.StorageError, match=r"is a folder.*model\.pt2"):
        export_model(path, "pt2", out=tmp_path)
    cache = make_content(8).complete(tmp_path / "made.h5")
    with pytest.raises(errors.SpecError, match=r"is a cache.*npy, parquet or csv"):
        export_model(cache, "torch")
    with pytest.raises(errors.ModelError, match="no model"):
        export_model(tmp_path / "nothing", "torch")


def test_onnx_needs_onnxscript(make, monkeypatch):
    """It is said before any weights are read."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        errors.DependencyError, match=r"pip install 'featcache\[onnx\]'"
    ):
        export_model(make(weights="nowhere.pth"), "onnx")


def test_what_no_onnx_file_holds_is_refused(make, monkeypatch):
    """Protobuf ends at 2 GiB; large banks of neighbours do not."""
    monkeypatch.setattr(portable, "_LARGEST_ONNX", 1_000_000)
    monkeypatch.setattr(
        "featcache.stages.model_exporting.optional", lambda *_, **__: None
    )
    with pytest.raises(errors.ModelError, match=r"MB, and one ONNX file .*--to pt2"):
        export_model(make("knn"), "onnx")
