"""Caches of maps: what they hold, how they are made and read, and what refuses them."""

import os
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torchvision.models import ResNet18_Weights, get_model

import featcache
from featcache.cli.main import main
from featcache.core.errors import (
    CacheMismatchError,
    CacheNotFoundError,
    DamagedRowsError,
    NumericError,
    SpecError,
    StorageError,
)
from featcache.core.specs import ExtractSpec
from featcache.core.tolerances import relative_errors, tolerance
from featcache.stages.changes import status
from featcache.stages.inspection import describe
from featcache.stages.merging import merge
from featcache.stages.newest import newest_cache
from featcache.stages.origins import Origin
from featcache.stages.sources import find_weights
from featcache.store.maps import StoredMaps, require_maps
from tests.conftest import picture
from tests.stages.test_extraction import Listener, age, contents

SHAPE = (256, 14, 14)  # of resnet18's layer3 at 224 x 224
SIZE = 256 * 14 * 14


def sampled_pixels(backbone, view, **_):
    """A quick stand-in for a network: the maps are pixels of the view."""
    size = backbone.row_size(view.crop)
    step = 224 * 224 * 3 // size

    def embed(pixels):
        flat = pixels.reshape(len(pixels), -1)
        return flat[:, ::step][:, :size].astype(np.float32)

    embed.description = "sampled pixels"
    return embed


@pytest.fixture
def quick(monkeypatch):
    """Put sampled pixels in the network's place: what is tested is around it."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)


@pytest.fixture
def extract(tmp_path):
    """Extract maps of layer3 with random weights into a file of this name."""

    def run(data, name="maps", spec=None, **settings):
        path = tmp_path / f"{name}.h5"
        how = {"weights": "random:0", "cache": path, "layer": "layer3", **settings}
        return featcache.extract(data, spec, **how)

    return run


@pytest.fixture
def made(photos, quick, extract):
    """The path of a cache of maps of the test's own photos."""
    age(photos)
    with extract(photos) as cache:
        return cache.path


@pytest.mark.parametrize(
    ("layer", "dtype", "precision"),
    [("layer3", None, "float32"), ("stem", "float32", "float32")]
    + [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (("layer1", None, "bfloat16"), ("layer2", "float32", "bfloat16"))
    ],
)
def test_maps_are_what_torchvisions_module_gives(
    tmp_path, extract, layer, dtype, precision
):
    """As a forward hook sees them, in the order c, h, w; float16 if nobody asks."""
    for name in ("a", "b"):
        (tmp_path / "few" / name).mkdir(parents=True)
        picture(ord(name), (90, 120, 60)).save(tmp_path / "few" / name / "0.png")
    network = get_model("resnet18", weights=None).eval()
    state = find_weights("resnet18", "random:0").load()
    network.load_state_dict(state, strict=False)
    seen = []
    name = "maxpool" if layer == "stem" else layer
    network.get_submodule(name).register_forward_hook(lambda *a: seen.append(a[2]))
    with extract(
        tmp_path / "few", layer=layer, dtype=dtype, precision=precision
    ) as cache:
        transform = ResNet18_Weights.IMAGENET1K_V1.transforms()
        with torch.inference_mode():
            for path in cache.paths:
                file = tmp_path / "few" / path.decode()
                network(transform(Image.open(file))[None])
        expected = torch.cat(seen).numpy()
        assert cache.map_shape == expected.shape[1:]
        assert cache.spec.dtype == (dtype or "float16")
        found = cache.take(np.arange(2))
        assert found.dtype == cache.spec.dtype
        errors = relative_errors(expected.reshape(2, -1), found)
        assert errors.max() <= tolerance(cache.spec)


@pytest.mark.slow
def test_the_size_is_said_before_anything_is_computed(quick, photos, extract):
    """In bytes of the features; a second run, which makes no file, says nothing."""
    listener = Listener(stop_after=1)
    with pytest.raises(featcache.core.errors.Interrupted):
        extract(photos, progress=listener)
    assert "20 images x 256x14x14 float16: 2.01 MB" in listener.lines
    again = Listener()
    extract(photos, progress=again).close()
    assert not any("float16" in line for line in again.lines)
    several = Listener()
    extract(photos, "views", views=3, dtype="float32", progress=several).close()
    assert "20 images x 3 views x 256x14x14 float32: 12 MB" in several.lines


