"""Grids: nothing clipped, nothing over another, pictures in their own shape."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text

from featcache.core.tiles import Tile
from featcache.viz.grids import Cell, Section, draw_grid

NAMES = (
    "ants",
    "a_class_name_of_sixty_letters_as_taxonomies_of_insects_have_it",
    "\u0627\u0644\u0646\u0645\u0644 \u0627\u0644\u0623\u0628\u064a\u0636",
    "\u03bc\u03c5\u03c1\u03bc\u03ae\u03b3\u03ba\u03b9 $x^2$",
    "\u8682\u8681" * 20,
)
SHAPES = ((60, 80), (80, 60), (10, 200), (200, 10), (1, 1))


def tile(shape):
    return Tile(np.full((*shape, 3), 128, np.uint8))


def cells(count, right=(True, False, None)):
    """Captioned cells of every kind, some without a picture."""
    return [
        Cell(
            Tile(None, "damaged: " + "w" * 90)
            if i % 6 == 5
            else tile(SHAPES[i % len(SHAPES)]),
            NAMES[i % len(NAMES)],
            f"{i} %",
            NAMES[(i + 1) % len(NAMES)],
            right[i % len(right)],
        )
        for i in range(count)
    ]


def by_class(classes):
    return [
        Section(
            [Cell(tile((224, 224)))] * (i % 4 + 1), NAMES[i % len(NAMES)], "9 images"
        )
        for i in range(classes)
    ]


@pytest.mark.parametrize(
    ("sections", "across"),
    [
        ([Section(cells(24))], 6),
        ([Section(cells(1))], 6),
        (by_class(2), 4),
        (by_class(24), 4),
        ([Section([Cell(tile((9, 9)))], name, "1 image") for name in NAMES], 1),
    ],
    ids=["captions", "one tile", "2 classes", "24 classes", "1 image per class"],
)
def test_no_text_is_clipped_or_over_another(sections, across):
    """Whatever the names: every text inside the picture, none over another."""
    picture = draw_grid(sections, title="t" * 300, notes=["n " * 90], across=across)
    picture.draw_without_rendering()
    texts = [text for text in picture.findobj(Text) if text.get_text()]
    with picture.looking():
        boxes = [text.get_window_extent() for text in texts]
    width, height = picture.canvas.get_width_height()
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for (a, one), (b, other) in combinations(zip(texts, boxes, strict=True), 2):
        across_ = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        # Boxes of lines below one another may share a pixel of a descender.
        assert across_ <= 1 or down <= 3, (a, b)


@pytest.mark.parametrize("shape", SHAPES)
def test_pictures_keep_their_shape(shape):
    picture = draw_grid([Section([Cell(tile(shape))])], title="t", side=90)
    ((left, right, low, top),) = (i.get_extent() for i in picture.axes[0].images)
    height, width = shape
    assert (right - left) / (low - top) == pytest.approx(width / height)
    assert max(right - left, low - top) == pytest.approx(90)


def test_a_mistake_has_a_mark_a_line_and_a_colour():
    """The colour is never the only sign."""
    looks = []
    for right in (True, False):
        picture = draw_grid(
            [Section([Cell(tile((9, 9)), "ants", "93 %", "bees", right)])], title="t"
        )
        axes = picture.axes[0]
        texts = {text.get_text(): text.get_color() for text in axes.texts}
        looks.append((set(texts), texts["ants"], axes.patches[0].get_linestyle()))
    (good, blue, line), (bad, red, dashes) = looks
    assert good - bad == {"\N{CHECK MARK}"}
    assert bad - good == {"\N{BALLOT X}"}
    assert blue != red
    assert line != dashes


def test_an_image_that_is_not_there_says_so():
    picture = draw_grid([Section([Cell(Tile(None, "not there any more"))])], title="t")
    told = {text.get_text().replace("\n", " ") for text in picture.axes[0].texts}
    assert "not there any more" in told
    assert not picture.axes[0].images
