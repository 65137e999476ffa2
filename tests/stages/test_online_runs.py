"""The online path beyond the tutorial: part of a network, resumed, from a head."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from featcache.core.errors import (
    BadImagesError,
    CheckpointError,
    DataError,
    Interrupted,
    ModelError,
    SpecError,
    TrainingError,
)
from featcache.core.heads import LinearHead, initial_head
from featcache.core.seeds import epoch_order
from featcache.core.specs import FinetuneSpec, SgdSpec, ViewSpec
from featcache.stages import (
    assembling,
    extraction,
    online_network,
    online_run,
    origins,
)
from featcache.stages.extraction import extract
from featcache.stages.finetuning import finetune, resume_finetuning
from featcache.stages.probing import fit_head
from featcache.store.artifacts import open_model
from featcache.store.checkpoints import read_checkpoint
from featcache.vision.backbones import network_of, random_weights
from featcache.vision.decode import decode_view, read_file
from featcache.vision.scan import scan
from featcache.vision.views import normalise
from tests.stages.test_finetuning import Listener, make, plain_figures

VIEW = ViewSpec(resize=40, crop=36)
# Batch statistics of random weights would blow rounding up until nothing compares.
PART = FinetuneSpec(
    unfreeze="layer4", bn="frozen", epochs=2, lr=1e-3, augment=False, workers=1
)
HEAD = replace(PART, unfreeze="head")
FULL = replace(PART, unfreeze="all", bn="train", augment=True)
RICH = replace(FULL, optimizer="adamw", mixup=0.2, accumulate=2, schedule="cosine")
DRIFT = replace(HEAD, bn="drift", augment=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return seven training and three val images of each class."""
    return make(tmp_path_factory.mktemp("online") / "photos", train=7, val=3)


@pytest.fixture(scope="module", autouse=True)
def small_view():
    """Give all weights a view of 36 x 36 pixels."""
    find = assembling.find_weights

    def find_small(*args, **kwargs):
        return replace(find(*args, **kwargs), view=VIEW)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembling, "find_weights", find_small)
        yield


def train(data, spec, out, **more):
    """Train from the same random weights."""
    return finetune(data, spec, weights="random:1", out=out, **more)


def tensors(run):
    """Return all tensors that a run has kept."""
    model = open_model(run.model)
    return {"fc.weight": model.head.weight, "fc.bias": model.head.bias} | dict(
        model.state or {}
    )


def assert_equal_bits(a, b):
    """Compare all tensors of two runs."""
    x, y = tensors(a), tensors(b)
    assert x.keys() == y.keys()
    for name in x:
        np.testing.assert_array_equal(x[name], y[name], err_msg=name)


