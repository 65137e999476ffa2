"""Same settings give the same bytes; any other settings the same features to 1e-5."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import featcache
from featcache.core.specs import ExtractSpec
from featcache.core.tolerances import FLOAT32
from featcache.stages.sources import find_weights
from scripts.bench.reproducibility import ALL, CHANGES, USUAL, Matrix, error, views
from tests.conftest import make_photos

VIEWS = 4


@pytest.fixture(scope="module")
def matrix():
    """ResNet-18 with random weights and four small views of noise."""
    source = find_weights("resnet18", "random:0")
    view = replace(source.view, crop=96)
    return Matrix("resnet18", source.load(), view, views(None, VIEWS, view))


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory):
    """Ten small images in train and val."""
    return make_photos(tmp_path_factory.mktemp("few") / "few", {"train": 3, "val": 2})


@pytest.fixture(scope="module")
def extracted(few_photos, tmp_path_factory):
    """Extract with some workers and batch size into a new cache; its features."""
    names = itertools.count()

    def extract(workers, batch_size):
        folder = tmp_path_factory.mktemp("caches")
        with featcache.extract(
            few_photos,
            ExtractSpec(device="cpu", workers=workers, batch_size=batch_size),
            weights="random:0",
            cache=folder / f"{next(names)}.h5",
        ) as cache:
            return np.array(cache.columns["features"])

    return extract


def test_the_same_settings_give_the_same_bytes(matrix):
    """Even by a network that is built again."""
    again = matrix.compute(USUAL, matrix.build("fused", USUAL.pack))
    assert again.tobytes() == matrix.features(USUAL).tobytes()


@pytest.mark.parametrize(
    "settings",
    [
        *(pytest.param([setting], id=name) for name, setting in CHANGES.items()),
        pytest.param(ALL, id="all combinations", marks=pytest.mark.slow),
    ],
)
def test_every_setting_gives_the_same_features(matrix, settings):
    """Batch sizes, torch threads, workers, with and without fusing: relative 1e-5."""
    expected = matrix.torchvision()
    assert expected.shape == (VIEWS, 512)
    for setting in settings:
        assert error(matrix.features(setting), expected) <= FLOAT32, setting


def test_the_matrix_has_two_implementations(matrix):
    """Otherwise it would compare the fused network with itself, or never see it."""
    fused, plain = (matrix.network(name, 8).description for name in ("fused", "plain"))
    assert fused == "fused oneDNN operations"
    assert plain.startswith("plain torch, channels_last")


@pytest.fixture(scope="module")
def usual(extracted):
    """Features of one worker and batches of eight."""
    return extracted(1, 8)


@pytest.mark.parametrize(
    ("workers", "batch_size"),
    [
        pytest.param(1, 3, marks=pytest.mark.slow),
        pytest.param(1, 1, marks=pytest.mark.slow),
        pytest.param(2, 1, marks=pytest.mark.slow),
        (2, 3),
        pytest.param(2, 8, marks=pytest.mark.slow),
    ],
)
def test_workers_and_batches_do_not_change_a_cache(
    extracted, usual, workers, batch_size
):
    """Whoever computes a row, and with how many others: relative 1e-5."""
    assert error(extracted(workers, batch_size), usual) <= FLOAT32


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_extractions_give_the_same_bytes(extracted, usual, workers):
    """Into two caches, each from the weights on."""
    expected = usual if workers == 1 else extracted(workers, 8)
    assert extracted(workers, 8).tobytes() == expected.tobytes()
