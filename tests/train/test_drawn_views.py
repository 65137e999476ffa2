"""Training on several views: step for step a torch loop that sees the same ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from featcache.core.features import Features
from featcache.core.heads import LinearHead, initial_head
from featcache.core.resources import Resources
from featcache.core.seeds import epoch_order
from featcache.core.specs import SgdSpec, SweepSpec
from featcache.core.viewed import ViewedFeatures, epoch_views
from featcache.store.rows import FileRows
from featcache.train.sgd import fit_sgd
from featcache.train.sweep import choose, split_train
from tests.train.test_sgd import ENGINES, differ, engine

N, VIEWS, DIM, CLASSES = 30, 4, 12, 3
SPEC = SgdSpec(epochs=6, batch_size=4, lr=0.01, step_size=2, seed=3)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Views (N, V, D) in a file, their labels, and the source that reads them."""
    random = np.random.default_rng(0)
    y = (np.arange(N) % CLASSES).astype(np.int32)
    centres = random.standard_normal((CLASSES, 1, DIM))
    X = (centres[y] + random.standard_normal((N, VIEWS, DIM))).astype(np.float32)
    path: Path = tmp_path_factory.mktemp("views") / "rows"
    path.write_bytes(X.tobytes())
    with path.open("rb") as file:
        yield X, y, FileRows(path, file.fileno(), 0, X)


@pytest.fixture
def viewed(everything):
    """Give the samples with so many views of each."""
    _, y, source = everything

    def made(counts: int | np.ndarray = VIEWS) -> ViewedFeatures:
        return ViewedFeatures(source, y, np.arange(N), np.broadcast_to(counts, N))

    return made


def torch_loop(X, y, counts, spec: SgdSpec) -> LinearHead:
    """The tutorial's loop, with one view of each sample in each epoch."""
    start = initial_head(CLASSES, DIM, seed=spec.seed)
    linear = nn.Linear(DIM, CLASSES)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(start.weight))
        linear.bias.copy_(torch.from_numpy(start.bias))
    how = {"lr": spec.lr, "momentum": spec.momentum}
    optimizer = torch.optim.SGD(linear.parameters(), **how)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, spec.step_size, spec.gamma)
    labels = torch.from_numpy(y).long()
    for epoch in range(spec.epochs):
        order = epoch_order(N, seed=spec.seed, epoch=epoch)
        view = epoch_views(counts, seed=spec.seed, epoch=epoch)
        for i in range(0, N, spec.batch_size):
            batch = order[i : i + spec.batch_size]
            x = torch.from_numpy(X[batch, view[batch]])
            optimizer.zero_grad()
            nn.functional.cross_entropy(linear(x), labels[batch]).backward()
            optimizer.step()
        scheduler.step()
    return LinearHead(linear.weight.detach().numpy(), linear.bias.detach().numpy())


@ENGINES
@pytest.mark.parametrize("counts", [VIEWS, 2, np.arange(N) % VIEWS + 1], ids=str)
def test_training_equals_a_torch_loop_on_the_same_views(
    everything, viewed, name, counts
):
    """In every engine; also where some samples have fewer views."""
    X, y, _ = everything
    counts = np.broadcast_to(counts, N)
    expected = torch_loop(X, y, counts, SPEC)
    with engine(name):
        found = fit_sgd(viewed(counts), None, classes=CLASSES, spec=SPEC).head
    assert differ(found, expected) < 1e-5
    other = torch_loop(X, y, np.ones(N, int), SPEC)
    assert differ(found, other) > 1e-2


def test_one_view_is_training_on_the_first(everything, viewed):
    """Bit for bit what plain features give."""
    X, y, _ = everything
    plain = Features(np.ascontiguousarray(X[:, 0]), y, np.arange(N))
    expected = fit_sgd(plain, None, classes=CLASSES, spec=SPEC).head
    found = fit_sgd(viewed(1), None, classes=CLASSES, spec=SPEC).head
    assert np.array_equal(expected.weight, found.weight)
    assert np.array_equal(X[:, 0], viewed().X)


def test_views_larger_than_memory_are_read_in_windows(everything, viewed):
    """Each epoch visits its own view of each sample, once."""
    seen = []

    class Noted(ViewedFeatures):
        def of_epoch(self, seed, epoch):
            features = super().of_epoch(seed, epoch)
            seen.append((epoch, features.sample_index))
            return features

    _, y, source = everything
    features = Noted(source, y, np.arange(N), np.full(N, VIEWS))
    resources = Resources(memory=DIM * 4 * N // 2)
    small = SgdSpec(epochs=3, batch_size=2, lr=0.01)
    windowed = fit_sgd(features, None, classes=CLASSES, spec=small, resources=resources)
    assert {epoch for epoch, _ in seen} == {0, 1, 2}
    for epoch, flat in seen:
        view = epoch_views(np.full(N, VIEWS), seed=0, epoch=epoch)
        assert np.array_equal(flat, np.arange(N) * VIEWS + view)
    assert np.isfinite(windowed.head.weight).all()


def test_held_out_samples_are_judged_by_their_first_view(everything, viewed):
    """The rest keeps its views; a sweep trains on them."""
    X, _, _ = everything
    rest, held = split_train(viewed(), share=0.2, seed=0)
    assert np.array_equal(X[held.sample_index, 0], held.X)
    drawn = rest.of_epoch(0, 0).X
    assert drawn.shape == rest.X.shape
    assert not np.array_equal(drawn, rest.X)
    how = {"classes": CLASSES, "spec": SweepSpec(epochs=2), "resources": Resources()}
    several = choose(rest, held, **how)
    plain = Features(rest.X, rest.y, rest.sample_index)
    first = choose(plain, held, **how)
    assert differ(several.fitted.head, first.fitted.head) > 1e-4
