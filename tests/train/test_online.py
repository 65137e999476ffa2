"""SGD call by call: torch's optimizer, and what `fit_sgd` comes to."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.errors import SpecError, TrainingError
from featcache.core.features import Features
from featcache.core.heads import initial_head
from featcache.core.seeds import epoch_order
from featcache.core.specs import SgdSpec
from featcache.train.online import OnlineSgd
from featcache.train.sgd import fit_sgd


def samples(n, dim, classes, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, dim)).astype(np.float32)
    return X, random.integers(0, classes, n).astype(np.int32)


def torch_head(X, y, spec, classes):
    """Train as anyone would with torch; return weight and bias."""
    begin = initial_head(classes, X.shape[1], seed=spec.seed)
    linear = torch.nn.Linear(X.shape[1], classes)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(begin.weight))
        linear.bias.copy_(torch.from_numpy(begin.bias))
    sgd = torch.optim.SGD(
        linear.parameters(),
        spec.lr,
        spec.momentum,
        weight_decay=spec.weight_decay,
        nesterov=spec.nesterov,
    )
    schedule = torch.optim.lr_scheduler.StepLR(sgd, spec.step_size, spec.gamma)
    inputs = torch.from_numpy(X)
    if spec.standardize == "l2":
        inputs = torch.nn.functional.normalize(inputs)
    for epoch in range(spec.epochs):
        order = torch.from_numpy(epoch_order(len(y), seed=spec.seed, epoch=epoch))
        for batch in order.split(spec.batch_size):
            sgd.zero_grad()
            target = torch.from_numpy(y).long()[batch]
            torch.nn.functional.cross_entropy(linear(inputs[batch]), target).backward()
            sgd.step()
        schedule.step()
    return linear.weight.detach().numpy(), linear.bias.detach().numpy()


@pytest.mark.slow
@given(
    n=st.integers(1, 16),
    classes=st.integers(2, 5),
    batch_size=st.integers(2, 9),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.01]),
    nesterov=st.booleans(),
    standardize=st.sampled_from(["none", "l2"]),
    step_size=st.integers(1, 3),
)
def test_epochs_are_those_of_torch(n, classes, **settings):
    """Momentum, penalty and drops of the rate from call to call."""
    settings["nesterov"] = settings["nesterov"] and settings["momentum"] > 0
    spec = SgdSpec(lr=0.05, epochs=3, **settings)
    X, y = samples(n, 6, classes, seed=n)
    sgd = OnlineSgd(initial_head(classes, 6, seed=spec.seed), seed=spec.seed)
    for _ in range(spec.epochs):
        sgd.run_epoch(X, y, spec)
    weight, bias = torch_head(X, y, spec, classes)
    np.testing.assert_allclose(sgd.head.weight, weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sgd.head.bias, bias, rtol=1e-5, atol=1e-6)
    assert sgd.head.normalize == (spec.standardize == "l2")


def test_as_many_epochs_as_fit_runs_give_what_it_gives():
    """The same order and the same rates."""
    X, y = samples(50, 8, 3)
    spec = SgdSpec(lr=0.01, epochs=9, weight_decay=0.01)
    sgd = OnlineSgd(initial_head(3, 8, seed=0), seed=0)
    for _ in range(spec.epochs):
        sgd.run_epoch(X, y, spec)
    whole = fit_sgd(Features(X, y, np.arange(50)), None, classes=3, spec=spec).head
    np.testing.assert_allclose(sgd.head.weight, whole.weight, rtol=1e-5, atol=1e-6)


def test_divergence_is_told_and_the_head_stays():
    """Nothing that is not finite is written into it."""
    X, y = samples(20, 4, 2)
    begin = initial_head(2, 4, seed=0)
    sgd = OnlineSgd(begin, seed=0)
    with pytest.raises(TrainingError, match=r"stopped being finite with lr 1e\+38"):
        sgd.run_epoch(X * np.float32(1e6), y, SgdSpec(lr=1e38))
    assert sgd.head is begin
    assert sgd.epoch == 0


def test_statistics_of_all_samples_are_refused():
    """They are not there yet."""
    X, y = samples(20, 4, 2)
    sgd = OnlineSgd(initial_head(2, 4, seed=0), seed=0)
    with pytest.raises(SpecError, match="zscore"):
        sgd.run_epoch(X, y, SgdSpec(standardize="zscore"))
