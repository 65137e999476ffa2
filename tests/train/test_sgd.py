"""SGD in numpy, compiled, in tensors: step for step what torch computes."""

from dataclasses import replace
from unittest.mock import patch

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
from featcache.core.resources import Resources
from featcache.core.seeds import epoch_order
from featcache.core.specs import SgdSpec
from featcache.train import engines, sgd
from featcache.train.heads import Heads
from featcache.train.judging import selection_key
from featcache.train.sgd import Diverged, fit_sgd, fit_sgd_many
from featcache.train.standardize import Scaling
from featcache.train.steps import NumpyEpochs

ENGINES = pytest.mark.parametrize("name", ["numpy", "numba", "mixed", "torch"])


def engine(name: str):
    """Have training run in numpy, in loops that numba compiles, or by torch.

    Mixed are the products in numpy and the rest in such loops.
    """

    def made(heads, train, scaling, spec, resources):
        from featcache.train.kernels import CompiledEpochs, MixedEpochs
        from featcache.train.tensors import TorchEpochs

        b = min(spec.batch_size, len(train))
        if name == "torch":
            return TorchEpochs(heads, scaling, b, "cpu")
        made = {"numpy": NumpyEpochs, "numba": CompiledEpochs, "mixed": MixedEpochs}
        return made[name](heads, scaling, b)

    return patch.object(sgd, "engine", made)


def blobs(n: int, dim: int, classes: int, seed: int = 0) -> Features:
    """Features of n samples around one centre per class."""
    random = np.random.default_rng(seed)
    y = (np.arange(n) % classes).astype(np.int32)
    centres = random.standard_normal((classes, dim))
    X = (centres[y] + random.standard_normal((n, dim))).astype(np.float32)
    return Features(X, y, np.arange(n))


def torch_reference(
    train: Features, classes: int, spec: SgdSpec, dtype: torch.dtype = torch.float32
) -> LinearHead:
    """The tutorial's loop with torch's own parts, on the same batches."""
    start = initial_head(classes, train.X.shape[1], seed=spec.seed)
    linear = nn.Linear(train.X.shape[1], classes, dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(start.weight))
        linear.bias.copy_(torch.from_numpy(start.bias))
    optimizer = torch.optim.SGD(
        linear.parameters(),
        lr=spec.lr,
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
        nesterov=spec.nesterov,
    )
    scheduler = torch.optim.lr_scheduler.StepLR(
        optimizer, step_size=spec.step_size, gamma=spec.gamma
    )
    X, y = torch.from_numpy(train.X).to(dtype), torch.from_numpy(train.y).long()
    for epoch in range(spec.epochs):
        order = epoch_order(len(y), seed=spec.seed, epoch=epoch)
        for batch in torch.from_numpy(order).split(spec.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(linear(X[batch]), y[batch])
            loss.backward()
            optimizer.step()
        scheduler.step()
    return LinearHead(linear.weight.detach().numpy(), linear.bias.detach().numpy())


def differ(found: LinearHead, expected: LinearHead) -> float:
    """The largest difference of two heads, relative to the largest weight."""
    pairs = [(found.weight, expected.weight), (found.bias, expected.bias)]
    scale = max(np.abs(right).max() for _, right in pairs)
    return max(np.abs(left - right).max() for left, right in pairs) / scale


NUMBERS = {
    "batch_size": st.integers(1, 12),
    "momentum": st.sampled_from([0.0, 0.5, 0.9]),
    "nesterov": st.booleans(),
    "weight_decay": st.sampled_from([0.0, 1e-4, 0.1]),
    "step_size": st.integers(1, 4),
    "gamma": st.sampled_from([0.1, 0.5, 1.0]),
    "lr": st.sampled_from([0.001, 0.05]),
    "seed": st.integers(0, 5),
}
SPECS = st.fixed_dictionaries(NUMBERS).map(
    # as torch: nesterov goes with a momentum only
    lambda n: SgdSpec(
        epochs=5, **{**n, "nesterov": n["nesterov"] and n["momentum"] > 0}
    )
)


@ENGINES
@settings(max_examples=40)
@given(
    n=st.integers(2, 40), dim=st.integers(1, 30), classes=st.integers(2, 5), spec=SPECS
)
def test_weights_equal_torchs(name, n, dim, classes, spec):
    """Any shape, batch size (ragged last batch too) and schedule: 1e-5 relative."""
    train = blobs(n, dim, classes, seed=spec.seed)
    with engine(name):
        found = fit_sgd(train, None, classes=classes, spec=spec).head
    assert differ(found, torch_reference(train, classes, spec)) <= 1e-5


@ENGINES
def test_no_further_from_float64_than_torch_is(name):
    """A long training ends as near to exact arithmetic as torch's own does."""
    train = blobs(83, 64, 3)
    spec = SgdSpec(lr=0.01, nesterov=True, weight_decay=1e-3, epochs=8)
    exact = torch_reference(train, 3, spec, torch.float64)
    with engine(name):
        found = fit_sgd(train, None, classes=3, spec=spec).head
    assert differ(found, exact) <= max(
        1e-6, 2 * differ(torch_reference(train, 3, spec), exact)
    )


HEADS = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([1e-3, 0.01, 0.05]),
        "weight_decay": st.sampled_from([0.0, 1e-3]),
        "momentum": st.sampled_from([0.5, 0.9]),
        "nesterov": st.booleans(),
        "step_size": st.integers(1, 3),
        "gamma": st.sampled_from([0.1, 0.5]),
        "standardize": st.sampled_from(["none", "zscore", "l2"]),
    }
)


