"""What a user can get wrong: exit code 1, one line with what to do, no traceback."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from featcache.cli.main import main
from tests.conftest import make_photos, picture


@pytest.fixture
def fails(tmp_path, monkeypatch):
    """Type a command that must fail, and return its one line."""
    monkeypatch.chdir(tmp_path)

    def typed(*words) -> str:
        result = CliRunner().invoke(main, [str(w) for w in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 1, result.output
        assert "Traceback" not in result.output
        lines = [x for x in result.stderr.splitlines() if x.startswith("Error: ")]
        assert len(lines) == 1
        assert result.stderr.endswith(lines[0] + "\n")
        return lines[0].removeprefix("Error: ")

    return typed


@pytest.fixture
def extracting(fails, photos):
    """Extract the test's photos with random weights, in vain."""

    def typed(*words, data=photos):
        return fails("extract", data, "--weights", "random:0", *words)

    return typed


def test_missing_folder(fails):
    """A path that is not there is named, and what would do instead."""
    assert "there is no folder nothing" in fails("extract", "./nothing")
    line = fails("extract", "hymenopterra")
    assert "did you mean 'hymenoptera'?" in line


def test_empty_folder(extracting, tmp_path):
    """An empty folder is told what it should have held."""
    (tmp_path / "void").mkdir()
    assert "is empty" in extracting(data=tmp_path / "void")


def test_no_classes(extracting, tmp_path):
    """Images without class folders are told how to be sorted."""
    folder = tmp_path / "flat"
    folder.mkdir()
    picture(1, (1, 1, 1)).save(folder / "a.png")
    assert "class" in extracting(data=folder)


def test_one_class(extracting, photos):
    """A classifier needs two classes."""
    shutil.rmtree(photos / "train" / "ants")
    shutil.rmtree(photos / "val" / "ants")
    assert "only one class, bees" in extracting()


def test_a_class_in_val_that_train_lacks(extracting, photos):
    """The unknown class is named with the known ones."""
    (photos / "val" / "wasps").mkdir()
    picture(1, (1, 1, 1)).save(photos / "val" / "wasps" / "a.png")
    line = extracting()
    assert "wasps" in line
    assert "ants" in line


def _truncated(path: Path) -> None:
    picture(1, (90, 80, 70)).save(path)
    path.write_bytes(path.read_bytes()[:-300])


def _long(path: Path) -> None:
    Image.new("1", (1, 20_000)).save(path, "PNG")


def _huge(path: Path) -> None:
    Image.new("1", (10_000, 9_000)).save(path, "PNG")


def _float(path: Path) -> None:
    Image.fromarray(np.ones((8, 8), np.float32)).save(path, "TIFF")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lambda p: p.write_bytes(b""), "the file is empty", id="zero-byte"),
        pytest.param(lambda p: p.write_bytes(b"<html>"), "no image", id="non-image"),
        pytest.param(_truncated, "truncated", id="truncated"),
        pytest.param(_long, "1x20000 pixels would become", id="1x20000"),
        pytest.param(_huge, "10000x9000 pixels, at most", id="huge"),
        pytest.param(_float, "pixels of mode 'F'", id="float"),
    ],
)
# Pillow's own warning, which says the same of the same image.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bad_image(extracting, photos, spoil, reason):
    """Path and reason in one line, with how to go on; everything else is kept."""
    spoil(photos / "train" / "ants" / "00.jpg")
    line = extracting()
    assert "1 of 20 images cannot be used (train/ants/00.jpg: " in line
    assert reason in line
    assert "--on-error skip" in line
    assert Path("cache/photos-resnet18.h5.partial").exists()


def _sixteen_bit(path: Path) -> None:
    Image.fromarray(np.full((60, 80), 40_000, np.uint16)).save(path, "PNG")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_sixteen_bit, id="16-bit"),
        pytest.param(
            lambda p: picture(1, (9, 9, 9)).convert("CMYK").save(p, "TIFF"), id="CMYK"
        ),
        pytest.param(
            lambda p: picture(1, (9, 9, 9)).convert("P").save(p, "PNG"), id="palette"
        ),
    ],
)
def test_an_odd_image_is_no_error(photos, tmp_path, monkeypatch, make):
    """16-bit, CMYK and palette images have a defined way to 8-bit RGB."""
    monkeypatch.chdir(tmp_path)
    make(photos / "train" / "ants" / "00.jpg")
    result = CliRunner().invoke(
        main, ["extract", str(photos), "--weights", "random:0", "--json"]
    )
    assert json.loads(result.stdout)["computed"] == 20


