"""`finetune` from a folder to a model file, and every way to be stopped."""

import csv
import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from featcache.core.errors import (
    BadImagesError,
    DeviceError,
    Interrupted,
    SpecError,
    StorageError,
    TrainingError,
)
from featcache.core.progress import Silent
from featcache.core.reports import EpochRecord
from featcache.core.seeds import generator
from featcache.core.specs import FinetuneSpec, ViewSpec
from featcache.stages import assembling
from featcache.stages.finetuning import finetune
from featcache.stages.online_run import epoch_line
from featcache.store.artifacts import open_model
from featcache.vision.backbones import random_weights
from featcache.vision.views import normalise, render
from featcache.vision.weights import state_sha256

VIEW = ViewSpec(resize=40, crop=36)  # small, so that a test takes a second
FULL = FinetuneSpec(epochs=2, lr=1e-3, head_lr_mult=3.0, workers=1)
HEAD = FinetuneSpec(epochs=2, lr=1e-4, unfreeze="head", workers=1)
COLOURS = {"ants": (150, 60, 40), "bees": (210, 180, 40)}


class Listener(Silent):
    """Writes down tasks and lines, and can break the work off at a task."""

    def __init__(self, stop_at=None):
        self.tasks, self.lines, self.counts, self.open = [], [], [], 0
        self.stop_at = stop_at

    def begin(self, task, total, *, unit, done=0):
        """Write the task down."""
        self.tasks.append(task)
        self.counts.append([total, 0])
        self.open += 1
        if task == self.stop_at:
            raise KeyboardInterrupt

    def advance(self, count):
        """Count."""
        self.counts[-1][1] += count

    def end(self):
        """Count the ends."""
        self.open -= 1

    def say(self, line):
        """Write the line down."""
        self.lines.append(line)

    def detail(self, line):
        """Not of interest here."""


def make(root, **counts):
    """Make ROOT/split/class/N.png, noise around each class's colour."""
    for split, count in counts.items():
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                random = generator(i, f"{split} {name}")
                pixels = random.integers(-40, 40, (70, 90, 3)) + colour
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return five training, three val and two test images of each class."""
    root = tmp_path_factory.mktemp("finetune") / "photos"
    return make(root, train=5, val=3, test=2)


@pytest.fixture(scope="module", autouse=True)
def small_view():
    """Give all weights a view of 36 x 36 pixels."""
    find = assembling.find_weights

    def find_small(*args, **kwargs):
        return replace(find(*args, **kwargs), view=VIEW)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembling, "find_weights", find_small)
        yield


@pytest.fixture(scope="module")
def full(photos, tmp_path_factory):
    """Return a full run and who listened."""
    heard = Listener()
    out = tmp_path_factory.mktemp("full")
    return finetune(photos, FULL, weights="random:1", out=out, progress=heard), heard


@pytest.fixture(scope="module")
def head_only(photos, tmp_path_factory):
    """Return a run of the head alone and who listened."""
    heard = Listener()
    out = tmp_path_factory.mktemp("head")
    return finetune(photos, HEAD, weights="random:1", out=out, progress=heard), heard


def plain_figures(model, state, photos, split):
    """Return loss and accuracy on a split by torchvision's network and nothing else."""
    network = resnet18()
    network.fc = nn.Linear(512, 2)
    head = {"fc.weight": model.head.weight, "fc.bias": model.head.bias}
    tensors = {k: torch.as_tensor(v) for k, v in {**state, **head}.items()}
    network.load_state_dict(tensors, strict=False)
    files = sorted((photos / split).rglob("*.png"))
    labels = torch.tensor([int(file.parent.name == "bees") for file in files])
    pixels = np.stack([render(Image.open(file), VIEW) for file in files])
    images = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), VIEW)
    with torch.no_grad():
        scores = network.eval()(images)
    right = (scores.argmax(1) == labels).double().mean().item()
    return nn.functional.cross_entropy(scores, labels).item(), right


