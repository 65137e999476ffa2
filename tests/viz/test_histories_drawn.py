"""The picture of trainings: every value where it belongs, readable, on the paper."""

from dataclasses import replace

import numpy as np
import pytest

from featcache.core.errors import SpecError
from featcache.core.histories import RunHistory
from featcache.viz.histories import draw_history
from tests.viz.plots import LONG, SCRIPTS, epochs, heard, require_on_paper


def drawn(*runs):
    """Draw runs; return the picture and its three panels."""
    picture = draw_history(runs, heard)
    return picture, picture.axes


def data(axes):
    """Return the points of each line of a panel that has more than one, or a dot."""
    return [np.array(line.get_data()) for line in axes.get_lines()]


def perfect(count):
    """Return epochs in which every image of val is recognised."""
    return tuple(replace(epoch, val_accuracy=1.0) for epoch in epochs(count))


def named(picture):
    """Return what the legends say."""
    return [text.get_text() for key in picture.legends for text in key.get_texts()]


def test_every_value_is_drawn_and_the_best_epoch_ringed():
    records = epochs(12)
    picture, (loss, accuracy, rate) = drawn(RunHistory("run", records, 5))
    n = [e.epoch for e in records]
    train, val, ring = data(loss)
    np.testing.assert_array_equal(train, [n, [e.train_loss for e in records]])
    np.testing.assert_array_equal(val, [n, [e.val_loss for e in records]])
    np.testing.assert_array_equal(ring, [[5], [records[4].val_loss]])
    train, val, ring = data(accuracy)
    np.testing.assert_allclose(train, [n, [100 * e.train_accuracy for e in records]])
    np.testing.assert_allclose(val, [n, [100 * e.val_accuracy for e in records]])
    np.testing.assert_allclose(ring, [[5], [100 * records[4].val_accuracy]])
    np.testing.assert_array_equal(data(rate)[0], [n, [e.lr for e in records]])
    assert named(picture) == ["train", "val", "best epoch: 5"]


def test_the_ring_is_whole_where_all_are_right():
    """At 100 % the axis ends inside of it."""
    picture, (_, accuracy, _) = drawn(RunHistory("run", perfect(3), 3))
    *_, ring = accuracy.get_lines()
    assert not ring.get_clip_on()
    require_on_paper(picture)


def test_without_val_the_best_epoch_is_on_train():
    records = epochs(6, val=False)
    picture, (loss, _, _) = drawn(RunHistory("run", records, 6))
    _, ring = data(loss)
    np.testing.assert_array_equal(ring, [[6], [records[5].train_loss]])
    assert named(picture) == ["train", "best epoch: 6"]


@pytest.mark.parametrize(
    ("count", "lr", "scale"),
    [(4, 0.01, "linear"), (5, 0.01, "log"), (5, 0.0, "linear"), (1, 0.01, "linear")],
)
def test_the_rate_is_logarithmic_where_it_spans_decades(count, lr, scale):
    _, (_, _, rate) = drawn(RunHistory("run", epochs(count, lr=lr), 1))
    assert rate.get_yscale() == scale


def test_numbers_of_a_logarithmic_axis_are_no_formulas():
    picture, (_, _, rate) = drawn(RunHistory("run", epochs(12), 1))
    picture.draw_without_rendering()
    assert {label.get_text() for label in rate.get_yticklabels()} >= {"0.01"}


def test_one_epoch_has_one_number_on_its_axis():
    picture, (_, _, rate) = drawn(RunHistory("run", epochs(1), 1))
    picture.draw_without_rendering()
    low, high = rate.get_xlim()
    inside = [tick for tick in rate.get_xticks() if low <= tick <= high]
    assert inside == [1]


def test_several_runs_have_a_colour_each():
    runs = [RunHistory(f"run {i}", epochs(3 + i), 2, i != 1) for i in range(4)]
    picture, (loss, _, _) = drawn(*runs)
    lines = loss.get_lines()
    assert len({line.get_color() for line in lines if len(line.get_xdata()) > 1}) == 4
    styles = [line.get_linestyle() for line in lines[:2]]
    assert styles == ["--", "-"]
    names = ["run 0", "run 1 (unfinished)", "run 2", "run 3"]
    assert named(picture) == ["train", "val", "best epoch", *names]


def test_values_that_are_no_numbers_are_left_out():
    """A training may diverge after its best epoch."""
    good, bad = epochs(2)
    lost = [(bad.epoch, float("inf"), float("nan"))]
    records = (good, *(type(bad)(n, 0.1, a, 0.5, b, 0.5, 1.0) for n, a, b in lost))
    picture, _ = drawn(RunHistory("run", records, 1))
    require_on_paper(picture)


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([(LONG[0] * 5, 25, True)], id="long name"),
        pytest.param([("one", 1, True)], id="one epoch"),
        pytest.param([(name, 9, False) for name in SCRIPTS], id="three, no val"),
        pytest.param([(f"{LONG[0]} {i}", 3, False) for i in range(9)], id="nine"),
        pytest.param([(f"run {i}", 60, True) for i in range(30)], id="thirty"),
    ],
)
def test_nothing_is_clipped(runs):
    histories = [RunHistory(n, epochs(count), 1, done) for n, count, done in runs]
    picture, _ = drawn(*histories)
    require_on_paper(picture)
    if len(runs) > 24:
        assert named(picture)[-1] == "and 6 more"


def test_no_run_is_refused():
    with pytest.raises(SpecError, match="there is no run to draw"):
        draw_history([], heard)
