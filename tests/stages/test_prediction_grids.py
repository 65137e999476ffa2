"""Grids of predictions: of a stream the few that are worth a look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featcache
from featcache.core.errors import BadImage, DataError, SpecError
from featcache.core.predictions import Prediction
from featcache.core.progress import Silent
from featcache.core.specs import ViewSpec
from featcache.stages.gallery import Gallery, folder_class
from featcache.stages.image_files import list_images
from featcache.stages.predicting import predicting
from featcache.stages.prediction import Predictions
from featcache.stages.prediction_grids import with_grid
from featcache.store.artifacts import open_model
from tests.conftest import picture
from tests.stages.test_predicting import many, model  # noqa: F401 - fixtures

CLASSES = frozenset({"ants", "bees"})
folders = st.sampled_from(["ants", "bees", "others"])


@given(
    st.lists(st.tuples(folders, st.sampled_from(["ants", "bees"]), st.integers(0, 20))),
    st.integers(1, 12),
)
def test_the_gallery_keeps_what_sorting_everything_would(told, size):
    """Mistakes, the most confident first; right ones; then the unknown in order."""

    def key(row):
        number, (folder, label, probability) = row
        if folder not in CLASSES:
            return 2, 0, number
        return int(label == folder), -probability, number

    gallery = Gallery(CLASSES, size)
    for number, (folder, label, probability) in enumerate(told):
        gallery.offer(f"{folder}/{number}", label, probability / 20)
    rows = sorted(enumerate(told), key=key)[:size]
    assert gallery.paths == [f"{folder}/{number}" for number, (folder, *_) in rows]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/val/ants/1.jpg", "ants"),
        ("ants/near/far/1.jpg", "ants"),
        ("ants/bees/1.jpg", "bees"),
        ("photos/ants.jpg", ""),
        ("ants", ""),
        ("/mnt/bees/1.jpg", "bees"),
    ],
)
def test_the_truth_is_the_nearest_folder_with_the_name_of_a_class(path, expected):
    assert folder_class(path, CLASSES) == expected


def some(tmp_path, *rows):
    """Predictions (folder, label, probability) of images that are there."""
    told = []
    for number, (folder, label, probability) in enumerate(rows):
        file = tmp_path / folder / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        picture(number, (99, 99, 99), (30, 20)).save(file)
        told.append(Prediction(str(file), label, probability))
    return Predictions(tuple(told), (BadImage("bad.jpg", "damaged"),))


def captions(figure):
    """Return what is written below the tiles, in order: mark, value, label, truth."""
    return [text.get_text() for text in figure.axes[0].texts]


def test_mistakes_come_first_and_how_the_truth_is_known_is_said(tmp_path, model):  # noqa: F811
    rows = (("ants", "ants", 0.9), ("ants", "bees", 0.6), ("bees", "ants", 0.8))
    figure = featcache.plot_predictions(some(tmp_path, *rows), model)
    told = captions(figure)
    assert "3 of 3 images: 2 of 2 mistakes, 1 of 1 right ones; " in told[1]
    assert told[2] == "truth: the name of the folder that an image lies in"
    assert [t for t in told if "%" in t] == ["80 %", "60 %", "90 %"]
    assert told[3:8] == ["\N{BALLOT X}", "80 %", "ants", "is", "bees"]
    assert told[-3:] == ["\N{CHECK MARK}", "90 %", "ants"]
    shapes = {image.get_array().shape for image in figure.axes[0].images}
    assert shapes == {(20, 30, 3)}  # the whole image, in its own shape


def test_without_the_truth_images_keep_their_order(tmp_path):
    """And nothing is called right or wrong."""
    told = some(tmp_path, ("ants", "bees", 0.6), ("x", "ants", 0.9))
    texts = captions(featcache.plot_predictions(told))
    assert texts[1:3] == ["2 of 2 images, in their order", "truth: not known"]
    assert [t for t in texts if "%" in t] == ["60 %", "90 %"]
    assert not {"\N{BALLOT X}", "\N{CHECK MARK}"} & set(texts)


def test_the_truth_can_be_given(tmp_path):
    told = some(tmp_path, ("x", "bees", 0.6), ("x", "ants", 0.9))
    truth = {p.path: "ants" for p in told.predictions}
    texts = captions(featcache.plot_predictions(told, truth=truth))
    assert texts[2] == "truth: as given"
    assert [t for t in texts if "%" in t] == ["60 %", "90 %"]
    assert "\N{BALLOT X}" in texts


def test_a_stream_is_taken_one_by_one(tmp_path):
    """Also one of a million images of which most are gone."""
    stream = (Prediction(f"{tmp_path}/{i}.jpg", "ants", i / 9999) for i in range(9999))
    texts = captions(featcache.plot_predictions(stream, grid_size=2))
    assert "2 of 9,999 images, in their order" in texts
    assert texts.count("not there any more") == 2


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(DataError, match="there is no prediction to draw"):
        featcache.plot_predictions(Predictions((), ()))


@pytest.mark.parametrize("size", [0, 401])
def test_a_grid_has_a_page(size):
    with pytest.raises(SpecError, match=f"grid_size must be from 1 to 400, got {size}"):
        Gallery(CLASSES, size)


class Listener(Silent):
    """Writes the lines down."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Write it down."""
        self.lines.append(line)