def plainly(data, spec):
    """Return the tensors after the last epoch by torch and nothing else."""
    manifest = scan(data)
    rows = np.flatnonzero(manifest.splits == 0)
    pixels = [decode_view(read_file(manifest.file(i)), VIEW) for i in rows]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    images, labels = normalise(images, VIEW), torch.from_numpy(manifest.labels[rows])
    network = network_of("resnet18", random_weights("resnet18", 1))
    network.requires_grad_(False)
    start = initial_head(2, 512, seed=0)
    network.fc = nn.Linear(512, 2)
    with torch.no_grad():
        network.fc.weight.copy_(torch.from_numpy(start.weight))
        network.fc.bias.copy_(torch.from_numpy(start.bias))
    trained = nn.ModuleList([network.layer4, network.fc]).requires_grad_(True)
    optimizer = torch.optim.SGD(trained.parameters(), lr=spec.lr, momentum=0.9)
    for epoch in range(spec.epochs):
        network.eval()
        order = epoch_order(len(rows), seed=0, epoch=epoch)
        for at in range(0, len(rows), spec.batch_size):
            batch = order[at : at + spec.batch_size]
            scores = network(images[batch])
            loss = nn.functional.cross_entropy(scores, labels[batch].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.state_dict()


def test_a_stage_and_what_is_behind_it_are_trained(photos, tmp_path):
    """Weights are those of the plain loop; frozen ones keep their bits."""
    run = train(photos, PART, tmp_path)
    last = open_model(tmp_path / "last.safetensors")
    expected, start = plainly(photos, PART), random_weights("resnet18", 1)
    assert run.report.solver == "finetune-layer4"
    for name, tensor in last.state.items():
        if name.startswith("layer4"):
            found, wanted = torch.from_numpy(np.array(tensor)), expected[name]
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
        else:
            np.testing.assert_array_equal(tensor, start[name].numpy())
    np.testing.assert_allclose(last.head.weight, expected["fc.weight"], atol=1e-5)


@pytest.mark.slow
def test_a_cache_of_maps_trains_as_the_images_would(photos, tmp_path, monkeypatch):
    """From layer3's maps in float32, layer4 comes to the weights of the online way."""
    for module in (extraction, origins):
        monkeypatch.setattr(module, "find_weights", assembling.find_weights)
    cache = extract(
        photos,
        weights="random:1",
        layer="layer3",
        dtype="float32",
        cache=tmp_path / "maps.h5",
    )
    online = train(photos, PART, tmp_path / "online")
    cached = finetune(spec=PART, from_cache=cache.path, out=tmp_path / "cached")
    x, y = tensors(online), tensors(cached)
    for name in x:
        np.testing.assert_allclose(x[name], y[name], rtol=1e-3, atol=1e-5)
    assert cached.report.val_loss == pytest.approx(online.report.val_loss, rel=1e-3)
    assert cached.history[0].seconds > 0


@pytest.mark.parametrize("spec", [PART, HEAD], ids=lambda s: s.name)
def test_running_frozen_stages_ahead_changes_nothing(
    photos, tmp_path, spec, monkeypatch
):
    """Fused on threads before the loop they give what they give inside of it."""
    ahead = train(photos, replace(spec, augment=True), tmp_path / "a")
    monkeypatch.setattr(online_network.OnlineNetwork, "ahead", False)
    inside = train(photos, replace(spec, augment=True), tmp_path / "b")
    x, y = tensors(ahead), tensors(inside)
    for name in x:
        np.testing.assert_allclose(x[name], y[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_drifting_statistics_are_saved(photos, tmp_path):
    """As in the tutorial a frozen BatchNorm moves, and the model file has it."""
    run = train(photos, replace(HEAD, bn="drift"), tmp_path)
    state, start = open_model(run.model).state, random_weights("resnet18", 1)
    moved = {k for k, v in state.items() if not np.array_equal(v, start[k].numpy())}
    assert moved == {k for k in start if "running" in k}
    assert run.report.batch_norm == "all statistics move, also those of frozen stages"


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(FULL, id="full", marks=pytest.mark.slow),
        pytest.param(RICH, id="adamw", marks=pytest.mark.slow),
        pytest.param(PART, id="layer4"),
        pytest.param(HEAD, id="head"),
        pytest.param(DRIFT, id="drift", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_in_the_same_bits(photos, tmp_path, spec):
    """Stopped in the third epoch and resumed: best, last and history are as if not."""
    spec = replace(spec, epochs=3)
    whole = train(photos, spec, tmp_path / "whole")
    out = tmp_path / "stopped"
    with pytest.raises(Interrupted, match=r"after 2 of 3 epochs.*--resume"):
        train(photos, spec, out, progress=Listener(stop_at="epoch 3/3"))
    heard = Listener()
    resumed = resume_finetuning(out, workers=2, store="off", progress=heard)
    assert any(line.startswith("going on after 2 of 3 epochs") for line in heard.lines)
    assert_equal_bits(whole, resumed)
    last = [open_model(tmp_path / d / "last.safetensors") for d in ("whole", "stopped")]
    np.testing.assert_array_equal(last[0].head.weight, last[1].head.weight)
    assert [replace(r, seconds=0) for r in whole.history] == [
        replace(r, seconds=0) for r in resumed.history
    ]
    assert read_checkpoint(out / "checkpoint") is None


@pytest.mark.slow
def test_the_same_command_goes_on_by_itself(photos, tmp_path):
    """With the same --out and recipe nothing is trained twice."""
    with pytest.raises(Interrupted):
        train(photos, HEAD, tmp_path, progress=Listener(stop_at="epoch 2/2"))
    heard = Listener()
    train(photos, HEAD, tmp_path, progress=heard)
    assert "epoch 1/2" not in heard.tasks
    assert "epoch 2/2" in heard.tasks


def stopped(photos, out, spec=HEAD):
    """Leave a run behind that was stopped after one epoch."""
    with pytest.raises(Interrupted):
        train(photos, spec, out, progress=Listener(stop_at="epoch 2/2"))


@pytest.mark.slow
def test_another_recipe_is_refused(photos, tmp_path):
    """The field is named with both values, and the checkpoint stays."""
    stopped(photos, tmp_path)
    with pytest.raises(CheckpointError, match=r"with lr 0\.001, not 0\.5; go on"):
        train(photos, replace(HEAD, lr=0.5), tmp_path)
    with pytest.raises(CheckpointError, match="weights_sha256 is another"):
        finetune(photos, HEAD, weights="random:2", out=tmp_path)
    with pytest.raises(CheckpointError, match="backbone 'resnet18', not 'resnet34'"):
        finetune(photos, HEAD, weights="random:1", backbone="resnet34", out=tmp_path)
    assert read_checkpoint(tmp_path / "checkpoint") is not None


def test_classes_that_changed_are_named(photos, tmp_path):
    """A class more, or a renamed one, is another task."""
    data = make(tmp_path / "data", train=3, val=2)
    stopped(data, tmp_path / "run")
    (data / "train" / "ants").rename(data / "train" / "wasps")
    (data / "val" / "ants").rename(data / "val" / "wasps")
    with pytest.raises(CheckpointError, match="ants is gone and wasps is new"):
        resume_finetuning(tmp_path / "run")


@pytest.mark.slow
def test_images_that_changed_are_counted(photos, tmp_path):
    """Other images cannot give the same weights."""
    data = make(tmp_path / "data", train=3, val=2)
    stopped(data, tmp_path / "run")
    (data / "train" / "ants" / "0.png").unlink()
    with pytest.raises(CheckpointError, match="10 then, 9 now"):
        resume_finetuning(tmp_path / "run")


def test_a_finished_run_has_nothing_to_go_on_with(photos, tmp_path):
    """Nor has a folder that is no run."""
    train(photos, HEAD, tmp_path / "run")
    with pytest.raises(CheckpointError, match="no checkpoint: it is finished"):
        resume_finetuning(tmp_path / "run")
    with pytest.raises(CheckpointError, match="no checkpoint: it is no run of"):
        resume_finetuning(tmp_path)


@pytest.mark.parametrize("gamma", [1e20, 1e38])
def test_an_exploding_loss_keeps_the_epochs_before(photos, tmp_path, gamma):
    """The error says where, what to try, and how to go on from the last good one."""
    spec = replace(HEAD, epochs=4, step_size=1, gamma=gamma)
    with pytest.raises(TrainingError, match=r"epoch \d.*lr.*best so far, epoch 1"):
        train(photos, spec, tmp_path)
    assert open_model(tmp_path).report["settings"]["interrupted"] is True
    assert read_checkpoint(tmp_path / "checkpoint") is not None


@pytest.mark.slow
def test_no_epochs_measure_the_network_as_it_starts(photos, tmp_path):
    """With a fitted head its figures come out again."""
    fitted = train(photos, HEAD, tmp_path / "fitted")
    run = train(photos, replace(PART, epochs=0), tmp_path / "m", init_head=fitted.model)
    assert (run.report.epochs, run.report.best_epoch, run.history) == (0, 0, ())
    assert run.report.val_loss == pytest.approx(fitted.report.val_loss, rel=1e-4)
    assert run.report.val_accuracy == fitted.report.val_accuracy
    np.testing.assert_array_equal(run.head.weight, fitted.head.weight)


@pytest.mark.slow
def test_a_head_of_another_task_or_network_is_refused(photos, tmp_path):
    """Names what differs."""
    fitted = train(photos, HEAD, tmp_path / "fitted")
    with pytest.raises(ModelError, match="another network: weights_sha256 is"):
        finetune(photos, PART, weights="random:2", init_head=fitted.model)
    data = make(tmp_path / "data", train=2, val=2)
    for split in ("train", "val"):
        (data / split / "ants").rename(data / split / "wasps")
    with pytest.raises(ModelError, match="ants, bees; the images are of bees, wasps"):
        train(data, PART, tmp_path / "m", init_head=fitted.model)


def test_rows_of_the_first_head_follow_the_classes(photos, tmp_path):
    """Classes are matched by name, not by number."""
    fitted = train(photos, HEAD, tmp_path / "fitted")
    model = open_model(fitted.model)
    request = assembling.Request(init_head=str(fitted.model))
    source = assembling.find_weights("resnet18", "random:1")
    head = assembling.start_head(
        request, source, model.weights_sha256, ("bees", "ants")
    )
    assert isinstance(head, LinearHead)
    np.testing.assert_array_equal(head.weight, model.head.weight[::-1])


def test_patience_stops_early(photos, tmp_path):
    """After so many epochs without a better one; the best is kept."""
    spec = replace(HEAD, epochs=30, lr=1e-9, patience=2)
    heard = Listener()
    run = train(photos, spec, tmp_path, progress=heard)
    assert run.report.epochs == run.report.best_epoch + 2 < 30
    assert any(
        line.startswith("stopping early: none of the last 2") for line in heard.lines
    )


def test_bad_images_are_left_out_on_request(tmp_path):
    """They are named in the report's count and take no part."""
    data = make(tmp_path / "data", train=3, val=2)
    (data / "train" / "ants" / "1.png").write_bytes(b"no image")
    with pytest.raises(BadImagesError, match=r"1\.png cannot be used"):
        train(data, HEAD, tmp_path / "run")
    heard = Listener()
    run = train(data, HEAD, tmp_path / "run", on_error="skip", progress=heard)
    assert run.report.skipped == 1
    assert "left out: 1 bad image" in heard.lines


def test_an_image_damaged_in_the_middle_is_named(photos, tmp_path):
    """With the store off, files are read in each epoch; what is done is kept."""
    data = make(tmp_path / "data", train=3, val=2)

    class Vandal(Listener):
        def begin(self, task, total, *, unit, done=0):
            super().begin(task, total, unit=unit, done=done)
            if task == "epoch 2/2":
                (data / "train" / "bees" / "2.png").write_bytes(b"GIF89a")

    spec = replace(HEAD, store="off", augment=True)
    with pytest.raises(BadImagesError, match=r"2\.png cannot be used"):
        train(data, spec, tmp_path / "run", progress=Vandal())
    assert read_checkpoint(tmp_path / "run" / "checkpoint").about["epochs"] == 1


@pytest.mark.slow
def test_an_image_damaged_in_the_middle_is_left_out_on_request(tmp_path):
    """The epoch begins again from where it began, and ends in the same weights."""
    data = make(tmp_path / "data", train=3, val=2)
    files = [data / "train" / "bees" / "2.png", data / "val" / "ants" / "1.png"]

    class Vandal(Listener):
        def begin(self, task, total, *, unit, done=0):
            super().begin(task, total, unit=unit, done=done)
            if task == "epoch 1/2":
                for file in files:
                    file.write_bytes(b"GIF89a")

    spec, heard = replace(DRIFT, store="off"), Vandal()
    run = train(data, spec, tmp_path / "run", on_error="skip", progress=heard)
    said = [line for line in heard.lines if "; left out" in line]
    named = [f"{f.parent.name}/{f.name} " for f in files]
    assert [name in line for name, line in zip(named, said, strict=True)] == [True] * 2
    assert ["begins again" in line for line in said] == [True, False]
    assert run.report.skipped == 2
    again = train(data, spec, tmp_path / "again", on_error="skip")
    assert_equal_bits(run, again)
    expected = pytest.approx(again.report.val_loss, rel=1e-6)
    assert run.report.val_loss == expected


@pytest.mark.parametrize("store", ["ram", "disk", "off"])
def test_the_store_changes_seconds_alone(photos, tmp_path, store):
    """Wherever decoded images wait, the weights have the same bits."""
    spec = replace(HEAD, augment=True)
    expected = train(photos, replace(spec, store="auto"), tmp_path / "auto")
    run = train(photos, replace(spec, store=store), tmp_path / store)
    assert_equal_bits(expected, run)
    report = json.loads((tmp_path / store / "report.json").read_text("utf-8"))
    assert report["settings"]["images_kept"].startswith(store)
    assert not list((tmp_path / store).glob("*pixels*"))


@pytest.mark.parametrize(
    "spec",
    [
        replace(HEAD, store_size=20, augment=True),
        replace(HEAD, precision="bfloat16"),
        replace(PART, precision="bfloat16"),
    ],
    ids=["small store", "bfloat16 head", "bfloat16 layer4"],
)
def test_what_is_reported_is_what_evaluate_finds(photos, tmp_path, spec):
    """Whatever is trained on, val is measured in its fixed views and in float32."""
    run = train(photos, spec, tmp_path)
    state = open_model(run.model).state or random_weights("resnet18", 1)
    loss, accuracy = plain_figures(run, state, photos, "val")
    assert run.report.val_loss == pytest.approx(loss, rel=1e-4)
    assert run.report.val_accuracy == pytest.approx(accuracy)


def test_frozen_outputs_of_fixed_views_are_computed_once(photos, tmp_path, monkeypatch):
    """Not in every epoch, where the views do not change."""
    seen = []
    frozen = online_network.OnlineNetwork._frozen

    def counting(network, precision):
        run = frozen(network, precision)
        return lambda images: seen.append(len(images)) or run(images)

    monkeypatch.setattr(online_network.OnlineNetwork, "_frozen", counting)
    run = train(photos, replace(HEAD, epochs=4), tmp_path)
    assert run.report.epochs == 4
    assert sum(seen) == 14 + 6 + 14  # train once, val once, train at the end


def test_no_training_image_is_an_error(tmp_path):
    """All of train damaged leaves nothing to train on."""
    data = make(tmp_path / "data", train=2, val=2)
    for file in (data / "train").rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="no usable training image in"):
        train(data, HEAD, tmp_path / "run", on_error="skip")


def test_a_stop_while_the_first_checkpoint_is_written(photos, tmp_path, monkeypatch):
    """Nobody is told to go on with a checkpoint that is not there."""

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(online_run.checkpointing, "save", stop)
    with pytest.raises(Interrupted, match=r"is kept in [^;]*$"):
        train(photos, HEAD, tmp_path)
    with pytest.raises(CheckpointError, match="or was stopped while it began"):
        resume_finetuning(tmp_path)


def test_a_run_is_resumed_from_another_folder(photos, tmp_path, monkeypatch):
    """What was named relative to one folder is found from another."""
    monkeypatch.chdir(photos.parent)
    stopped(photos.name, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert resume_finetuning("run").report.epochs == 2


def test_a_path_is_a_folder_though_a_data_set_has_its_name(tmp_path, monkeypatch):
    """A string may name a known data set, a path never."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "digits", train=2, val=2)
    run = train(Path("digits"), HEAD, tmp_path / "run")
    assert open_model(run.model).classes == ("ants", "bees")


def test_the_last_model_of_another_run_does_not_stay(photos, tmp_path):
    """A folder holds the files of one run."""
    train(photos, HEAD, tmp_path)
    assert (tmp_path / "last.safetensors").exists()
    train(photos, replace(HEAD, epochs=0), tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_a_resumed_file_is_no_run(photos, tmp_path):
    """The model file itself is not what --resume takes."""
    run = train(photos, HEAD, tmp_path)
    with pytest.raises(CheckpointError, match="is no folder"):
        resume_finetuning(run.model)


@pytest.mark.slow
def test_a_broken_off_epoch_leaves_no_gradients(tmp_path):
    """With accumulated batches the repeated epoch is that of a fresh one."""
    data = make(tmp_path / "data", train=6, val=2)
    manifest = scan(data)
    rows = np.flatnonzero(manifest.splits == 0)
    bad = manifest.file(rows[epoch_order(len(rows), seed=0, epoch=0)[-1]])

    class Vandal(Listener):
        def advance(self, count):
            super().advance(count)
            if self.tasks[-1] == "epoch 1/2" and self.counts[-1][1] == 4:
                bad.write_bytes(b"GIF89a")

    spec = replace(DRIFT, store="off", accumulate=3, batch_size=2, augment=True)
    run = train(data, spec, tmp_path / "run", on_error="skip", progress=Vandal())
    assert run.report.skipped == 1
    again = train(data, spec, tmp_path / "again", on_error="skip")
    assert_equal_bits(run, again)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(FULL, precision="float16"), "float16 needs a CUDA device, got cpu"),
        (HEAD, "for the head alone use 'featcache fit-head'"),
        (replace(PART, mixup=0.1), "mixup is about images"),
    ],
)
def test_settings_that_cannot_be_are_refused(photos, tmp_path, spec, words):
    """Before anything is read."""
    cached = {} if spec.precision == "float16" else {"from_cache": tmp_path / "x.h5"}
    with pytest.raises(SpecError, match=words):
        finetune(photos, spec, weights="random", out=tmp_path / "run", **cached)
    assert not (tmp_path / "run").exists()


def test_head_only_without_augmentation_is_fit_head(photos, tmp_path, monkeypatch):
    """The same numbers as from the cache, to float32 rounding."""
    monkeypatch.setattr(extraction, "find_weights", assembling.find_weights)
    cache = extract(photos, weights="random:1", cache=tmp_path / "c.h5")
    fitted = fit_head(
        cache, SgdSpec(epochs=2, lr=1e-3, batch_size=4), out=tmp_path / "f"
    )
    run = train(photos, HEAD, tmp_path / "online")
    assert run.report.val_loss == pytest.approx(fitted.report.val_loss, rel=1e-4)


KILLED = """
import sys
from dataclasses import replace
from featcache.core.specs import FinetuneSpec, ViewSpec
from featcache.stages import assembling
from featcache.stages.finetuning import finetune
find = assembling.find_weights
view = ViewSpec(resize=40, crop=36)
assembling.find_weights = lambda *a, **k: replace(find(*a, **k), view=view)
spec = FinetuneSpec(epochs=6, lr=1e-3, batch_size=4, workers=1)
finetune(sys.argv[1], spec, weights="random:1", out=sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(photos, tmp_path):
    """SIGKILL at any moment after the first epoch costs the epoch in work."""
    spec = FinetuneSpec(epochs=6, lr=1e-3, batch_size=4, workers=1)
    whole = train(photos, spec, tmp_path / "whole")
    out, kills = tmp_path / "killed", 0
    for wait in (0.0, 0.3, 0.7):
        command = [sys.executable, "-c", KILLED, str(photos), str(out)]
        before = _done(out)
        with subprocess.Popen(command) as process:
            while process.poll() is None and _done(out) <= before:
                time.sleep(0.02)
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert kills
    resumed = train(photos, spec, out)
    assert_equal_bits(whole, resumed)


def _done(out):
    found = read_checkpoint(out / "checkpoint")
    return 0 if found is None else found.about["epochs"]
