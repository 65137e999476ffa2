"""scikit-learn's own checks, and its pipelines, searches and frames."""

import re
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

import featcache
from featcache.core.errors import DataError, SpecError, TrainingError
from featcache.core.features import Features
from featcache.core.specs import SgdSpec
from featcache.estimators import ImageFeatures, SGDHeadClassifier
from featcache.stages import embedding
from featcache.train.sgd import fit_sgd
from tests.stages.test_extraction import sampled_pixels

CLASSIFIERS = [
    SGDHeadClassifier(),
    SGDHeadClassifier(standardize="l2", lr=1.0, nesterov=True, random_state=None),
]
RANDOM = ImageFeatures(weights="random:0")

with warnings.catch_warnings():
    # "Can't test estimator ImageFeatures which requires input of type ...": see below.
    warnings.simplefilter("ignore", SkipTestWarning)
    every_check = estimator_checks.parametrize_with_checks([*CLASSIFIERS, RANDOM])
    # Up to scikit-learn 1.7 they come out of a generator, which pytest 9 warns of.
    names, checks = every_check.args
    every_check = pytest.mark.parametrize(names, list(checks), **every_check.kwargs)


@every_check
def test_scikit_learn_checks(estimator, check):
    """All of them, without an expected failure."""
    check(estimator)


# scikit-learn makes tables of random numbers for these checks. They pass on images
# made of the tables; what they say of shapes, NaN or sparse input means tables alone.
ON_IMAGES = (
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_fit_score_takes_y",
    "check_estimators_overwrite_params",
    "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self",
    "check_readonly_memmap_input",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_pipeline_consistency",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_transformers_unfitted_stateless",
    "check_parameters_default_constructible",
    "check_methods_sample_order_invariance",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_set_params",
    "check_dict_unchanged",
    "check_fit_idempotent",
    "check_fit_check_is_fitted",
)


def as_pictures(_, X, X_test=None, **__):
    """Return tables of numbers as images (n, 8, D, 3) of as many grey columns."""

    def pictures(table):
        grey = np.clip(np.asarray(table, float) * 20 + 128, 0, 255).astype(np.uint8)
        return np.tile(grey[:, None, :, None], (1, 8, 1, 3))

    return pictures(X) if X_test is None else (pictures(X), pictures(X_test))


@pytest.fixture
def quick(monkeypatch):
    """Put sampled pixels in the network's place."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)
    embedding._extractor.cache_clear()
    yield
    embedding._extractor.cache_clear()


@pytest.mark.parametrize("name", ON_IMAGES)
def test_scikit_learn_checks_on_images(name, quick, monkeypatch):
    """The hook by which scikit-learn suits its data to an estimator gives images."""
    monkeypatch.setattr(estimator_checks, "_enforce_estimator_tags_X", as_pictures)
    getattr(estimator_checks, name)("ImageFeatures", RANDOM)


@pytest.fixture
def table():
    """120 samples of three classes that lie apart, in random order."""
    random = np.random.default_rng(0)
    y = random.permutation(np.repeat([0, 1, 2], 40))
    X = random.normal(size=(120, 5)) + 3 * np.eye(3, 5)[y]
    return X.astype(np.float32), np.array(["bee", "ant", "wasp"])[y]


def test_parameters_are_the_fields_of_sgd_spec():
    """Names and defaults; the seed has scikit-learn's name."""
    expected = {f.name: f.default for f in fields(SgdSpec)}
    expected["random_state"] = expected.pop("seed")
    assert SGDHeadClassifier().get_params() == expected


def test_the_head_is_that_of_fit_head(table):
    """Step for step; labels are sorted, whatever they are."""
    X, y = table
    fitted = SGDHeadClassifier(epochs=5, random_state=3).fit(X, y)
    assert fitted.classes_.tolist() == ["ant", "bee", "wasp"]
    labels = np.searchsorted(fitted.classes_, y).astype(np.int32)
    train = Features(X, labels, np.arange(len(y)))
    spec = SgdSpec(epochs=5, seed=3)
    expected = fit_sgd(train, None, classes=3, spec=spec).head
    assert np.array_equal(fitted.coef_, expected.weight)
    assert np.array_equal(fitted.intercept_, expected.bias)
    assert np.array_equal(fitted.decision_function(X), expected.scores(X))
    assert fitted.score(X, y) > 0.9


@pytest.mark.parametrize("standardize", ["none", "l2"])
def test_partial_fit_over_and_over_is_fit(table, standardize):
    """As many calls as epochs; the momentum and the schedule go on."""
    X, y = table
    settings = {"epochs": 9, "standardize": standardize}
    expected = SGDHeadClassifier(**settings).fit(X, y)
    found = SGDHeadClassifier(**settings)
    for _ in range(9):
        found.partial_fit(X, y, classes=["wasp", "bee", "ant"])
    assert found.n_iter_ == expected.n_iter_ == 9
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-4, atol=1e-6)
    assert np.array_equal(found.predict(X), expected.predict(X))


