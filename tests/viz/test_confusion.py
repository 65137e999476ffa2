"""The picture of a confusion matrix: counts, shares, names, from 1 to 1,000 classes."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from featcache.core.errors import SpecError
from featcache.viz.confusion import Pair, draw_confusion, most_confused
from tests.viz.plots import boxes, class_names, heard, overlaps, require_on_paper


def matrix(C, n=2000):
    """Return counts of a model that takes classes for the next one, and for any."""
    random = np.random.default_rng(C)
    true = random.integers(C, size=n)
    other = (true + random.integers(1, C + 1, size=n)) % C
    said = np.where(random.random(n) < 0.8, true, other)
    return np.bincount(true * C + said, minlength=C * C).reshape(C, C)


def numbers(axes):
    """Return what is written in the cells, by row and column."""
    texts = [t for t in axes.texts if t.get_transform() == axes.transData]
    return {t.get_position()[::-1]: t for t in texts}


def luminance(colour):
    """Return the relative luminance of a colour, as WCAG defines it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("C", [1, 2, 3, 10, 40])
def test_cells_hold_their_counts(C):
    counts = matrix(C)
    axes = draw_confusion(counts, class_names(C), heard).axes[0]
    written = {at: int(text.get_text()) for at, text in numbers(axes).items()}
    rows, columns = np.nonzero(counts)
    assert written == {
        (r, c): counts[r, c]
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    }


def test_colours_are_shares_of_the_row():
    counts = np.array([[90, 10], [1, 1]])
    axes = draw_confusion(counts, ["a", "b"], heard).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[90, 10], [50, 50]])


def test_numbers_can_be_read_on_their_colours():
    """4.5 to 1 is what WCAG asks of small letters."""
    counts = np.array([[100 - n, n] for n in range(38)])
    square = np.zeros((38, 38), int)
    square[:, :2] = counts
    axes = draw_confusion(square, class_names(38), heard).axes[0]
    image = axes.images[0]
    for (row, column), text in numbers(axes).items():
        cell = image.to_rgba(image.get_array())[int(row), int(column)]
        a, b = sorted((luminance(cell[:3]), luminance(text.get_color())))
        assert (b + 0.05) / (a + 0.05) >= 4.5, square[int(row), int(column)]


def test_a_class_without_images_is_said_to_have_none():
    """Nothing is divided by zero: a warning would be an error here."""
    counts = matrix(5)
    counts[[1, 4]] = 0
    axes = draw_confusion(counts, class_names(5), heard).axes[0]
    written = {at: text.get_text() for at, text in numbers(axes).items()}
    assert (written[1, 2], written[4, 2]) == ("no images", "no images")
    assert axes.images[0].get_array().mask.tolist() == [
        [row in (1, 4)] * 5 for row in range(5)
    ]
    drawn = axes.images[0].to_rgba(axes.images[0].get_array(), bytes=True)
    assert (drawn[[1, 4], :, :3] == 0xD4).all()  # grey, as the note of many has it


def test_of_many_classes_a_note_says_which_rows_are_empty():
    counts = matrix(50)
    counts[7] = 0
    axes = draw_confusion(counts, class_names(50), heard).axes[0]
    assert axes.get_xlabel() == "predicted   (grey rows: 1 class without images)"


def test_a_model_that_says_one_class_only():
    counts = np.zeros((10, 10), int)
    counts[:, 3] = 15
    picture = draw_confusion(counts, class_names(10), heard)
    assert {at[1] for at in numbers(picture.axes[0])} == {3}
    require_on_paper(picture)


def test_beyond_forty_classes_the_most_confused_are_listed():
    counts = np.eye(50, dtype=int) * 9
    counts[3, 4], counts[7, 2] = 5, 6
    names = [f"class {i}" for i in range(50)]
    axes = draw_confusion(counts, names, heard).axes[0]
    lines = [text.get_text() for text in axes.texts]
    assert lines == [
        *("most confused", "images", "true", "predicted"),
        *("6", "class 7", "class 2", "5", "class 3", "class 4"),
    ]


def test_numbers_that_cells_have_no_room_for_are_not_written():
    axes = draw_confusion(np.full((40, 40), 123_456), class_names(40), heard).axes[0]
    assert numbers(axes) == {}
    assert axes.texts[0].get_text() == "most confused"


def test_a_perfect_model_confuses_nothing():
    picture = draw_confusion(np.eye(60, dtype=int), ["a"] * 60, heard)
    assert [text.get_text() for text in picture.axes[0].texts] == ["no image confused"]
    require_on_paper(picture)


def test_pairs_come_by_number_of_images():
    counts = np.array([[9, 1, 0], [3, 9, 2], [0, 0, 9]])
    assert most_confused(counts, 2) == [Pair(1, 0, 3), Pair(1, 2, 2)]
    assert most_confused(counts, 9) == [Pair(1, 0, 3), Pair(1, 2, 2), Pair(0, 1, 1)]


@pytest.mark.parametrize(
    "C",
    [2, 10, *(pytest.param(C, marks=pytest.mark.slow) for C in (1, 40, 60, 101, 1000))],
)
def test_nothing_is_clipped_and_no_names_touch(C):
    """Whatever their length and script; cells are square."""
    title = f"a title of {C} classes, longer than a small picture is wide"
    picture = draw_confusion(matrix(C), class_names(C), heard, title=title)
    require_on_paper(picture)
    axes = picture.axes[0]
    for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
        assert overlaps(boxes(picture, labels)) == []
    assert axes.bbox.width == pytest.approx(axes.bbox.height)
    assert len(axes.get_yticklabels()) == {101: 51, 1000: 63}.get(C, C)


@pytest.mark.parametrize("confusion", [[[1, 2]], [], [[[1]]], [[1, 2], [3, 4], [5, 6]]])
def test_a_matrix_of_other_classes_is_refused(confusion):
    with pytest.raises(SpecError, match="of 2 classes has 2 rows and columns, got"):
        draw_confusion(confusion, ["a", "b"], heard)


def test_no_class_is_refused():
    with pytest.raises(SpecError, match="of 0 classes has 0 rows"):
        draw_confusion(np.zeros((0, 0), int), [], heard)
