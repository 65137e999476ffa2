"""Fixtures that every part of the suite may use: small images of our own."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

if "PYTEST_XDIST_WORKER" in os.environ:  # each has one core, before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("default", deadline=None, max_examples=30)
settings.register_profile("nightly", deadline=None, max_examples=500)
settings.load_profile("default")

COLOURS = {"ants": (150, 60, 40), "bees": (210, 180, 40)}


def picture(seed: int, colour: tuple[int, int, int], size=(80, 60)) -> Image.Image:
    """Return a noisy picture of mostly one colour."""
    random = np.random.default_rng(seed)
    noise = random.integers(-40, 40, (size[1], size[0], 3))
    return Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8))


def make_photos(root: Path, counts: dict[str, int]) -> Path:
    """Make ROOT/split/class/NN.jpg, every third image a PNG."""
    for split, count in counts.items():
        for number, (name, colour) in enumerate(COLOURS.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                seed = 1000 * number + i + 100 * (split == "val")
                path = folder / f"{i:02d}.{'png' if i % 3 == 2 else 'jpg'}"
                picture(seed, colour).save(path)
    return root


@pytest.fixture(scope="session")
def shared_photos(tmp_path_factory) -> Path:
    """2 classes, 6 training and 4 validation images each; not to be changed."""
    return make_photos(
        tmp_path_factory.mktemp("photos") / "photos", {"train": 6, "val": 4}
    )


@pytest.fixture
def photos(tmp_path) -> Path:
    """2 classes, 6 training and 4 validation images each; the test's own."""
    return make_photos(tmp_path / "photos", {"train": 6, "val": 4})


@pytest.fixture(scope="session", autouse=True)
def drawn_once():
    """Random weights are drawn once in a session; each caller has its own copy."""
    from featcache.vision import backbones

    draw, drawn = backbones.random_state, {}

    def remembered(network, seed):
        shapes = tuple((k, v.shape) for k, v in network.state_dict().items())
        if (shapes, seed) not in drawn:
            drawn[shapes, seed] = draw(network, seed)
        return {name: values.clone() for name, values in drawn[shapes, seed].items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "random_state", remembered)
        yield


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test reaches the network unless it lifts this."""
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
