"""What a person holds says in a few lines what it is, and never reads features."""

import json
import pkgutil
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.audits import AuditReport, ClassCount, Finding, SplitAccuracy
from featcache.core.curves import CurvePoint, CurveReport
from featcache.core.displays import Displayed
from featcache.core.errors import BadImage
from featcache.core.features import Features
from featcache.core.heads import LinearHead
from featcache.core.knn import KnnHead
from featcache.core.predictions import Prediction
from featcache.core.reports import Report, TrainReport
from featcache.core.specs import ViewSpec
from featcache.stages.comparing import ComparisonReport
from featcache.stages.evaluation import EvaluationReport
from featcache.stages.prediction import Predictions
from featcache.stages.probing import Trained
from featcache.stages.worth import ModelResult, PairResult
from featcache.store.artifacts import Model
from featcache.store.opening import open_cache
from featcache.store.told import cache_told
from tests.store.conftest import make_content, make_spec

C = 1000
NAMES = ["<script>alert(1)</script>", *(f"class {i}" for i in range(1, C))]

HEAD = LinearHead(np.zeros((C, 512), np.float32), np.zeros(C, np.float32))
KNN = KnnHead(np.eye(50, 512, dtype=np.float32), np.zeros(50, np.int32), C, 20, 0.07)
MODEL = Model(
    head=HEAD,
    classes=tuple(NAMES),
    view=ViewSpec(),
    backbone="resnet50",
    weights_sha256="5" * 64,
    weights="IMAGENET1K_V1",
    state=None,
    report={"val_accuracy": 0.9542, "val_accuracy_interval": [0.9086, 0.9777]},
)
TRAINED = TrainReport(
    model=Path("runs/1/model.safetensors"),
    solver="sgd",
    epochs=25,
    best_epoch=5,
    train_accuracy=1.0,
    val_accuracy=0.9542,
    val_loss=0.1518,
    val_accuracy_interval=(0.9086, 0.9777),
    val_ece=0.08,
    skipped=3,
    seconds=0.126,
)
CONFUSION = np.eye(C, dtype=int) * 9
CONFUSION[0, 7], CONFUSION[5, 2] = 3, 1
EVALUATED = EvaluationReport(
    accuracy=0.9,
    mean_per_class_recall=0.89,
    log_loss=0.3,
    confusion=CONFUSION.tolist(),
    classes=NAMES,
    split="val",
    accuracy_interval=(0.88, 0.92),
    mean_per_class_recall_interval=(0.87, 0.91),
    top5_accuracy=0.99,
    ece=0.01,
    images=9004,
    skipped=0,
)
PREDICTED = Predictions(
    tuple(Prediction(f"photos/{i}.jpg", NAMES[i % C], 0.75) for i in range(10_000)),
    tuple(BadImage(f"bad {i}.jpg", "truncated") for i in range(2000)),
)
COMPARED = ComparisonReport(
    models=tuple(
        ModelResult(
            f"runs/{i}", "val.h5", 0.9, (0.8, 0.95), 0, "cached head", "r", 1, 2
        )
        for i in range(30)
    ),
    pairs=(PairResult("A", "B", 1, 2, 3, 4, 0, (0, 0), 1, 1, False, 0.1, "no"),) * 435,
    split="val",
    images=153,
    unpaired=0,
    worth=None,
)
CURVE = CurveReport(
    out=Path("runs/curve"),
    files=("curve.csv", "curve.png"),
    cache=Path("cache/a.h5"),
    data="a",
    backbone="resnet18",
    solver="sgd",
    classes=2,
    val_images=153,
    chance=0.54,
    seeds=2,
    points=tuple(
        CurvePoint(
            shots=n,
            share=None,
            images=2 * n,
            images_per_class=n,
            accuracies=(0.8, 0.9),
            accuracy_mean=0.85,
            accuracy_std=0.0707,
        )
        for n in (1, 2, 4)
    ),
    skipped=0,
    seconds=3.5,
)
AUDITED = AuditReport(
    cache=Path("cache/a.h5"),
    images=400,
    skipped=0,
    backbone="resnet18",
    near=0.92,
    counts={"label": 2, "leak": 1},
    imbalance=1.5,
    accuracies=(SplitAccuracy("val", 153, 0.95, (0.9, 0.98), 1, None, None),),
    classes=tuple(ClassCount(name, 1, 1, 0) for name in NAMES),
    findings=tuple(
        Finding("label", f"{i}.jpg", 0.5, "why", "val", "ants") for i in range(995)
    ),
    notes=(),
    seconds=1.0,
)