@pytest.mark.parametrize("kind", ["full", "head_only"])
def test_the_model_file_gives_the_reported_figures(kind, photos, request):
    """Loss and accuracies are those of the saved weights in torchvision's network."""
    run, _ = request.getfixturevalue(kind)
    model = open_model(run.model)
    state = model.state or random_weights("resnet18", 1)
    report = run.report
    loss, accuracy = plain_figures(model, state, photos, "val")
    assert report.val_loss == pytest.approx(loss, rel=1e-4)
    assert report.val_accuracy == pytest.approx(accuracy)
    assert report.train_accuracy == plain_figures(model, state, photos, "train")[1]
    assert report.test_accuracy == plain_figures(model, state, photos, "test")[1]
    assert report.best_epoch in (1, 2)
    assert report.epochs == len(run.history) == 2


def test_full_training_saves_its_own_backbone(full):
    """The file holds every changed tensor and is bound to them."""
    run, _ = full
    model = open_model(run.model)
    start = random_weights("resnet18", 1)
    assert set(model.state) == set(start)
    assert not any(np.array_equal(start[k].numpy(), v) for k, v in model.state.items())
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in model.state.items()}
    assert model.weights_sha256 == state_sha256(tensors)
    assert run.report.solver == "finetune-full"


def test_a_trained_head_belongs_to_the_weights_it_was_trained_on(head_only):
    """The file holds the head alone, and names the frozen weights."""
    run, _ = head_only
    model = open_model(run.model)
    assert model.state is None
    assert model.weights == "random:1"
    assert model.weights_sha256 == state_sha256(random_weights("resnet18", 1))
    assert (model.classes, model.view) == (("ants", "bees"), VIEW)
    assert run.report.solver == "finetune-head-only"


