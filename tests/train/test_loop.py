"""The online loop: the tutorial's numbers, frozen means frozen, the best epoch."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from featcache.core.errors import TrainingError
from featcache.core.heads import initial_head
from featcache.core.reports import EpochRecord
from featcache.core.seeds import epoch_order, generator
from featcache.core.specs import FinetuneSpec
from featcache.train.classifier import Classifier, measure
from featcache.train.loop import Best, fit_epochs, repeatable, sgd

N, C, D = 14, 3, 6
SPEC = FinetuneSpec(epochs=2, lr=0.05, step_size=1, gamma=0.5, weight_decay=0.01)


def pixels_and_labels(purpose, n):
    """Return images (n, 12, 12, 3) whose colour tells their class."""
    random = generator(0, purpose)
    labels = np.arange(n, dtype=np.int64) % C
    images = random.integers(0, 120, (n, 12, 12, 3), np.uint8)
    images[np.arange(n), :, :, labels] += 100
    return images, labels


IMAGES, LABELS = pixels_and_labels("train", N)
VAL_IMAGES, VAL_LABELS = pixels_and_labels("val", 9)
VAL = [(VAL_IMAGES[:5], VAL_LABELS[:5]), (VAL_IMAGES[5:], VAL_LABELS[5:])]


def train(epoch):
    """Give the batches of an epoch, four images and a rest of two."""
    order = epoch_order(N, seed=0, epoch=epoch)
    for start in range(0, N, 4):
        rows = order[start : start + 4]
        yield IMAGES[rows], LABELS[rows]


def prepare(images):
    """Return float images in channels_last."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).sub(0.5)


def body():
    """Return a small network with BatchNorm, D features, the same at each call."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, D, 3, stride=2),
        nn.BatchNorm2d(D),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    random = generator(0, "test body")
    with torch.no_grad():
        for parameter in network.parameters():
            drawn = random.normal(0.3, 0.4, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(drawn))
    return network


def classifier(full):
    """Return a model before training."""
    return Classifier(body(), initial_head(C, D, seed=0), full=full)


def fit(model, spec=SPEC, val=VAL, batches=train):
    """Train to the end; return the records."""
    return list(fit_epochs(model, batches, val, spec, prepare))


def tutorial(full, spec):
    """Return the parameters that the tutorial's loop gives, plainly written."""
    network = body()
    start = initial_head(C, D, seed=0)
    fc = nn.Linear(D, C)
    fc.load_state_dict(
        {"weight": torch.tensor(start.weight), "bias": torch.tensor(start.bias)}
    )
    model = nn.Sequential(network, fc)
    if full:
        parameters = [
            {"params": network.parameters(), "lr": spec.lr},
            {"params": fc.parameters(), "lr": spec.lr * spec.head_lr_mult},
        ]
    else:
        parameters = fc.parameters()
    optimizer = torch.optim.SGD(
        parameters, lr=spec.lr, momentum=0.9, weight_decay=spec.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    criterion = nn.CrossEntropyLoss()
    model.train()
    if not full:
        network.eval()
    for epoch in range(spec.epochs):
        for images, labels in train(epoch):
            optimizer.zero_grad()
            loss = criterion(model(prepare(images)), torch.from_numpy(labels))
            loss.backward()
            optimizer.step()
        scheduler.step()
    return list(model.state_dict().values())


@pytest.mark.parametrize("mult", [1.0, 10.0])
@pytest.mark.parametrize("full", [True, False], ids=["full", "head-only"])
def test_weights_equal_the_tutorials(full, mult):
    """After two epochs every tensor is that of torch's SGD + StepLR to 1e-6."""
    spec = replace(SPEC, full=full, head_lr_mult=mult)
    model = classifier(full)
    fit(model, spec)
    for tensor, expected in zip(
        model.state_dict().values(), tutorial(full, spec), strict=True
    ):
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("full", [True, False], ids=["full", "head-only"])
def test_batchnorm_moves_only_when_the_backbone_is_trained(full):
    """A frozen backbone keeps statistics and weights to the bit; a trained one not."""
    model = classifier(full)
    before = copy.deepcopy(model.backbone.state_dict())
    fit(model, replace(SPEC, full=full))
    same = {
        k: torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items()
    }
    assert set(same.values()) == {not full}


def test_frozen_stays_frozen_under_train():
    """Asking a head-only model for training mode moves only the head."""
    model = classifier(full=False).train()
    assert model.head.training
    assert not any(module.training for module in model.backbone.modules())
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not model.backbone(prepare(IMAGES)).requires_grad
    assert model(prepare(IMAGES)).requires_grad


@pytest.mark.parametrize("full", [True, False], ids=["full", "head-only"])
def test_equal_seeds_give_equal_bits(full):
    """Two runs end in the same weights and the same records but for the time."""
    models = [classifier(full), classifier(full)]
    with repeatable():
        a, b = (fit(model, replace(SPEC, full=full)) for model in models)
    assert [replace(r, seconds=0) for r in a] == [replace(r, seconds=0) for r in b]
    x, y = (model.state_dict() for model in models)
    assert all(torch.equal(x[k], y[k]) for k in x)


def test_the_process_random_numbers_are_left_alone():
    """Neither making nor training a model draws from torch's own generator."""
    network, start = body(), initial_head(C, D, seed=0)
    before = torch.random.get_rng_state()
    fit(Classifier(network, start, full=True))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_start_is_the_heads_own_copy():
    """Training leaves the initial head as it was."""
    start = initial_head(C, D, seed=0)
    fit(Classifier(body(), start, full=False), replace(SPEC, full=False))
    np.testing.assert_array_equal(initial_head(C, D, seed=0).weight, start.weight)


def test_records_tell_the_epoch():
    """Losses, accuracies and learning rates are those of a count by hand."""
    model = classifier(full=False)
    first, second = fit(model, replace(SPEC, full=False))
    assert (first.epoch, second.epoch) == (1, 2)
    assert (first.lr, second.lr) == (0.05, 0.025)
    assert first.seconds > 0
    scores = model.eval()(prepare(VAL_IMAGES))
    targets = torch.from_numpy(VAL_LABELS)
    loss = nn.functional.cross_entropy(scores, targets).item()
    assert second.val_loss == pytest.approx(loss, rel=1e-6)
    right = (scores.argmax(1) == targets).double().mean().item()
    assert second.val_accuracy == pytest.approx(right)


def test_train_loss_is_the_mean_over_images_while_the_weights_move():
    """A short last batch counts by its images, as in the tutorial."""
    spec = replace(SPEC, epochs=1, full=False, lr=1e-12)
    [record] = fit(classifier(full=False), spec)
    loss, accuracy = measure(classifier(full=False), [(IMAGES, LABELS)], prepare)
    assert record.train_loss == pytest.approx(loss, rel=1e-5)
    assert record.train_accuracy == pytest.approx(accuracy)


def test_frozen_val_features_are_computed_once():
    """Head-only goes through the val images one time, full after each epoch."""
    for full, expected in ((False, 1), (True, 2)):
        passes = []

        class Counted:
            def __iter__(self, passes=passes):
                passes.append(1)
                return iter(VAL)

        fit(classifier(full), replace(SPEC, full=full), val=Counted())
        assert len(passes) == expected


def test_the_model_learns():
    """Colours are told apart after a few epochs, and the loss has fallen."""
    records = fit(classifier(full=True), replace(SPEC, epochs=12, step_size=12))
    assert records[-1].train_loss < 0.5 * records[0].train_loss
    assert records[-1].val_accuracy > 0.8


def test_a_last_batch_of_one_image_trains():
    """BatchNorm needs more than one value per channel, which one image has."""

    def ones(_):
        yield IMAGES[:1], LABELS[:1]

    assert fit(classifier(full=True), batches=ones)


def test_without_val_the_records_say_none():
    """There is nothing to measure, and the last epoch is kept."""
    model = classifier(full=True)
    best = Best(model.trained)
    for record in fit_epochs(model, train, None, SPEC, prepare):
        best.offer(record)
    assert record.val_loss is None
    assert record.val_accuracy is None
    assert best.record == record


def test_the_learning_rate_that_is_too_large_is_named():
    """A loss that is not finite stops with epoch, step, lr and what to try."""
    with pytest.raises(
        TrainingError, match=r"epoch \d, step \d, with lr 1e\+30; try a"
    ):
        fit(classifier(full=True), replace(SPEC, lr=1e30))


def test_scores_that_are_not_finite_are_refused():
    """Weights that overflow in evaluation mode are no result."""
    model = classifier(full=False)
    with torch.no_grad():
        model.head.weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match="not finite; try a smaller lr"):
        measure(model, VAL, prepare)


