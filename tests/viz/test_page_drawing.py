"""Charts and marks of a report: inside their box, told apart, nothing silently lost."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from featcache.core.audits import SplitAccuracy
from featcache.core.histories import RunHistory
from featcache.core.pages import Cell
from featcache.core.reports import EpochRecord
from featcache.viz.page_charts import charts, ticks
from featcache.viz.page_marks import COLOURS, SHAPES, heat, look, outline, scatter
from featcache.viz.page_words import about_leaks, percent

VALUES = st.floats(-1e9, 1e9).map(lambda v: round(v, 6))


def history(*records, best=1):
    return RunHistory("run", tuple(records), best)


def epoch(number, loss=0.5, accuracy=0.8, lr=0.1):
    return EpochRecord(number, lr, loss, accuracy, loss, accuracy, 1.0)


def numbers(path):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]


@given(VALUES, VALUES)
def test_ticks_enclose_what_they_are_for(a, b):
    low, high = sorted((a, b))
    marks = ticks(low, high)
    slack = 1e-6 * (marks[-1] - marks[0])
    assert 2 <= len(marks) <= 7
    assert marks[0] <= low + slack
    assert high - slack <= marks[-1]
    assert marks == sorted(set(marks))


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 10)),
        min_size=1,
        max_size=30,
    )
)
@example([(0.0, 0.0, 1.0), (0.0, 0.0, 5e-324)])
@example([(0.0, 0.0, 0.0), (0.0, 0.0, 5e-324)])
def test_lines_stay_in_their_chart(values):
    told = history(*(epoch(at, *v) for at, v in enumerate(values, 1)))
    for chart in charts(told):
        for line in chart.lines:
            xs, ys = numbers(line.path)[::2], numbers(line.path)[1::2]
            assert min(xs) >= chart.left
            assert max(xs) <= chart.right
            assert min(ys) >= chart.top - 0.1
            assert max(ys) <= chart.bottom + 0.1


def test_labels_of_an_axis_keep_apart():
    for epochs in (1, 2, 7, 25, 100, 1000):
        told = history(
            *(
                epoch(at, 1 / at, 0.5, 10.0**-at if at < 30 else 0.1)
                for at in range(1, epochs + 1)
            )
        )
        for chart in charts(told):
            x = [place for place, _ in chart.x_ticks]
            y = sorted(place for place, _ in chart.y_ticks)
            assert all(b - a >= 20 for a, b in pairwise(x)), epochs
            assert all(b - a >= 14 for a, b in pairwise(y)), epochs


def test_a_training_that_diverged_has_a_chart_without_lines():
    nan = float("nan")
    loss, accuracy, _ = charts(history(epoch(1, nan), epoch(2, nan)))
    assert loss.lines == ()
    assert accuracy.lines != ()


def test_thousands_of_epochs_keep_the_best_and_the_last():
    told = history(*(epoch(at) for at in range(1, 5001)), best=4321)
    loss, *_ = charts(told)
    assert len(numbers(loss.lines[0].path)) / 2 <= 403
    assert loss.lines[0].end[0] == loss.right
    assert loss.best in numbers(loss.lines[0].path)[::2]


def test_no_val_means_no_line_of_val():
    told = history(replace(epoch(1), val_loss=None, val_accuracy=None))
    assert [line.name for line in charts(told)[0].lines] == ["train"]


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=20
    )
)
def test_points_lie_in_the_map(points):
    drawn = scatter(np.array(points, np.float32), range(len(points)))
    for x, y in drawn.places:
        assert 0 <= x <= drawn.width
        assert 0 <= y <= drawn.height


def test_both_axes_have_one_scale_and_up_is_up():
    drawn = scatter(np.array([[0, 0], [1, 0], [0, 0.5]], np.float32), [0, 0, 0])
    (ax, ay), (bx, by), (cx, cy) = drawn.places
    assert (ay, ax) == (by, cx)
    assert ay - cy == pytest.approx((bx - ax) / 2, abs=0.2)


def test_48_classes_differ_in_colour_or_shape():
    assert len({(look(k), outline(k, 4)) for k in range(COLOURS * SHAPES)}) == 48


def test_a_matrix_draws_each_cell_once_or_says_how_many_not():
    cells = [Cell(0, 0, 5), Cell(0, 9, 1), Cell(9, 0, 2)]
    drawn = heat(cells, 10)
    assert sum(path.count("M") for _, path in drawn.levels) == drawn.cells == 3
    assert dict(drawn.levels)["w1"] == "M9 0h1v1h-1z"
    assert dict(drawn.levels)["w5"] == "M0 9h1v1h-1z"
    many = [Cell(i // 200, i % 200, 1 + (i == 7)) for i in range(20_010)]
    assert heat(many, 200).left_out == 10


def test_what_rounds_to_all_is_not_said_to_be_all():
    assert [percent(share) for share in (0, 1e-9, 0.9994, 0.99999, 1)] == [
        "0.0 %",
        "< 0.1 %",
        "99.9 %",
        "> 99.9 %",
        "100.0 %",
    ]


@pytest.mark.parametrize(
    ("leaks", "clean", "expected"),
    [
        (0, 0.9, "90.0 % of val right; no image of it stands in train."),
        (
            2,
            0.8,
            "90.0 % of val right, and without 2 images that stand in train 80.0 %.",
        ),
        (10, None, "without 10 images that stand in train nothing is left."),
    ],
)
def test_leaks_are_told_with_what_they_do(leaks, clean, expected):
    ends = (0.5, 0.95)
    found = SplitAccuracy("val", 10, 0.9, ends, leaks, clean, clean and ends)
    assert about_leaks(found).endswith(expected)