def test_partial_fit_sees_classes_one_by_one(table):
    """A stream in which a class comes late; settings changed meanwhile hold."""
    X, y = table
    found = SGDHeadClassifier(lr=0.01, step_size=1000)
    for start in range(0, 120, 10):
        at = slice(start, start + 10)
        found.partial_fit(X[at], y[at], classes=np.unique(y))
    assert found.score(X, y) > 0.9
    before = found.coef_.copy()
    found.set_params(lr=1e-30).partial_fit(X, y)
    assert np.array_equal(found.coef_, before)
    again = SGDHeadClassifier().fit(X, y)
    before = again.coef_.copy()
    assert not np.array_equal(again.partial_fit(X, y).coef_, before)


def test_partial_fit_refuses_what_it_cannot_know(table):
    """Classes that were not announced, statistics of samples to come."""
    X, y = table
    with pytest.raises(TrainingError, match="first partial_fit needs all classes"):
        SGDHeadClassifier().partial_fit(X, y)
    found = SGDHeadClassifier().partial_fit(X, y, classes=["ant", "bee", "wasp"])
    with pytest.raises(TrainingError, match="others than those of the first"):
        found.partial_fit(X, y, classes=["ant", "bee"])
    with pytest.raises(TrainingError, match="'fly' is none of the classes"):
        found.partial_fit(X[:1], ["fly"])
    with pytest.raises(SpecError, match="zscore"):
        SGDHeadClassifier(standardize="zscore").partial_fit(X, y, classes=y)


def test_settings_that_cannot_work_are_refused_by_fit(table):
    """Not before: a search sets them one by one."""
    X, y = table
    with pytest.raises(SpecError, match="lr must be positive"):
        SGDHeadClassifier(lr=0).fit(X, y)
    with pytest.raises(TrainingError, match="one class only"):
        SGDHeadClassifier().fit(X, ["ant"] * 120)
    with pytest.raises(NotFittedError):
        SGDHeadClassifier().predict(X)
    assert not hasattr(SGDHeadClassifier(), "coef_")


def test_random_state_may_be_none_or_a_generator(table):
    """Another head each time, or that of the generator's state."""
    X, y = table
    state = np.random.RandomState
    coefs = [
        SGDHeadClassifier(epochs=1, random_state=s).fit(X, y).coef_
        for s in (None, None, state(0), state(0), np.int64(5), 5)
    ]
    assert not np.array_equal(coefs[0], coefs[1])
    assert np.array_equal(coefs[2], coefs[3])
    assert np.array_equal(coefs[4], coefs[5])


def test_mapped_features_of_a_cache_are_not_copied(tmp_path):
    """float32 rows of the file are what the classifier sees."""
    from tests.store.conftest import make_content

    path = make_content(40).complete(tmp_path / "a.h5")
    with featcache.open_cache(path) as cache:
        train = cache.features("train")
        checked, _ = SGDHeadClassifier()._checked(train.X, train.y, reset=True)
        assert np.shares_memory(checked, cache.columns["features"])
        assert SGDHeadClassifier(epochs=2).fit(train.X, train.y).n_features_in_ == 512


@pytest.fixture
def photos_and_labels(shared_photos):
    """Twenty paths and the names of their classes."""
    paths = sorted(str(path) for path in shared_photos.rglob("*.*"))
    return paths, [path.split("/")[-2] for path in paths]


@pytest.fixture
def pipe(quick, tmp_path):
    """From images to classes, with a cache."""
    return make_pipeline(
        ImageFeatures(weights="random:0", cache=tmp_path / "memo"),
        StandardScaler(),
        SGDHeadClassifier(epochs=3),
    )


def test_a_pipeline_classifies_images(pipe, photos_and_labels):
    """Fitted, scored, cloned."""
    paths, labels = photos_and_labels
    pipe.fit(paths, labels)
    assert pipe.score(paths, labels) > 0.9
    assert pipe.predict_proba(paths[:3]).shape == (3, 2)
    assert pipe.decision_function(paths[:3]).shape == (3,)
    pictures = [Image.open(path) for path in paths[:3]]
    assert pipe.predict(pictures).tolist() == pipe.predict(paths[:3]).tolist()
    with pytest.raises(NotFittedError):
        clone(pipe)[-1].predict(np.zeros((1, 512)))