def test_a_disk_too_small_is_an_error_before_the_first_image(
    quick, photos, extract, monkeypatch
):
    """The whole file is allocated first; nothing of it is left."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    listener = Listener()
    with pytest.raises(StorageError, match="No space left"):
        extract(photos, progress=listener)
    assert listener.began_at is None
    assert not list(photos.parent.glob("maps.h5*"))


def test_an_interrupted_run_ends_in_equal_bytes(quick, photos, extract):
    """Resume is the same for maps as for features."""
    with extract(photos, "whole") as whole:
        expected = contents(whole)
    listener = Listener(stop_after=1)
    with pytest.raises(featcache.core.errors.Interrupted):
        extract(photos, progress=listener)
    with extract(photos) as cache:
        assert cache.report.computed < 20
        assert contents(cache) == expected


def test_a_changed_folder_computes_what_is_new(made, photos, extract):
    """`status` says so before; the rest is taken over."""
    picture(77, (90, 90, 90)).save(photos / "train" / "ants" / "new.png")
    (photos / "train" / "bees" / "00.jpg").rename(photos / "train" / "bees" / "x.jpg")
    assert status(made).to_compute == 1
    with extract(photos) as cache, extract(photos, "fresh") as fresh:
        assert (cache.report.computed, cache.report.reused) == (1, 20)
        assert contents(cache) == contents(fresh)


def test_maps_and_features_are_different_caches(made, photos, extract):
    """Another layer is refused by name, and has another file by default."""
    with pytest.raises(CacheMismatchError, match="layer is 'layer3' in the file, 'av"):
        extract(photos, layer="avgpool")
    from featcache.stages.extraction import default_cache

    assert default_cache(photos, "resnet18").name == "photos-resnet18.h5"
    named = default_cache(photos, "resnet18", "layer3").name
    assert named == "photos-resnet18-layer3.h5"


@pytest.mark.slow
def test_maps_beyond_float16_are_refused(photos, extract, monkeypatch):
    """An infinity is never stored; the remedy is float32."""

    def large(backbone, view, **_):
        def embed(pixels):
            maps = np.zeros((len(pixels), SIZE), np.float32)
            maps[:, 5] = 65_536
            return maps

        embed.description = "large"
        return embed

    monkeypatch.setattr("featcache.vision.forward.embedder", large)
    with pytest.raises(NumericError, match="not finite in float16; pass --dtype float"):
        extract(photos)
    with extract(photos, "wide", dtype="float32") as cache:
        assert cache.take(np.arange(1)).max() == 65_536


def test_a_cache_says_what_it_holds(made):
    """Layer and shape in info, in the representation and in the report."""
    found = describe(made)
    assert (found["layer"], found["map_shape"]) == ("layer3", list(SHAPE))
    with featcache.open_cache(made) as cache:
        assert cache.map_shape == SHAPE
        assert "256x14x14 x float16" in repr(cache)
    text = CliRunner().invoke(main, ["info", str(made)]).output
    assert "layer3" in text
    assert "256, 14, 14" in text


def test_the_command_makes_maps(photos, tmp_path, quick):
    """`--layer` reaches the file; a layer that is none is a usage error."""
    words = ["extract", str(photos), "--weights", "random:0"]
    file = tmp_path / "it.h5"
    run = CliRunner().invoke(main, [*words, "--layer", "layer3", "--cache", str(file)])
    assert run.exit_code == 0, run.output
    assert "20 images x 256x14x14, 2 classes" in run.output
    assert "256x14x14 float16: 2.01 MB" in run.stderr
    assert CliRunner().invoke(main, [*words, "--layer", "layer4"]).exit_code == 2
    with pytest.raises(SpecError, match="unknown layer 'layer4'"):
        featcache.extract(photos, layer="layer4")


def test_caches_of_maps_are_joined(made, tmp_path, extract):
    """The union of two folders' caches has the rows of both, byte for byte."""
    other = tmp_path / "other"
    (other / "train" / "ants").mkdir(parents=True)
    (other / "train" / "wasps").mkdir()
    picture(501, (10, 60, 40)).save(other / "train" / "ants" / "501.png")
    picture(502, (60, 10, 40)).save(other / "train" / "wasps" / "502.png")
    extract(other, "second").close()
    target = tmp_path / "joined.h5"
    merge([made, tmp_path / "second.h5"], target)
    with featcache.open_cache(target) as joined, featcache.open_cache(made) as first:
        assert (len(joined), joined.map_shape) == (22, SHAPE)
        assert joined.sound(next(joined.blocks()))
        with featcache.open_cache([made, tmp_path / "second.h5"]) as parts:
            every = np.arange(len(joined.rows("train")))[::-1]
            one, several = (StoredMaps(c, "train") for c in (joined, parts))
            assert np.array_equal(one.take(every), several.take(every))
        both = np.isin(joined.paths, first.paths)
        found = joined.take(np.flatnonzero(both))
        order = np.searchsorted(first.paths, joined.paths[both], sorter=(
            sorter := np.argsort(first.paths)))  # fmt: skip
        assert np.array_equal(found, first.take(sorter[order]))


def test_sampled_rows_are_computed_again(made, tmp_path, photos):
    """`verify --sample` finds maps that are not those of the images."""
    assert featcache.verify(made, sample=5).largest_error <= 1e-3
    damaged = tmp_path / "damaged.h5"
    shutil.copy(made, damaged)
    picture(7, (1, 2, 3)).save(photos / "train" / "ants" / "00.jpg")
    with pytest.raises(DamagedRowsError, match="changed since"):
        featcache.verify(damaged, sample=20)


