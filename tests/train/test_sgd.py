"""SGD in numpy: step for step what torch computes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.heads import LinearHead, initial_head
from featcache.core.reports import EpochRecord
from featcache.core.seeds import epoch_order
from featcache.core.specs import SgdSpec
from featcache.train.sgd import fit_sgd, selection_key


def blobs(n: int, dim: int, classes: int, seed: int = 0) -> Features:
    """Features of n samples around one centre per class."""
    random = np.random.default_rng(seed)
    y = (np.arange(n) % classes).astype(np.int32)
    centres = random.standard_normal((classes, dim))
    X = (centres[y] + random.standard_normal((n, dim))).astype(np.float32)
    return Features(X, y, np.arange(n))


def torch_reference(train: Features, classes: int, spec: SgdSpec) -> LinearHead:
    """The tutorial's loop with torch's own parts, on the same batches."""
    start = initial_head(classes, train.X.shape[1], seed=spec.seed)
    linear = nn.Linear(train.X.shape[1], classes)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(start.weight))
        linear.bias.copy_(torch.from_numpy(start.bias))
    optimizer = torch.optim.SGD(
        linear.parameters(),
        lr=spec.lr,
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.StepLR(
        optimizer, step_size=spec.step_size, gamma=spec.gamma
    )
    X, y = torch.from_numpy(train.X), torch.from_numpy(train.y).long()
    for epoch in range(spec.epochs):
        order = epoch_order(len(y), seed=spec.seed, epoch=epoch)
        for batch in torch.from_numpy(order).split(spec.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(linear(X[batch]), y[batch])
            loss.backward()
            optimizer.step()
        scheduler.step()
    return LinearHead(linear.weight.detach().numpy(), linear.bias.detach().numpy())


@settings(max_examples=40)
@given(
    n=st.integers(2, 40),
    dim=st.integers(1, 30),
    classes=st.integers(2, 5),
    batch_size=st.integers(1, 12),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    weight_decay=st.sampled_from([0.0, 1e-4, 0.1]),
    step_size=st.integers(1, 4),
    gamma=st.sampled_from([0.1, 0.5, 1.0]),
    lr=st.sampled_from([0.001, 0.05]),
    seed=st.integers(0, 5),
)
def test_weights_equal_torchs(n, dim, classes, **numbers):
    """Any shape, batch size (ragged last batch too) and schedule: 1e-5 relative."""
    spec = SgdSpec(epochs=5, **numbers)
    train = blobs(n, dim, classes, seed=spec.seed)
    expected = torch_reference(train, classes, spec)
    found = fit_sgd(train, None, classes=classes, spec=spec).head
    scale = max(np.abs(expected.weight).max(), np.abs(expected.bias).max())
    assert np.abs(found.weight - expected.weight).max() <= 1e-5 * scale
    assert np.abs(found.bias - expected.bias).max() <= 1e-5 * scale


def test_the_best_epoch_on_val_is_kept():
    """The head is the one after the epoch of highest val accuracy."""
    train, val = blobs(60, 8, 3, seed=1), blobs(300, 8, 3, seed=2)
    spec = SgdSpec(epochs=12, lr=0.05)
    fitted = fit_sgd(train, val, classes=3, spec=spec)
    best = max(fitted.history, key=selection_key)
    assert fitted.best_epoch == best.epoch
    shorter = SgdSpec(epochs=fitted.best_epoch, lr=0.05)
    again = fit_sgd(train, None, classes=3, spec=shorter).head
    assert np.array_equal(fitted.head.weight, again.weight)


def test_equal_seeds_give_equal_bits_and_others_do_not():
    """The seed is all the randomness there is."""
    train = blobs(30, 6, 2)
    heads = [
        fit_sgd(train, None, classes=2, spec=SgdSpec(epochs=2, seed=s)).head.weight
        for s in (1, 1, 2)
    ]
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])


def test_half_precision_features_train_as_their_float32_values():
    """float16 in the cache costs its rounding and nothing more."""
    train = blobs(30, 6, 2)
    half = Features(train.X.astype(np.float16), train.y, train.sample_index)
    full = Features(half.X.astype(np.float32), train.y, train.sample_index)
    spec = SgdSpec(epochs=2)
    found = fit_sgd(half, None, classes=2, spec=spec).head.weight
    assert np.array_equal(found, fit_sgd(full, None, classes=2, spec=spec).head.weight)


def test_a_loss_that_diverges_says_when_and_what_to_do():
    """A learning rate that is too large is named with the epoch."""
    train = blobs(30, 6, 2)
    big = Features(train.X * np.float32(1e18), train.y, train.sample_index)
    with pytest.raises(TrainingError, match=r"finite in epoch \d+ with lr .*smaller"):
        fit_sgd(big, None, classes=2, spec=SgdSpec(lr=1e10))


def record(epoch: int, accuracy: float | None, loss: float | None) -> EpochRecord:
    return EpochRecord(epoch, 0.1, 0.5, 0.5, loss, accuracy, 0.0)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param(record(1, 0.9, 0.5), record(2, 0.8, 0.1), id="accuracy first"),
        pytest.param(record(1, 0.9, 0.1), record(2, 0.9, 0.5), id="then loss"),
        pytest.param(record(2, None, None), record(1, None, None), id="no val: last"),
    ],
)
def test_what_makes_an_epoch_the_best(better, worse):
    """Accuracy, then loss; without validation the last epoch."""
    assert selection_key(better) > selection_key(worse)