def test_the_folder_tells_how_to_do_it_again(full):
    """Report, settings, versions and history lie beside the model."""
    run, _ = full
    told = json.loads((run.model.parent / "report.json").read_text("utf-8"))
    assert told["best_epoch"] == run.report.best_epoch
    settings = told["settings"]
    assert asdict(FULL).items() <= settings.items()
    assert (settings["backbone"], settings["weights"]) == ("resnet18", "random:1")
    assert settings["interrupted"] is False
    assert "torch" in told["provenance"]["versions"]
    with (run.model.parent / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert list(rows[0]) == [f.name for f in fields(EpochRecord)]


@pytest.mark.parametrize(
    ("kind", "epochs"), [("full", [16, 16]), ("head_only", [16, 10])]
)
def test_progress_counts_every_image(kind, epochs, request):
    """Each task ends with all of its images counted; each epoch says one line."""
    _, heard = request.getfixturevalue(kind)
    assert heard.open == 0
    assert all(done == total for total, done in heard.counts)
    totals = dict(zip(heard.tasks, heard.counts, strict=True))
    assert [totals[f"epoch {n}/2"][0] for n in (1, 2)] == epochs
    assert totals["decode"][0] == 20
    assert [line[:9] for line in heard.lines[1:]] == ["epoch 1/2", "epoch 2/2"]


def test_equal_seeds_give_equal_bits(head_only, photos, tmp_path):
    """A second run, with other threads, gives the same head and figures."""
    run, _ = head_only
    again = finetune(photos, replace(HEAD, workers=3), weights="random:1", out=tmp_path)
    np.testing.assert_array_equal(run.head.weight, again.head.weight)
    np.testing.assert_array_equal(run.head.bias, again.head.bias)
    assert [replace(r, seconds=0) for r in run.history] == [
        replace(r, seconds=0) for r in again.history
    ]


@pytest.mark.slow
def test_from_scratch_begins_with_random_weights(photos, tmp_path):
    """The weights are drawn from the seed; those given are left alone."""
    spec = replace(FULL, epochs=1, from_scratch=True)
    run = finetune(photos, spec, weights="imagenet", out=tmp_path)
    assert open_model(run.model).weights == "random:0"
    assert run.head.weight.shape == (2, 512)


def test_without_val_the_last_epoch_is_kept(tmp_path):
    """One image per class leaves none for val: there is nothing to measure."""
    data = make(tmp_path / "few", train=1)
    run = finetune(data, HEAD, weights="random", out=tmp_path / "run")
    assert run.report.best_epoch == 2
    assert run.val_accuracy is None
    assert run.report.test_accuracy is None


@pytest.mark.slow
def test_the_default_folder_is_new_each_time(photos, tmp_path, monkeypatch):
    """Runs are named after data and backbone and never written over."""
    monkeypatch.chdir(tmp_path)
    spec = replace(HEAD, epochs=1)
    models = {finetune(photos, spec, weights="random").model for _ in range(2)}
    assert len(models) == 2
    for model in models:
        assert model.parent.parent.name == "runs"
        assert model.parent.name.startswith("finetune-photos-resnet18-20")


def test_all_bad_images_are_named_before_training(photos, tmp_path):
    """The error lists every one, and no folder is left."""
    data = make(tmp_path / "data", train=3, val=2)
    (data / "train" / "ants" / "1.png").write_bytes(b"")
    (data / "val" / "bees" / "0.png").write_bytes(b"GIF89a")
    heard = Listener()
    with pytest.raises(BadImagesError, match="2 images cannot be used") as caught:
        finetune(data, HEAD, weights="random", out=tmp_path / "run", progress=heard)
    assert len(caught.value.images) == 2
    assert heard.tasks == ["decode"]
    assert not (tmp_path / "run").exists()


def test_a_loss_that_explodes_leaves_nothing(photos, tmp_path):
    """The error says what to try; neither folder nor open task is left."""
    heard = Listener()
    spec = replace(HEAD, lr=1e38)
    with pytest.raises(TrainingError, match="try a smaller lr"):
        finetune(photos, spec, weights="random", out=tmp_path / "run", progress=heard)
    assert not (tmp_path / "run").exists()
    assert heard.open == 0


def test_an_interrupted_run_keeps_the_best_so_far(photos, tmp_path):
    """After one complete epoch its weights are there, and the user is told where."""
    heard = Listener(stop_at="epoch 2/2")
    with pytest.raises(Interrupted, match=r"after 1 of 2 epochs; .*--resume"):
        finetune(photos, HEAD, weights="random", out=tmp_path, progress=heard)
    report = open_model(tmp_path).report
    assert report["epochs"] == report["best_epoch"] == 1
    assert report["settings"]["interrupted"] is True
    assert {p.name for p in tmp_path.iterdir()} == {
        "checkpoint",
        "history.csv",
        "last.safetensors",
        "model.safetensors",
        "report.json",
    }


def test_an_interrupted_first_epoch_leaves_nothing(photos, tmp_path):
    """There is nothing to keep, and the user is told."""
    heard = Listener(stop_at="epoch 1/2")
    with pytest.raises(Interrupted, match="nothing was written"):
        finetune(photos, HEAD, weights="random", out=tmp_path / "run", progress=heard)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_the_users_stays(photos, tmp_path):
    """An empty folder that was there before is not taken away."""
    with pytest.raises(Interrupted):
        finetune(
            photos,
            HEAD,
            weights="random",
            out=tmp_path,
            progress=Listener(stop_at="epoch 1/2"),
        )
    assert tmp_path.is_dir()


def test_a_place_that_cannot_be_written_is_known_at_once(photos, tmp_path):
    """A file where the folder should be is refused before any image is read."""
    (tmp_path / "file").write_bytes(b"")
    heard = Listener()
    with pytest.raises(StorageError, match="cannot write"):
        finetune(photos, HEAD, weights="random", out=tmp_path / "file", progress=heard)
    assert heard.tasks == []


def test_a_multiplier_without_a_backbone_rate_is_refused(photos):
    """Head-only training has one learning rate."""
    with pytest.raises(SpecError, match="head_lr_mult is 10, but"):
        finetune(photos, replace(HEAD, head_lr_mult=10.0), weights="random")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(photos, tmp_path):
    """The error comes before training and leaves no folder."""
    with pytest.raises(DeviceError, match="cuda"):
        finetune(photos, HEAD, weights="random", device="cuda", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_epoch_lines_are_aligned():
    """Figures stand in fixed places; without val there are none of it."""
    record = EpochRecord(3, 0.001, 0.4123, 0.82, 0.2514, 0.9345, 8.06)
    expected = (
        "epoch  3/25  lr 0.001  train loss 0.412 acc 0.820  "
        "val loss 0.251 acc 0.934  8.1 s"
    )
    assert epoch_line(record, 25) == expected
    without = replace(record, val_loss=None, val_accuracy=None)
    assert "val" not in epoch_line(without, 25)