@ENGINES
@settings(max_examples=25)
@given(
    heads=st.lists(HEADS, min_size=1, max_size=6),
    n=st.integers(3, 40),
    classes=st.integers(2, 4),
    batch_size=st.integers(1, 9),
)
def test_many_heads_are_each_what_they_are_alone(name, heads, n, classes, batch_size):
    """Whatever trains beside it, a head's weights, epoch and numbers are its own."""
    train, val = blobs(n, 8, classes, seed=1), blobs(30, 8, classes, seed=2)
    specs = [SgdSpec(epochs=4, batch_size=batch_size, **h) for h in heads]
    with engine(name):
        together = fit_sgd_many(train, val, classes=classes, specs=specs)
        alone = [fit_sgd(train, val, classes=classes, spec=s) for s in specs]
    for one, other in zip(together, alone, strict=True):
        assert (
            differ(one.head, other.head) <= 1e-6 or one.best_epoch != other.best_epoch
        )
        for a, b in zip(one.history, other.history, strict=True):
            assert a.train_loss == pytest.approx(b.train_loss, rel=1e-5)
            assert a.val_loss == pytest.approx(b.val_loss, rel=1e-5)


@pytest.mark.parametrize("other", ["numba", "mixed", "torch"])
def test_the_engines_do_what_numpy_does(other):
    """All go the same way, in losses and hits too."""
    train, val = blobs(50, 20, 3, seed=1), blobs(30, 20, 3, seed=2)
    fitted = []
    for name in ("numpy", other):
        with engine(name):
            fitted.append(
                fit_sgd(train, val, classes=3, spec=SgdSpec(epochs=3, lr=0.01))
            )
    for a, b in zip(*(f.history for f in fitted), strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-6)
        assert (a.train_accuracy, a.val_accuracy) == (b.train_accuracy, b.val_accuracy)


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


@ENGINES
def test_a_loss_that_diverges_says_when_and_what_to_do(name):
    """A learning rate that is too large is named with the epoch."""
    train = blobs(30, 6, 2)
    big = Features(train.X * np.float32(1e18), train.y, train.sample_index)
    with (
        engine(name),
        pytest.raises(TrainingError, match=r"finite in epoch \d+ with lr .*smaller"),
    ):
        fit_sgd(big, None, classes=2, spec=SgdSpec(lr=1e10))


@ENGINES
@pytest.mark.parametrize("lr", [1e-45, 1e300])
def test_absurd_learning_rates_end_in_words(name, lr):
    """Numbers that float32 cannot hold train nothing, or are an error of ours."""
    spec, train = SgdSpec(lr=lr, epochs=2), blobs(30, 6, 2)
    with engine(name):
        if lr > 1:
            with pytest.raises(TrainingError, match="stopped being finite in epoch 1"):
                fit_sgd(train, None, classes=2, spec=spec)
            return
        head = fit_sgd(train, None, classes=2, spec=spec).head
    assert differ(head, initial_head(2, 6, seed=0)) <= 1e-6