def test_bad_images_are_all_listed_in_json_too(photos, tmp_path, monkeypatch):
    """--json prints the error and every image as one object."""
    monkeypatch.chdir(tmp_path)
    for name in ("00.jpg", "01.jpg"):
        (photos / "train" / "ants" / name).write_bytes(b"no")
    result = CliRunner().invoke(
        main, ["extract", str(photos), "--weights", "random:0", "--json"]
    )
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert "2 of 20 images" in found["error"]
    assert [image["path"] for image in found["bad_images"]] == [
        "train/ants/00.jpg",
        "train/ants/01.jpg",
    ]


def test_unknown_backbone(extracting):
    """The known ones are listed, the likely one is suggested."""
    line = extracting("--backbone", "resnet51")
    assert "unknown backbone 'resnet51'; did you mean 'resnet50'?" in line
    assert "wide_resnet101_2" in line


def test_weights_of_another_architecture(fails, photos, tmp_path):
    """The first differing tensor is named with both shapes."""
    from featcache.vision.backbones import random_weights

    torch.save(random_weights("resnet18", 0), tmp_path / "w.pth")
    line = fails("extract", photos, "--backbone", "resnet50", "--weights", "w.pth")
    assert "w.pth is no resnet50: layer1.0.conv1.weight has shape 64x64x3x3" in line
    assert "expected 64x64x1x1" in line


class Bomb:
    """Runs code when unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_weights_that_are_a_pickle_of_code(fails, photos, tmp_path):
    """Refused before anything runs."""
    torch.save(Bomb(), tmp_path / "w.pth")
    line = fails("extract", photos, "--weights", "w.pth")
    assert "w.pth is refused: it is a pickle that runs code" in line


def test_weights_that_are_not_there(fails, photos):
    """A missing file and an unknown name are told apart."""
    assert "no weights file gone.pth" in fails(
        "extract", photos, "--weights", "gone.pth"
    )
    line = fails("extract", photos, "--weights", "IMAGENET1K_V3")
    assert "unknown weights 'IMAGENET1K_V3'" in line


def test_not_an_hdf5_file(fails, tmp_path):
    """A file of something else is named as what it is not."""
    (tmp_path / "x.h5").write_bytes(b"text")
    assert "x.h5 is not an HDF5 file" in fails("fit-head", "x.h5")


def test_an_hdf5_file_of_something_else(fails, tmp_path):
    """Not every HDF5 file is a cache."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = [1, 2, 3]
    line = fails("fit-head", "x.h5")
    assert "x.h5 is an HDF5 file, but not a featcache cache" in line


def test_a_newer_format_version(fails, photos, tmp_path):
    """What a newer featcache wrote is not guessed at."""
    words = ["extract", str(photos), "--weights", "random:0", "--cache", "x.h5"]
    assert CliRunner().invoke(main, words).exit_code == 0
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs["format_version"] = np.int32(99)
    assert "x.h5 has format version 99" in fails("fit-head", "x.h5")


def test_no_disk_space(extracting, monkeypatch, tmp_path):
    """Found before the first image is decoded."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "its disk has 1 kB free; make room" in extracting()


def test_an_unwritable_folder(extracting, tmp_path):
    """A folder that is a file, or that may not be written, is named with the reason."""
    (tmp_path / "cache").write_text("a file where a folder should be")
    line = extracting()
    assert "cannot write cache/photos-resnet18.h5" in line
    assert "exists" in line or "Not a directory" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent(extracting):
    """Never a silent run on the CPU."""
    line = extracting("--device", "cuda")
    assert "device cuda was asked for, but torch sees 0 CUDA devices" in line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        pytest.param(
            ["extract"],
            ["hymenoptera_data.zip", "by hand", "digits"],
            id="data set",
        ),
        pytest.param(
            ["extract", "digits"],
            ["resnet18-f37072fd.pth", "by hand", "--weights"],
            id="weights",
        ),
    ],
)
def test_offline(fails, monkeypatch, tmp_path, words, parts):
    """What was wanted, where to put it by hand, and what works without."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    weights = ["--weights", "random:0"] if words == ["extract"] else []
    line = fails(*words, *weights)
    for part in parts:
        assert part in line


def test_a_model_that_is_none(fails, tmp_path, photos):
    """A missing model, a folder without one, and a file of something else."""
    assert "no model m.safetensors" in fails("predict", "m.safetensors", photos)
    (tmp_path / "m.safetensors").write_bytes(b"nothing")
    assert "m.safetensors is no model file" in fails("evaluate", "m.safetensors", "x")


def test_predict_without_images(fails, tmp_path):
    """A path that is not there, and a folder without images."""
    (tmp_path / "void").mkdir()
    make_photos(tmp_path / "p", {"train": 2})
    words = ["extract", "p", "--weights", "random:0"]
    assert CliRunner().invoke(main, words).exit_code == 0
    fitted = CliRunner().invoke(main, ["fit-head", "--json"])
    model = json.loads(fitted.stdout)["model"]
    assert "void holds no image" in fails("predict", model, "void")
    assert "no image or folder gone.jpg" in fails("predict", model, "gone.jpg")