@pytest.mark.parametrize(
    ("full", "expected"), [(True, [0.05, 0.5]), (False, [0.05])], ids=["full", "head"]
)
def test_the_head_has_its_own_learning_rate(full, expected):
    """Full training has two groups, whose rates fall together; head-only has one."""
    model = classifier(full)
    optimizer = sgd(model, replace(SPEC, full=full, head_lr_mult=10))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == len(list(model.trained.parameters()))


def record(epoch, accuracy, loss):
    """Return an epoch's record with these val figures."""
    return EpochRecord(epoch, 0.1, 1.0, 0.5, loss, accuracy, 1.0)


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        pytest.param([(0.8, 0.5), (0.9, 0.6), (0.7, 0.1)], 2, id="highest accuracy"),
        pytest.param([(0.9, 0.5), (0.9, 0.4), (0.9, 0.6)], 2, id="then lowest loss"),
        pytest.param([(0.9, 0.5), (0.9, 0.5)], 1, id="then the earlier"),
        pytest.param([(None, None), (None, None)], 2, id="without val the last"),
    ],
)
@pytest.mark.parametrize("full", [True, False], ids=["full", "head-only"])
def test_the_best_epoch_is_kept(full, figures, best):
    """Restoring puts back the weights of the best epoch, statistics included."""
    model = classifier(full)
    keeper = Best(model.trained)
    for epoch, (accuracy, loss) in enumerate(figures, 1):
        with torch.no_grad():
            for tensor in model.trained.state_dict().values():
                tensor.fill_(epoch)
        keeper.offer(record(epoch, accuracy, loss))
    keeper.restore()
    assert keeper.record.epoch == best
    for tensor in model.trained.state_dict().values():
        assert (tensor == best).all()


def test_repeatable_puts_the_setting_back():
    """The flag of cuDNN is set inside and as before outside."""
    before = torch.backends.cudnn.deterministic
    with repeatable():
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.deterministic == before
