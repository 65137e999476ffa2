"""curve: accuracy against training images, its table, its files and its picture."""

import csv
import json
import sys
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import featcache
from featcache.core.curves import CurvePoint, CurveReport
from featcache.core.errors import SpecError, TrainingError
from featcache.core.features import Features
from featcache.core.manifest import VAL
from featcache.core.progress import Silent
from featcache.core.specs import SgdSpec
from featcache.core.status import Status
from featcache.stages.curve_fits import as_many_steps
from featcache.viz.curves import draw_curve
from featcache.viz.style import save_figure


@pytest.fixture(scope="module")
def cache(shared_photos, tmp_path_factory):
    """The shared photos through a random ResNet-18."""
    path = tmp_path_factory.mktemp("cache") / "it.h5"
    return featcache.extract(shared_photos, weights="random:0", cache=path)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Runs go to the test's own folder."""
    monkeypatch.chdir(tmp_path)


class Listener(Silent):
    """Writes the lines down."""

    def __init__(self):
        self.text = ""

    def say(self, line):
        """Write it down."""
        self.text += line + "\n"


def test_points_are_the_heads_of_fit_head(cache):
    """The first seed draws the images that --shots draws."""
    spec = featcache.CentroidSpec()
    report = featcache.curve(cache, spec, seeds=2, shots_seed=3)
    assert [p.shots for p in report.points] == [1, 2, 4, None]
    assert [p.images for p in report.points] == [2, 4, 8, 12]
    assert [len(p.accuracies) for p in report.points] == [2, 2, 2, 1]
    for point in report.points[:-1]:
        for number, accuracy in enumerate(point.accuracies):
            fitted = featcache.fit_head(
                cache, spec, shots=point.shots, shots_seed=3 + number
            )
            assert accuracy == fitted.val_accuracy
        assert point.accuracy_mean == np.mean(point.accuracies)
        assert point.accuracy_std == pytest.approx(np.std(point.accuracies, ddof=1))
    assert report.points[-1].accuracies == (
        featcache.fit_head(cache, spec).val_accuracy,
    )


def test_the_folder_has_every_accuracy_and_the_picture(cache):
    """One CSV line per head; PNG and SVG, equal bytes for an equal curve."""
    one, again = (
        featcache.curve(cache, SgdSpec(epochs=2), shots=[1, 3], seeds=3)
        for _ in range(2)
    )
    assert one.files == ("curve.csv", "curve.png", "curve.svg", "report.json")
    with (one.out / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["images"] for row in rows] == ["2"] * 3 + ["6"] * 3 + ["12"] * 3
    assert [float(row["accuracy"]) for row in rows] == [
        accuracy for point in one.points for accuracy in point.accuracies
    ]
    assert (one.out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "training images per class" in (one.out / "curve.svg").read_text()
    assert (one.out / "curve.svg").read_bytes() == (
        again.out / "curve.svg"
    ).read_bytes()
    saved = json.loads((one.out / "report.json").read_text())
    assert saved["settings"]["epochs"] == 2
    assert saved["points"] == json.loads(json.dumps(one.to_json()["points"]))


def test_shares_take_the_place_of_shots(cache):
    report = featcache.curve(
        cache, featcache.RidgeSpec(), shares=[0.5, 1, 0.1], seeds=1
    )
    assert [p.share for p in report.points] == [0.1, 0.5, 1.0]
    assert [p.images for p in report.points] == [2, 6, 12]
    assert report.by_share
    assert report.points[0].accuracy_std is None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"shots": [7]}, TrainingError, "has 6 usable training images of ants, fewer"),
        ({"shots": [0, 2]}, SpecError, "shots must be at least 1, got 0"),
        ({"shares": [0.5, 2]}, SpecError, "shares must be above 0 and at most 1"),
        ({"shots": [1], "shares": [1]}, SpecError, "exclude each other"),
        ({"seeds": 0}, SpecError, "seeds must be at least 1"),
        ({"spec": featcache.LogRegSpec(), "shots": [1]}, TrainingError, "2 images of"),
        ({"spec": featcache.SweepSpec()}, SpecError, "one head for each number"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    cache, tmp_path, settings, error, message
):
    with pytest.raises(error, match=message):
        featcache.curve(cache, **settings)
    assert list(tmp_path.iterdir()) == []


def test_without_val_there_is_nothing_to_measure_on(cache, monkeypatch):
    status = cache.status.copy()
    status[cache.splits == VAL] = max(Status)
    monkeypatch.setattr(cache, "columns", {**cache.columns, "status": status})
    with pytest.raises(TrainingError, match="no usable image of val to measure on"):
        featcache.curve(cache)


def test_logreg_begins_where_an_image_can_be_held_out(cache):
    """By default at two; with a single C at one."""
    spec = featcache.LogRegSpec(C=(0.01, 0.1))
    first = [featcache.curve(cache, s, seeds=1).points[0].shots
             for s in (spec, replace(spec, C=(0.1,)))]  # fmt: skip
    assert first == [2, 1]


def test_without_matplotlib_the_table_is_made_and_the_remedy_said(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    listener = Listener()
    report = featcache.curve(cache, featcache.CentroidSpec(), progress=listener)
    assert report.files == ("curve.csv", "report.json")
    assert "pip install 'featcache[plot]'" in listener.text


def test_sgd_takes_as_many_steps_with_few_images():
    """Up to rounding; the learning rate drops after as many."""
    X = np.arange(6, dtype=np.float32).reshape(3, 2)
    few = Features(X, np.array([0, 1, 1], np.int32), np.arange(3))
    for n in (3, 40, 1000, 10_000):
        part, spec = as_many_steps(few, SgdSpec(), n)
        assert len(part) <= max(3, min(n, 256))
        assert spec.epochs * len(part) == pytest.approx(25 * n, rel=0.05)
        assert spec.step_size * len(part) == pytest.approx(7 * n, rel=0.1)
        assert np.array_equal(part.X[-3:], X)


def report(points=4, name="photos", by_share=False):
    """A curve that nobody measured."""
    rising = [
        CurvePoint(
            shots=None if by_share else 2**i,
            share=(i + 1) / points if by_share else None,
            images=3 * 2**i,
            images_per_class=2.0**i,
            accuracies=(0.5, 0.7),
            accuracy_mean=0.9 - 0.4 / (i + 1),
            accuracy_std=0.1,
        )
        for i in range(points)
    ]
    return CurveReport(
        out=None, files=(), cache=None, data=name, backbone="resnet18", solver="sgd",
        classes=3, val_images=1234, chance=0.4, seeds=2, points=tuple(rising),
        skipped=0, seconds=0.1,
    )  # fmt: skip


@pytest.mark.parametrize(
    "shown",
    [
        report(),
        report(points=1),
        report(points=24),
        report(by_share=True),
        report(name="a" * 500),
        report(name="$x^{ \u8702"),
    ],
    ids=["plain", "one point", "many", "shares", "long name", "odd name"],
)
def test_nothing_of_the_picture_is_clipped_or_touches(shown, tmp_path):
    """Whatever the curve: every text inside the figure, labels apart, real counts."""
    figure = draw_curve(shown)
    save_figure(figure, tmp_path / "curve.png", "png")  # says nothing of odd letters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure.draw_without_rendering()
    (axes,) = figure.axes
    width, height = figure.canvas.get_width_height()
    ticks = [t for t in axes.get_xticklabels() if t.get_text()]
    texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *ticks]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    boxes = [t.get_window_extent() for t in ticks]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert "(all)" in ticks[-1].get_text()