TOLD = [
    pytest.param(HEAD, ["512", "1,000"], id="linear head"),
    pytest.param(replace(HEAD, normalize=True), ["unit length"], id="unit rows"),
    pytest.param(KNN, ["k 20", "images 50"], id="knn head"),
    pytest.param(
        MODEL, ["resnet50", "IMAGENET1K_V1", "995 more", "90.86 to 97.77 %"], id="model"
    ),
    pytest.param(replace(MODEL, state={}), ["fine-tuned from"], id="fine-tuned"),
    pytest.param(replace(MODEL, head=KNN), ["KnnHead"], id="knn model"),
    pytest.param(
        TRAINED,
        ["95.42 % (95 % interval: 90.86 to 97.77 %)", "calibration error  0.08"],
        id="training",
    ),
    pytest.param(
        Trained(TRAINED.model, HEAD, TRAINED),
        ["Trained", "skipped", "sgd"],
        id="trained",
    ),
    pytest.param(
        EVALUATED,
        ["90.00 % (95 % interval: 88.00 to 92.00 %)", "3 images taken for class 7"],
        id="evaluation",
    ),
    pytest.param(PREDICTED, ["10,000", "9,995 more", "1,995 more"], id="predictions"),
    pytest.param(COMPARED, ["153 images", "80.00 to 95.00 %", "more"], id="comparison"),
    pytest.param(CURVE, ["8 training images", "7.07 points"], id="curve"),
    pytest.param(
        AUDITED, ["990 more", "val 95.00 % (95 % interval: 90.00"], id="audit"
    ),
    pytest.param(
        Features(np.zeros((9, 4), np.float32), np.zeros(9, np.int32), np.arange(9)),
        ["samples 9", "float32"],
        id="features",
    ),
]


@pytest.mark.parametrize(("thing", "expected"), TOLD)
def test_things_say_what_they_are(thing, expected):
    """In a few lines of text and in a small table alike, whatever their size."""
    text, page = repr(thing), thing._repr_html_()
    assert len(text) < 5000
    assert len(text.split("\n")) <= 27
    assert len(page) < 20_000
    assert "<script" not in page
    told = re.sub("<[^>]*>", " ", page)
    for words in expected:
        assert words in text
        for word in words.split():
            assert word in told


def test_every_report_says_itself():
    """No dataclass has slipped in a representation that prints all of its fields."""
    for package in (featcache.core, featcache.stages):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            import_module(found.name)
    reports = Report.__subclasses__()
    assert len(reports) >= 10
    assert {
        r.__name__ for r in reports if r.__repr__ is not Displayed.__repr__
    } == set()


@pytest.mark.parametrize("reached", ["<b>", True, [1], None, {}])
def test_a_strangers_model_says_what_it_can(reached):
    """The report in a model file is JSON of whoever wrote it."""
    model = replace(MODEL, report=json.loads(json.dumps({"val_accuracy": reached})))
    assert "accuracy" not in repr(model)
    assert "<b>" not in model._repr_html_()
    model = replace(
        MODEL, report={"val_accuracy": 0.5, "val_accuracy_interval": reached}
    )
    assert "val accuracy  50.00 %" in repr(model)
    assert "interval" not in repr(model)


@pytest.fixture
def path(tmp_path):
    """A cache of 20 rows, one without feature, one class no UTF-8."""
    return make_content(bad=3).complete(tmp_path / "<i>cache.h5")


def test_an_open_cache_reads_no_feature(path):
    with open_cache(path) as cache:
        train = cache.features("train")
        assert (
            repr(train) == "<StoredFeatures: samples 14, embed dim 512, dtype float32>"
        )
        assert "X" not in vars(train)
        del cache.columns["features"]
        text, page = repr(cache), cache._repr_html_()
    lines = [line.split(maxsplit=1) for line in text.split("\n")[1:]]
    assert lines == [
        ["file", str(path)],
        ["images", "20 (train 15, val 5)"],
        ["features", "resnet18 avgpool, 512 x float32, 41 kB"],
        ["classes", r"3: ants, bees, caf\xe9"],
        ["skipped", "1 without features: their images are not usable"],
    ]
    assert "&lt;i&gt;cache.h5" in page
    assert "<i>" not in page


def test_several_files_name_themselves(path, tmp_path):
    other = make_content(bad=3).complete(tmp_path / "b.h5")
    with open_cache([path, other]) as cache:
        assert "20 (train 15, val 5)" in repr(cache)
        assert "2: <i>cache.h5, b.h5" in repr(cache)


def test_views_are_told(tmp_path):
    with open_cache(make_content(views=4).complete(tmp_path / "v.h5")) as cache:
        assert "4 views x 512 x float32" in repr(cache)


@pytest.mark.parametrize("count", [1, 2])
def test_a_closed_cache_says_so(path, count):
    cache = open_cache(path if count == 1 else [path, path])
    cache.close()
    assert "closed; featcache.open_cache opens it again" in repr(cache)
    assert "closed" in cache._repr_html_()


def test_a_million_rows_of_a_thousand_classes_take_no_more_room():
    n = 1_000_000
    columns = {
        "splits": (np.arange(n) % 10 == 0).astype(np.uint8),
        "status": np.ones(n, np.uint8),
        "classes": np.array([f"class {i}" for i in range(C)], "S"),
    }
    told = dict(cache_told(Path("cache/large.h5"), make_spec(), n, columns))
    assert told["images"] == "1,000,000 (train 900,000, val 100,000)"
    assert told["features"].endswith("2.05 GB")
    assert told["classes"].endswith("class 4 and 995 more")


def test_estimators_keep_scikit_learns_own():
    """Which shows the parameters that were changed; in notebooks as a diagram."""
    classifier = featcache.estimators.SGDHeadClassifier(lr=0.1)
    features = featcache.estimators.ImageFeatures("resnet50", cache="<b>here")
    assert repr(classifier) == "SGDHeadClassifier(lr=0.1)"
    assert repr(features) == "ImageFeatures(backbone='resnet50', cache='<b>here')"
    assert "sk-container" in classifier._repr_html_()
    assert "<b>here" not in features._repr_html_()
