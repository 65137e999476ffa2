"""Maps of caches: whose images, which mistakes, and what is said of both."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import featcache
from featcache.core.errors import (
    CacheMismatchError,
    CacheNotFoundError,
    DataError,
    DependencyError,
    SpecError,
)
from featcache.core.manifest import TRAIN
from featcache.core.progress import Silent
from featcache.stages.embedding_maps import place
from featcache.train.projection import project
from tests.store.conftest import make_content


class Listener(Silent):
    """Writes the lines down."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Write it down."""
        self.lines.append(line)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Forty rows, 30 of train; row 3 has no feature."""
    path = tmp_path_factory.mktemp("maps") / "it.h5"
    return featcache.open_cache(make_content(40, bad=3).complete(path))


@pytest.fixture(scope="module")
def model(cache, tmp_path_factory):
    """A head of features that tell nothing: it makes mistakes."""
    out = tmp_path_factory.mktemp("model")
    return featcache.fit_head(cache, featcache.CentroidSpec(), out=out).model


@pytest.mark.parametrize(("split", "images"), [(None, 39), ("train", 29), ("val", 10)])
def test_a_point_for_each_usable_image(cache, split, images):
    found = place(cache, method="pca", split=split)
    assert found.rows.tolist() == cache.rows(split).tolist()
    assert (len(found.points), found.images, found.wrong) == (images, images, None)
    np.testing.assert_array_equal(found.points, project(cache.take(found.rows)))


@pytest.mark.parametrize(("split", "judged_on"), [(None, "val"), ("train", "train")])
def test_mistakes_are_those_of_the_model(cache, model, split, judged_on):
    found = place(cache, method="pca", model=model, split=split)
    measured = featcache.evaluate(model, cache, split=judged_on)
    opened = featcache.open_model(model)
    said = opened.head.scores(cache.take(found.rows)).argmax(axis=1)
    assert found.judged == measured.images
    assert found.wrong.sum() == round((1 - measured.accuracy) * measured.images)
    wrong = said != cache.labels[found.rows]
    there = np.isin(found.rows, cache.rows(judged_on))
    np.testing.assert_array_equal(found.wrong, wrong & there)
    assert judged_on == "train" or found.wrong.any()


def test_of_too_many_images_a_part_is_drawn_and_said(cache, model):
    """Another seed draws others; mistakes are those among the drawn."""
    heard = Listener()
    options = {"method": "pca", "model": model, "most": 15}
    found = place(cache, seed=2, progress=heard, **options)
    assert heard.lines == ["drawn: 15 of 39 images, at random (seed 2)"]
    assert (len(found.points), found.images) == (15, 39)
    assert (np.diff(found.rows) > 0).all()
    assert found.judged == np.isin(found.rows, cache.rows("val")).sum()
    again, other = place(cache, seed=2, **options), place(cache, seed=3, **options)
    assert found.rows.tolist() == again.rows.tolist() != other.rows.tolist()


def test_the_picture_says_what_it_shows(cache, model):
    picture = featcache.plot_map(cache, method="pca", model=model)
    axes = picture.axes[0]
    assert axes.get_title() == "it: PCA of 39 images, resnet18"
    assert axes.get_xlabel() == "principal component 1"
    names = [text.get_text() for text in picture.legends[0].get_texts()]
    assert names[:5] == ["ants", "bees", r"caf\xe9", "train", "val"]
    assert names[5].startswith("mistakes: ")
    assert names[5].endswith(" of 10")


def test_tsne_is_the_default_and_its_axes_have_no_names(cache):
    axes = featcache.plot_map(cache).axes[0]
    assert axes.get_title() == "it: t-SNE of 39 images, resnet18"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("", "")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"method": "umap"}, SpecError, "unknown method 'umap'; expected pca or tsne"),
        ({"most": 0}, SpecError, "at least 1 image must be drawn, got 0"),
        ({"split": "vall"}, DataError, "unknown split 'vall'; expected train, val"),
        ({"split": "test"}, SpecError, "has no usable image of test to draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused(cache, options, error, match):
    with pytest.raises(error, match=match):
        featcache.plot_map(cache, **options)


def test_a_cache_without_val_has_no_mistakes_to_mark(model, tmp_path):
    content = make_content(20)
    splits = np.full(20, TRAIN, np.uint8)
    content = replace(content, manifest=replace(content.manifest, splits=splits))
    path = content.complete(tmp_path / "train.h5")
    with pytest.raises(DataError, match="split val has no usable image"):
        featcache.plot_map(path, model=model)


def test_a_cache_of_no_usable_image_is_refused(tmp_path):
    content = make_content(1, bad=0)
    with pytest.raises(SpecError, match="has no usable image to draw"):
        featcache.plot_map(content.complete(tmp_path / "none.h5"))


def test_a_model_of_another_backbone_is_refused(model, tmp_path):
    path = make_content(20, weights_sha256="6" * 64).complete(tmp_path / "other.h5")
    with pytest.raises(CacheMismatchError, match="weights_sha256"):
        featcache.plot_map(path, model=model)


def test_without_a_cache_it_is_said_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CacheNotFoundError, match="make one with 'featcache extract'"):
        featcache.plot_map()


def test_without_matplotlib_it_is_said_at_once(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r"pip install 'featcache\[plot\]'"):
        featcache.plot_map(cache)