@pytest.mark.slow
def test_workers_of_several_devices_make_the_same_maps(photos, extract):
    """The layer reaches the other processes."""
    one = ExtractSpec(device="cpu", workers=1)
    two = ExtractSpec(device="cpu,cpu", workers=2)
    with extract(photos, "one", one) as first, extract(photos, "two", two) as second:
        assert contents(first) == contents(second)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda c: c.features("train"), id="features"),
        pytest.param(lambda c: c.dataset("train"), id="dataset"),
        pytest.param(lambda c: c.to_arrow("train"), id="arrow"),
        pytest.param(lambda c: c.to_pandas("train"), id="pandas"),
        pytest.param(featcache.fit_head, id="fit_head"),
        pytest.param(lambda c: featcache.fit_head(c.path), id="fit_head path"),
        pytest.param(featcache.curve, id="curve"),
        pytest.param(lambda c: featcache.export(c, to="npy"), id="export"),
    ],
)
def test_who_wants_features_refuses_maps_in_one_line(made, tmp_path, use):
    """It says what the cache holds and which command takes it; nothing is made."""
    before = sorted(tmp_path.rglob("*"))
    with featcache.open_cache(made) as cache:
        with pytest.raises(
            CacheMismatchError, match=r"holds maps of layer3"
        ) as refused:
            use(cache)
        assert f"finetune --unfreeze layer4 --from-cache {made}" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_newest_cache_is_one_of_features(made, photos, extract, tmp_path):
    """Who names no cache wants features, though maps were made last."""
    with pytest.raises(CacheNotFoundError, match="no cache of features, but maps"):
        newest_cache(tmp_path)
    extract(photos, "features", layer="avgpool").close()
    later = made.stat().st_mtime_ns + 10**12
    os.utime(made, ns=(later, later))
    assert newest_cache(tmp_path).name == "features.h5"
    assert newest_cache(tmp_path, maps=True) == made


def test_a_model_is_not_measured_on_maps(made, photos, extract, tmp_path):
    """`evaluate` and `predict` of a head want features of the same backbone."""
    with extract(photos, "features", layer="avgpool") as features:
        model = featcache.fit_head(features, out=tmp_path / "run").report.model
    with pytest.raises(CacheMismatchError, match="layer3"):
        featcache.evaluate(model, made)


@pytest.mark.parametrize("views", [1, 3])
def test_rows_are_read_as_maps(photos, quick, extract, views):
    """Any samples in any order, any view, also when the cache is closed."""
    with extract(photos, views=views) as cache:
        train, val = (StoredMaps(cache, split) for split in ("train", "val"))
        expected = {s: np.array(cache.views(s)) for s in ("train", "val")}
        labels = cache.labels[cache.rows("train")]
    assert (len(train), len(val), train.views, val.views) == (12, 8, views, 1)
    assert np.array_equal(train.y, labels)
    samples = np.array([5, 0, 11, 5])
    for view in range(views):
        found = train.take(samples, view)
        assert found.shape == (4, *SHAPE)
        assert found.flags.writeable
        assert np.array_equal(found.reshape(4, -1), expected["train"][samples, view])
    drawn = np.arange(4) % views
    assert np.array_equal(
        train.take(samples, drawn).reshape(4, -1), expected["train"][samples, drawn]
    )
    assert np.array_equal(val.take(np.arange(8)).reshape(8, -1), expected["val"][:, 0])


def test_rows_of_unusable_images_are_left_out(photos, quick, extract):
    """Samples are numbered without them."""
    (photos / "train" / "ants" / "01.jpg").write_bytes(b"no image")
    with extract(photos, spec=ExtractSpec(on_error="skip")) as cache:
        train = StoredMaps(cache, "train")
        assert len(train) == 11
        found = train.take(np.arange(11)).reshape(11, -1)
        assert np.array_equal(found, cache.take(cache.rows("train")))
        assert np.isfinite(found).all()


def test_training_begins_where_the_maps_end(made, photos, extract):
    """A cache of another layer, or of features, says what it is for."""
    with featcache.open_cache(made) as cache:
        require_maps(cache, "layer4")
        with pytest.raises(
            CacheMismatchError, match="--unfreeze layer4 trains, not --"
        ):
            require_maps(cache, "layer3")
    with extract(photos, "features", layer="avgpool") as features:
        for refuse in (StoredMaps, require_maps):
            with pytest.raises(CacheMismatchError, match="holds features, from which"):
                refuse(features, "train")


def test_the_weights_of_a_cache_are_found_again(made, tmp_path):
    """By what the cache recorded, checked against its identity."""
    with featcache.open_cache(made) as cache:
        source, state = Origin().state(cache)
        assert source.backbone == "resnet18"
        assert set(state) == set(find_weights("resnet18", "random:0").load())
        with pytest.raises(CacheMismatchError, match="weights_sha256 is"):
            Origin(weights="random:1").state(cache)
