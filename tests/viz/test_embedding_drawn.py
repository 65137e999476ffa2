"""The picture of a map: every point, its class, its split, and whether it is wrong."""

import numpy as np
import pytest

from featcache.core.errors import SpecError
from featcache.viz.embedding import MapMarks, draw_map
from featcache.viz.style import class_styles, save_figure
from tests.viz.plots import boxes, class_names, heard, overlaps, require_on_paper


def clouds(C, n, seed=0):
    """Return points of C clouds, and their labels; every class has some."""
    random = np.random.default_rng(seed)
    y = (np.arange(n) % C).astype(np.int32)
    means = 3 * C**0.3 * random.normal(size=(C, 2))
    return (means[y] + random.normal(size=(n, 2))).astype(np.float32), y


def drawn(C, n, **marks):
    points, y = clouds(C, n)
    return draw_map(points, y, class_names(C), heard, MapMarks(**marks))


def rounded(numbers):
    return np.asarray(numbers, np.float64).round(3).tolist()


def placed(axes):
    """Return every point drawn with its colour, rounded, as a set."""
    return {
        (*rounded(at), *rounded(colour[:3]))
        for some in axes.collections
        for at, colour in zip(some.get_offsets(), some.get_facecolors(), strict=True)
    }


def named(picture):
    """Return what the legend says."""
    return [text.get_text() for key in picture.legends for text in key.get_texts()]


@pytest.mark.parametrize("C", [1, 2, 20, 30])
def test_every_point_has_the_colour_of_its_class(C):
    """Whatever the order in which they are drawn."""
    points, y = clouds(C, 3 * C)
    axes = draw_map(points, y, class_names(C), heard).axes[0]
    styles = class_styles(C)
    expected = set()
    for at, c in zip(points, y.tolist(), strict=True):
        hexes = styles[c].colour[1:]
        rgb = [int(hexes[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        expected.add((*rounded(at), *rounded(rgb)))
    assert placed(axes) == expected


def test_classes_without_a_point_take_no_colour():
    """A map of one split, or of a part of the images."""
    points, y = clouds(2, 10)
    names = ["ants", "none", "bees"]
    picture = draw_map(points, np.array([0, 2], np.int32)[y], names, heard)
    assert named(picture) == ["ants", "bees"]


def test_held_out_points_are_strong_and_mistakes_are_marked():
    held_out, wrong = np.arange(20) >= 12, np.isin(np.arange(20), [13, 19])
    marks = {"held_out": held_out, "wrong": wrong, "held_out_name": "val"}
    picture = drawn(2, 20, **marks, wrong_name="mistakes: 2 of 8")
    axes = picture.axes[0]
    sizes = {s.get_alpha(): len(s.get_offsets()) for s in axes.collections[:2]}
    assert sizes == {0.45: 12, 0.9: 8}
    points, _ = clouds(2, 20)
    for mark in axes.collections[2:]:  # a ring and a cross
        np.testing.assert_array_equal(mark.get_offsets(), points[wrong])
    assert named(picture)[2:] == ["train", "val", "mistakes: 2 of 8"]


@pytest.mark.parametrize("all_held_out", [True, False])
def test_a_map_of_one_kind_tells_none_apart(all_held_out):
    picture = drawn(2, 20, held_out=np.full(20, all_held_out))
    assert named(picture) == named(drawn(2, 20))
    assert {
        s.get_alpha() for s in picture.axes[0].collections if len(s.get_offsets())
    } == {0.9}


def test_up_to_twenty_classes_are_named_beside_the_map():
    assert len(named(drawn(20, 60))) == 20
    assert named(drawn(21, 60)) == []


def test_many_classes_are_named_where_they_are_without_overlap():
    """What has no room is counted; that colours are too few is said."""
    picture = drawn(101, 1010)
    axes = picture.axes[0]
    assert 40 < len(axes.texts) < 101
    picture.draw_without_rendering()
    assert overlaps(boxes(picture, axes.texts)) == []
    left = 101 - len(axes.texts)
    assert picture.get_supxlabel() == f"no room for the names of {left} classes"
    said = picture.legends[0].get_title().get_text().replace("\n", " ")
    assert said.startswith("101 classes, more than colours")


def test_a_name_stands_at_the_median_of_its_points():
    """An outlier does not draw it away."""
    points, y = clouds(25, 250)
    points = 40 * np.stack([y % 5, y // 5], axis=1) + points.clip(-1, 1)
    points = points.astype(np.float32)
    points[0] = 100
    axes = draw_map(points, y, [f"c{i}" for i in range(25)], heard).axes[0]
    at = {text.get_text(): text.xy for text in axes.texts}
    assert at["c0"] == pytest.approx(np.median(points[y == 0], axis=0), abs=1e-4)


def test_both_axes_have_one_scale():
    points, y = clouds(2, 40)
    picture = draw_map(points * (10, 1), y, ["a", "b"], heard)
    picture.draw_without_rendering()
    axes = picture.axes[0]
    x, z = np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())
    assert x / z == pytest.approx(axes.bbox.width / axes.bbox.height)


@pytest.mark.parametrize(("n", "pixels"), [(2000, False), (2001, True)])
def test_many_points_are_pixels_in_an_svg(n, pixels, tmp_path):
    """Else browsers choke on the file."""
    save_figure(drawn(2, n), tmp_path / "p", "svg")
    text = (tmp_path / "p").read_text()
    assert ("<image" in text) is pixels
    assert len(text) < 1_000_000


@pytest.mark.parametrize(
    "C", [1, 2, 20, *(pytest.param(C, marks=pytest.mark.slow) for C in (101, 1000))]
)
def test_nothing_is_clipped(C):
    n = 5 * C
    marks = {"held_out": np.arange(n) % 2 == 0, "wrong": np.arange(n) % 7 == 0}
    require_on_paper(drawn(C, n, **marks, axes=("first", "second"), title="long " * 60))


def test_no_point_is_refused():
    with pytest.raises(SpecError, match="there is no point to draw"):
        draw_map(np.empty((0, 2), np.float32), np.empty(0, np.int32), ["a"], heard)