@pytest.mark.slow
def test_cross_validation_computes_each_image_once(
    pipe, photos_and_labels, monkeypatch
):
    """Five folds, and a search over settings of the head and of the backbone."""
    paths, labels = photos_and_labels
    seen = []
    real = embedding.decode_view
    monkeypatch.setattr(embedding, "decode_view", lambda *a: seen.append(a) or real(*a))
    scores = cross_val_score(pipe, np.array(paths), labels, cv=5)
    assert scores.mean() > 0.9
    assert len(seen) == 20
    grid = {
        "imagefeatures__weights": ["random:0", "random:1"],
        "sgdheadclassifier__lr": np.logspace(-4, -3, 2),
        "sgdheadclassifier__epochs": np.arange(2, 4),
    }
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise")
    search.fit(paths, labels)
    assert search.best_score_ > 0.9
    assert len(seen) == 40


@pytest.mark.slow
def test_a_search_on_several_processes_shares_the_cache(photos_and_labels, tmp_path):
    """With the real network: every image is computed, and found by all afterwards."""
    paths, labels = photos_and_labels
    pipe = make_pipeline(
        ImageFeatures(weights="random:0", cache=tmp_path),
        SGDHeadClassifier(epochs=2),
    )
    grid = {"sgdheadclassifier__lr": [1e-4, 1e-3]}
    GridSearchCV(pipe, grid, cv=2, n_jobs=2, error_score="raise").fit(paths, labels)
    features = ImageFeatures(weights="random:0", cache=tmp_path)
    expected = ImageFeatures(weights="random:0").transform(paths)
    np.testing.assert_allclose(
        features.transform(paths), expected, rtol=1e-4, atol=1e-5
    )


def readme(word):
    """Return README's Python with this word in it."""
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (found,) = [block for block in blocks if word in block]
    return found


def test_the_readme_is_right(
    quick, photos_and_labels, shared_photos, tmp_path, monkeypatch
):
    """Both examples, on other photographs and without a download."""
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    paths, labels = photos_and_labels
    file = "cache/hymenoptera_data-resnet18.h5"
    featcache.extract(shared_photos, weights="random:0", cache=file)
    names = {"paths": paths, "labels": labels}
    source = readme("SGDHeadClassifier").replace(
        'cache="cache"', 'cache="cache", weights="random:0"'
    )
    exec(source, names)
    assert names["model"][1].get_params()["lr"] == 0.001
    exec(readme("to_pandas"), names)
    assert names["X"].shape == (12, 512)
    assert np.shares_memory(names["X"], names["cache"].columns["features"])
    assert next(iter(names["loader"]))[0].shape == (12, 512)
    assert names["frame"].shape == (8, 516)
    assert names["table"].num_rows == 20


def test_features_have_names_and_frames(quick, photos_and_labels):
    """resnet18_0 and so on; a frame keeps the index of a column of paths."""
    pd = pytest.importorskip("pandas")
    paths, _ = photos_and_labels
    features = clone(RANDOM).set_output(transform="pandas")
    series = pd.Series(paths, index=[f"row {i}" for i in range(20)], name="path")
    frame = features.fit_transform(series.to_frame())
    assert frame.columns[[0, -1]].tolist() == ["resnet18_0", "resnet18_511"]
    assert frame.index[3] == "row 3"
    assert set(frame.dtypes) == {np.dtype(np.float32)}
    assert features.transform(paths).index[3] == 3
    assert np.array_equal(features.transform(series), frame)
    table = series.to_frame().assign(weight=1.0)
    columns = make_column_transformer((RANDOM, ["path"]), remainder="passthrough")
    assert columns.fit_transform(table).shape == (20, 513)


@pytest.mark.parametrize(
    ("X", "said"),
    [
        ("photo.jpg", "is one image"),
        (Image.new("RGB", (4, 4)), "is one image"),
        ([], "no image"),
        (np.zeros((8, 8, 3), np.uint8), "no list of images"),
        (np.zeros((4, 64)), "no list of images"),
        (np.array([["a.jpg", "b.jpg"]]), "no list of images"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), "no list of images"),
        (3, "no list of images"),
    ],
)
def test_what_is_no_list_of_images_is_refused(X, said):
    """By fit and transform alike, before anything is read."""
    for method in (RANDOM.fit, RANDOM.transform):
        with pytest.raises(DataError, match=said):
            method(X)


def test_images_in_one_array_are_images(quick):
    """In colour, grey, and as objects."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3), np.uint8)
    found = RANDOM.transform(pixels)
    assert found.shape == (3, 512)
    objects = np.empty(3, object)
    objects[:] = list(map(Image.fromarray, pixels))
    assert np.array_equal(RANDOM.transform(objects), found)
    grey = np.repeat(pixels[..., :1], 3, axis=3)
    assert np.array_equal(RANDOM.transform(pixels[..., 0]), RANDOM.transform(grey))


def test_fit_checks_the_backbone():
    """And learns nothing."""
    with pytest.raises(SpecError, match="resnet19"):
        ImageFeatures("resnet19").fit(["a.jpg"])
    assert vars(ImageFeatures().fit(["missing.jpg"])) == vars(ImageFeatures())
