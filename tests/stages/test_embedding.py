"""Embedding: images of any kind to features, of which none is computed twice."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import featcache
from featcache.core.errors import (
    BadImagesError,
    DataError,
    NumericError,
    SpecError,
    StorageError,
    WeightsError,
)
from featcache.stages import embedding
from featcache.stages.embedding import EmbedSpec, embed_images
from featcache.store.memo import OWN
from featcache.vision.backbones import random_weights
from tests.stages.test_extraction import sampled_pixels


@pytest.fixture
def forwarded(monkeypatch):
    """Put sampled pixels in the network's place; a list of the batches it saw."""
    sizes = []

    def embedder(*_, **__):
        embed = sampled_pixels()

        def counting(pixels):
            sizes.append(len(pixels))
            return embed(pixels)

        counting.description = "sampled pixels"
        return counting

    monkeypatch.setattr("featcache.vision.forward.embedder", embedder)
    embedding._extractor.cache_clear()
    yield sizes
    embedding._extractor.cache_clear()


@pytest.fixture
def paths(shared_photos):
    """Twenty photographs, in the manifest's order."""
    return sorted(path for path in shared_photos.rglob("*.*"))


def embed(images, **settings):
    return embed_images(images, EmbedSpec(weights="random:0", **settings))


def test_features_are_those_of_extract(paths, shared_photos, tmp_path):
    """The real network, whatever holds the image."""
    chosen = paths[:2]
    cache = featcache.extract(
        shared_photos, weights="random:0", cache=tmp_path / "it.h5"
    )
    names = [os.fsdecode(p) for p in cache.paths]
    rows = [names.index(str(p.relative_to(shared_photos))) for p in chosen]
    expected = cache.features().X[rows]
    pictures = [Image.open(path) for path in chosen]
    arrays = [np.asarray(picture) for picture in pictures]
    files = [io.BytesIO(path.read_bytes()) for path in chosen]
    for images in (chosen, [os.fsencode(p) for p in chosen], files, pictures, arrays):
        np.testing.assert_allclose(embed(images), expected, rtol=1e-4, atol=1e-5)


def test_nothing_is_computed_twice(paths, tmp_path, forwarded):
    """The second time and under another name, nothing goes through the network."""
    cache = tmp_path / "memo"
    first = embed(paths, cache=cache)
    assert sum(forwarded) == 20
    copy = tmp_path / "copy.jpg"
    shutil.copy(paths[0], copy)
    again = embed([copy, *paths[1:]], cache=cache)
    assert sum(forwarded) == 20
    assert np.array_equal(first, again)
    pictures = [np.asarray(Image.open(path)) for path in paths[:3]]
    embed(pictures, cache=cache)
    embed(pictures, cache=cache)
    assert sum(forwarded) == 23


def test_what_extract_computed_is_taken(paths, shared_photos, tmp_path, forwarded):
    """From a cache in the folder, which stays as it is."""
    file = tmp_path / "cache" / "it.h5"
    featcache.extract(shared_photos, weights="random:0", cache=file)
    before, seen = file.read_bytes(), len(forwarded)
    embed(paths, cache=tmp_path / "cache")
    assert len(forwarded) == seen
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_path_that_stands_several_times_is_computed_once(paths, forwarded):
    """As an oversampler gives it; also without a cache."""
    order = [3, 1, 3, 3, 0, 1]
    found = embed([paths[i] for i in order])
    assert sum(forwarded) == 3
    assert np.array_equal(found, embed(paths)[order])


def test_an_interrupted_call_keeps_its_pieces(paths, tmp_path, forwarded, monkeypatch):
    """All that was computed before the last piece."""
    monkeypatch.setattr(embedding, "_KEPT_EVERY", 8)
    keep, kept = embedding.Memo.add, []

    def interrupted(memo, *arguments):
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(arguments)
        keep(memo, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(embedding.Memo, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed(paths, cache=tmp_path)
    del forwarded[:]
    embed(paths, cache=tmp_path)
    assert sum(forwarded) == 4


def test_bad_images_are_named_and_the_others_kept(paths, tmp_path, forwarded):
    """Files by their path, others by their number."""
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nonsense")
    wrong = Image.new("HSV", (4, 4))
    with pytest.raises(BadImagesError, match="2 of 22 images cannot be used") as raised:
        embed([*paths, bad, wrong], cache=tmp_path)
    assert [image.path for image in raised.value.images] == [str(bad), "image 21"]
    assert raised.value.images[0].reason == "no image format that Pillow knows"
    del forwarded[:]
    embed(paths, cache=tmp_path)
    assert forwarded == []


def test_bad_images_may_be_rows_of_nan(paths, tmp_path, forwarded):
    """With a warning that names them; they are not kept, and tried again."""
    bad = io.BytesIO(b"nonsense")
    expected = embed(paths[:2])
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"rows are NaN: 1 of 3 .*\(image 1: no "):
            found = embed([paths[0], bad, paths[1]], cache=tmp_path, on_error="nan")
        assert np.isnan(found[1]).all()
        assert np.array_equal(found[[0, 2]], expected)
    with pytest.raises(SpecError, match="on_error must be stop or nan, got 'skip'"):
        embed(paths, on_error="skip")


def test_many_additions_become_one_file(paths, tmp_path, forwarded, monkeypatch):
    """And nothing of them is lost."""
    monkeypatch.setattr(embedding, "_MOST_FILES", 4)
    for path in paths[:7]:
        embed([path], cache=tmp_path)
    assert len(list((tmp_path / OWN).iterdir())) <= 4
    del forwarded[:]
    embed(paths[:7], cache=tmp_path)
    assert forwarded == []


def test_settings_and_images_that_cannot_work_are_refused(paths, tmp_path, forwarded):
    """Each with its own error."""
    with pytest.raises(SpecError, match="resnet19"):
        embed(paths, backbone="resnet19")
    with pytest.raises(WeightsError, match="unknown weights"):
        embed_images(paths, EmbedSpec(weights="imagenot"))
    with pytest.raises(DataError, match=r"image 1: .*float64 is no image"):
        embed([paths[0], np.zeros((4, 4))])
    with pytest.raises(StorageError, match="expected a folder"):
        embed(paths, cache=paths[0])


def test_other_weights_of_the_same_name_are_noticed(paths, tmp_path):
    """A file is read again when it has changed, and the memo knows other weights."""
    features = []
    for seed in (0, 1, 0):
        state = random_weights("resnet18", seed)
        save_file(state, tmp_path / "it.safetensors")
        weights = tmp_path / "it.safetensors"
        found = embed_images(
            paths[:1], EmbedSpec(weights=weights, cache=tmp_path / "memo")
        )
        features.append(found)
    assert not np.allclose(features[0], features[1])
    assert np.array_equal(features[0], features[2])


def test_features_that_are_not_finite_are_an_error(paths, tmp_path, monkeypatch):
    """And are not remembered."""

    def embedder(*_, **__):
        def embed(pixels):
            return np.full((len(pixels), 512), np.nan, np.float32)

        embed.description = "nothing"
        return embed

    monkeypatch.setattr("featcache.vision.forward.embedder", embedder)
    embedding._extractor.cache_clear()
    with pytest.raises(NumericError, match="not finite"):
        embed(paths[:1], cache=tmp_path)
    embedding._extractor.cache_clear()
    assert list(tmp_path.iterdir()) == []