def grid_line(model, images, out=None):  # noqa: F811
    """Predict with a grid; return what was said of it."""
    listener = Listener()
    files = list_images([images], listener)
    listener.lines.clear()
    file = images.parent / "grid.png"
    with (
        predicting(model, out=out, progress=listener) as run,
        with_grid(file, 4, run, files, lambda _: None) as tell,
    ):
        run.work(files, tell)
    assert file.read_bytes().startswith(b"\x89PNG")
    return listener.lines[-1]


def test_a_run_that_is_gone_on_with_draws_all_of_it(model, shared_photos, tmp_path):  # noqa: F811
    """What the file had already counts as what is predicted now."""
    whole = grid_line(model, shared_photos)
    assert "grid.png: 4 of 20 images: " in whole
    out = tmp_path / "p.csv"
    first = list_images([shared_photos / "train"], Silent())
    with predicting(model, out=out, progress=Silent()) as run:
        run.work(first, lambda _: None)
    assert grid_line(model, shared_photos, out) == whole
    assert grid_line(model, shared_photos, out) == whole


def test_an_image_that_was_rewritten_counts_once(model, photos, tmp_path):  # noqa: F811
    """The file has a row for what it was, and one for what it is."""
    out = tmp_path / "p.csv"
    grid_line(model, photos, out)
    picture(7, (1, 2, 3), (50, 90)).save(photos / "train/ants/00.jpg")
    assert "grid.png: 4 of 20 images: " in grid_line(model, photos, out)
    assert "grid.png: 4 of 20 images: " in grid_line(model, photos, out)


def test_images_that_cannot_be_used_are_not_drawn(model, many):  # noqa: F811
    assert "of 38 images" in grid_line(model, many)


def test_names_that_are_not_utf_8_are_found_again(model, tmp_path):  # noqa: F811
    """They are escaped where they are shown, not where they are opened."""
    photos = tmp_path / "ants"
    photos.mkdir()
    picture(0, (99, 99, 99)).save(photos / "caf\udce9.png")
    gallery = Gallery(CLASSES)
    (file,) = list_images([photos], Silent())
    gallery.offer(f"{photos}/caf\\xe9.png", "ants", 1.0)
    names = {gallery.paths[0]: file.name}
    view = open_model(model).view
    assert view == ViewSpec()
    figure = gallery.draw("t", view, names)
    (image,) = figure.axes[0].images
    assert np.asarray(image.get_array()).shape == (60, 80, 3)
