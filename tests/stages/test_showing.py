"""show: images as the network sees them, and the batch that finetune trains on."""

import os
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import featcache
from featcache.core.errors import DataError, DependencyError, SpecError
from featcache.core.finetune_spec import FinetuneSpec
from featcache.core.progress import SILENT, Silent
from featcache.core.specs import ViewSpec
from featcache.stages.assembling import Surroundings, assemble
from featcache.stages.recipe import Request
from featcache.stages.showing import MOST_CLASSES, MOST_TILES
from featcache.train.ranks import Ranks
from featcache.vision.decode import decode_view, read_file
from featcache.vision.threads import Threads


class Listener(Silent):
    """Writes the lines down."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Write it down."""
        self.lines.append(line)


def pixels_of(figure):
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def trained_on(photos, folder, spec):
    """Return the first batch that finetune's own feed gives its loop."""
    request = Request(data=str(photos), spec=spec, weights="random:0")
    with Ranks.joined("cpu") as ranks, Threads(2) as threads:
        here = Surroundings(torch.device("cpu"), threads, ranks, folder, SILENT)
        with assemble(request, here) as parts:
            return next(iter(parts.feed.train(0)))


def test_the_augmented_batch_is_the_first_that_finetune_trains_on(
    shared_photos, tmp_path
):
    """To the pixel, with its labels; another seed gives another batch."""
    spec = FinetuneSpec(unfreeze="all", batch_size=5, seed=3, store="off")
    expected, labels = trained_on(shared_photos, tmp_path, spec)
    figure = featcache.show(shared_photos, augmented=True, batch_size=5, seed=3)
    assert np.array_equal(pixels_of(figure), expected)
    names = [("ants", "bees")[label] for label in labels]
    assert [text for text in texts_of(figure) if text in ("ants", "bees")] == names
    other = featcache.show(shared_photos, augmented=True, batch_size=5, seed=4)
    assert not np.array_equal(pixels_of(other), expected)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_first_or_last_of_each_class_are_shown(shared_photos, last, split):
    """In their fixed views, class after class."""
    figure = featcache.show(shared_photos, per_class=3, last=last, split=split)
    expected = []
    for name in ("ants", "bees"):
        files = sorted((shared_photos / split / name).iterdir())
        chosen = files[-3:] if last else files[:3]
        expected += [decode_view(read_file(file), ViewSpec()) for file in chosen]
    assert np.array_equal(pixels_of(figure), expected)
    assert {"ants", "bees"} < set(texts_of(figure))


def test_classes_are_shown_in_the_order_asked_for(shared_photos):
    both = pixels_of(featcache.show(shared_photos, per_class=1))
    turned = featcache.show(shared_photos, per_class=1, classes=["bees", "ants"])
    assert np.array_equal(pixels_of(turned), both[::-1])
    one = featcache.show(shared_photos, per_class=1, classes=["bees"])
    assert np.array_equal(pixels_of(one), both[1:])


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """101 classes of one image each."""
    root = tmp_path_factory.mktemp("hundred")
    for number in range(101):
        folder = root / "train" / f"class {number:03}"
        folder.mkdir(parents=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / "1.png")
    folder = root / "val/class 000"
    folder.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(folder / "1.png")
    return root


def test_a_page_has_room_for_so_many_classes_and_says_so(hundred):
    """And how to see the others."""
    listener = Listener()
    figure = featcache.show(hundred, progress=listener)
    assert len(pixels_of(figure)) == MOST_CLASSES
    (line,) = listener.lines
    assert line == (
        f"the first {MOST_CLASSES} of 101 classes; choose others with --classes "
        f"'class {MOST_CLASSES:03},...'"
    )
    few = featcache.show(hundred, per_class=MOST_TILES // 2, progress=listener)
    assert len(pixels_of(few)) == 2
    named = featcache.show(hundred, classes=["class 100"], progress=listener)
    assert np.median(pixels_of(named)) == 0
    assert np.asarray(pixels_of(named))[..., 0].max() == 100


def test_a_class_without_an_image_in_the_split_is_an_empty_line(hundred):
    figure = featcache.show(hundred, split="val", classes=["class 000", "class 001"])
    assert len(pixels_of(figure)) == 1
    assert "0 images" in texts_of(figure)


def test_a_class_is_found_by_its_printed_name(shared_photos, tmp_path):
    """Nobody types a line break."""
    for old, new in (("ants", "fire\nants"), ("bees", os.fsdecode(b"bees\xff"))):
        shutil.copytree(shared_photos / "train" / old, tmp_path / "train" / new)
    names = [r"bees\xff", r"fire\nants"]
    told = texts_of(featcache.show(tmp_path, per_class=1, classes=names))
    assert [text for text in told if text in names] == names


def test_what_cannot_be_shown_says_why_in_its_place(photos):
    """Also in a batch, over which finetune would stop."""
    for file in (photos / "train/ants").iterdir():
        file.write_bytes(b"no image")
    told = texts_of(featcache.show(photos, per_class=2))
    assert sum("no image format" in text for text in told) == 2
    batch = featcache.show(photos, augmented=True, batch_size=12)
    assert len(pixels_of(batch)) == 6
    assert sum("no image format" in text for text in texts_of(batch)) == 6


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"classes": ["antz"]}, DataError, "no class 'antz'; did you mean 'ants'\\?"),
        ({"classes": []}, SpecError, r"a list of class names, got \[\]"),
        ({"classes": "ants"}, SpecError, "a list of class names, got 'ants'"),
        ({"augmented": True, "seed": -1}, SpecError, "must not be negative, got -1"),
        ({"split": "test"}, DataError, "photos has no image in split test"),
        ({"split": "dev"}, DataError, "unknown split 'dev'"),
        ({"per_class": 0}, SpecError, "per_class must be from 1 to 240, got 0"),
        ({"batch_size": 241}, SpecError, "batch_size must be from 1 to 240, got 241"),
        ({"augmented": True, "last": True}, SpecError, "augmented shows a batch"),
        ({"augmented": True, "split": "val"}, SpecError, "leave out split"),
        ({"augmented": True, "classes": ["ants"]}, SpecError, "of whatever classes"),
    ],
)
def test_what_cannot_be_shown_is_refused(shared_photos, settings, error, says):
    with pytest.raises(error, match=says):
        featcache.show(shared_photos, **settings)


def test_without_matplotlib_the_remedy_is_said(shared_photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r"pip install 'featcache\[plot\]'"):
        featcache.show(shared_photos)