@ENGINES
def test_the_others_go_on_where_heads_diverge(name):
    """A head that diverges is told with its settings; its neighbours do not notice."""
    train, val = blobs(30, 6, 3, seed=1), blobs(30, 6, 3, seed=2)
    good = [SgdSpec(epochs=3, lr=0.01), SgdSpec(epochs=3, lr=0.001, weight_decay=0.1)]
    # lr * weight_decay far above 2: the weights change sign and grow with every step
    bad = replace(good[0], lr=1e30, weight_decay=10.0)
    with engine(name):
        first, lost, last = fit_sgd_many(
            train, val, classes=3, specs=[good[0], bad, good[1]]
        )
        alone = fit_sgd_many(train, val, classes=3, specs=good)
    assert isinstance(lost, Diverged)
    assert (lost.spec, lost.epoch) == (bad, 1)
    assert "epoch 1 with lr 1e+30" in str(lost)
    for one, other in zip((first, last), alone, strict=True):
        assert differ(one.head, other.head) <= 1e-6


def test_all_heads_diverging_is_an_error():
    """There is nothing to go on with."""
    specs = [SgdSpec(lr=lr, weight_decay=10.0) for lr in (1e30, 1e31)]
    with pytest.raises(
        TrainingError, match=r"all 2 heads diverged; .* try a smaller --lr"
    ):
        fit_sgd_many(blobs(30, 6, 2), None, classes=2, specs=specs)


def test_heads_trained_together_share_the_order():
    """Another seed or batch size is another pass."""
    with pytest.raises(ValueError, match="share epochs, batch_size and seed"):
        fit_sgd_many(
            blobs(9, 6, 2), None, classes=2, specs=[SgdSpec(), SgdSpec(seed=1)]
        )


@pytest.mark.parametrize(
    ("classes", "n", "epochs", "kind", "expected"),
    [
        pytest.param(2, 244, 25, "none", "NumpyEpochs", id="a head of ants and bees"),
        pytest.param(2, 244, 2500, "none", "CompiledEpochs", id="a hundred times that"),
        pytest.param(2, 100_000, 25, "none", "CompiledEpochs", id="many, as they are"),
        pytest.param(2, 100_000, 25, "l2", "MixedEpochs", id="more than is copied"),
        pytest.param(100, 50_000, 25, "none", "MixedEpochs", id="wide"),
    ],
)
def test_numba_is_loaded_only_where_it_pays(
    monkeypatch, classes, n, epochs, kind, expected
):
    """A small head is done before numba would be there."""
    pytest.importorskip("numba")
    monkeypatch.delitem(engines.sys.modules, "featcache.train.kernels", raising=False)
    spec = SgdSpec(epochs=epochs)
    heads = Heads(initial_head(classes, 2048, seed=0), [spec])
    X = np.broadcast_to(np.float32(0), (n, 2048))
    train = Features(X, np.zeros(n, np.int32), np.arange(n))
    chosen = engines.engine(heads, train, Scaling(kind), spec, Resources())
    assert type(chosen).__name__ == expected


@pytest.mark.gpu
@pytest.mark.parametrize("standardize", ["none", "zscore", "l2"])
def test_a_gpu_does_what_numpy_does(standardize):
    """The same weights to 1e-5, whole and in windows; TF32 is off."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    train, val = blobs(3000, 64, 5, seed=1), blobs(300, 64, 5, seed=2)
    specs = [
        SgdSpec(epochs=3, batch_size=32, standardize=standardize, **how)
        for how in ({"lr": 0.01}, {"lr": 1e-3, "nesterov": True, "weight_decay": 1e-3})
    ]
    for memory in (None, train.nbytes // 4):
        heads = [
            fit_sgd_many(
                train,
                val,
                classes=5,
                specs=specs,
                resources=Resources(memory, device),
            )
            for device in ("cpu", "cuda")
        ]
        for one, other in zip(*heads, strict=True):
            assert differ(one.head, other.head) <= 1e-5


def test_a_device_is_torchs_business():
    """Any but the CPU; and what was set of TF32 is set again."""
    train, spec = blobs(50, 8, 3), SgdSpec(epochs=2)
    before = torch.get_float32_matmul_precision()
    found = fit_sgd(
        train, None, classes=3, spec=spec, resources=Resources(device="cpu:0")
    )
    expected = fit_sgd(train, None, classes=3, spec=spec)
    assert differ(found.head, expected.head) <= 1e-6
    assert torch.get_float32_matmul_precision() == before


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
