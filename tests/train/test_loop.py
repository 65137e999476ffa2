"""The online loop: the tutorial's numbers, frozen means frozen, the best epoch."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from featcache.core.errors import DeviceError, TrainingError
from featcache.core.heads import initial_head
from featcache.core.reports import EpochRecord
from featcache.core.seeds import epoch_order, generator
from featcache.core.specs import FinetuneSpec
from featcache.train.classifier import Classifier
from featcache.train.keeping import Best, resume_training, training_arrays
from featcache.train.loop import Trainer, repeatable
from featcache.train.mixing import Mix
from featcache.train.optimizer import make_optimizer, set_epoch

N, C, D = 14, 3, 6
SPEC = FinetuneSpec(epochs=2, lr=0.05, step_size=1, gamma=0.5, weight_decay=0.01)
FULL, PART, HEAD = (replace(SPEC, unfreeze=u) for u in ("all", "layer4", "head"))
ALL = pytest.mark.parametrize("spec", [FULL, PART, HEAD], ids=lambda s: s.name)


def pixels_and_labels(purpose, n):
    """Return images (n, 12, 12, 3) whose colour tells their class."""
    random = generator(0, purpose)
    labels = np.arange(n, dtype=np.int64) % C
    images = random.integers(0, 120, (n, 12, 12, 3), np.uint8)
    images[np.arange(n), :, :, labels] += 100
    return images, labels


IMAGES, LABELS = pixels_and_labels("train", N)


def batches(epoch, size=4):
    """Give the batches of an epoch; the last one is smaller."""
    order = epoch_order(N, seed=0, epoch=epoch)
    for start in range(0, N, size):
        rows = order[start : start + size]
        yield IMAGES[rows], LABELS[rows]


def prepare(images):
    """Return float images in channels_last."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).sub(0.5)


def network():
    """Return (stem, layer4): a small network with BatchNorm, the same at each call."""
    stem = nn.Sequential()
    stem.add_module("conv1", nn.Conv2d(3, 4, 3, bias=False))
    stem.add_module("bn1", nn.BatchNorm2d(4))
    stem.add_module("relu", nn.ReLU())
    layer4 = nn.Sequential()
    block = nn.Sequential(nn.Conv2d(4, D, 3, stride=2), nn.BatchNorm2d(D), nn.ReLU())
    layer4.add_module("layer4", block)
    layer4.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    layer4.add_module("flatten", nn.Flatten())
    random = generator(0, "test body")
    with torch.no_grad():
        for parameter in nn.Sequential(stem, layer4).parameters():
            drawn = random.normal(0.3, 0.4, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(drawn))
    return stem, layer4


def classifier(spec=FULL):
    """Return a model before training."""
    stem, layer4 = network()
    parts = {"all": (None, stem + layer4), "layer4": (stem, layer4)}
    whole = nn.Sequential()
    for name, module in (*stem.named_children(), *layer4.named_children()):
        whole.add_module(name, module)
    parts["all"] = (None, whole)
    parts["head"] = (whole, nn.Identity())
    frozen, trained = parts[spec.unfreeze]
    head = initial_head(C, D, seed=0)
    return Classifier(trained, head, frozen=frozen, bn=spec.bn)


def fit(model, spec, size=None):
    """Train to the end; return what each epoch tells."""
    size = size or spec.batch_size
    trainer = Trainer(model, replace(spec, batch_size=size), prepare, images=N)
    return [
        trainer.train_epoch(epoch, batches(epoch, size)) for epoch in range(spec.epochs)
    ]


def values(model):
    """Return all tensors of a model by the names that the network has for them."""
    return {
        name.removeprefix("frozen.").removeprefix("backbone."): tensor
        for name, tensor in model.state_dict().items()
    }


def tutorial(spec):
    """Return the tensors that the tutorial's loop gives, plainly written."""
    stem, layer4 = network()
    start = initial_head(C, D, seed=0)
    fc = nn.Linear(D, C)
    fc.load_state_dict(
        {"weight": torch.tensor(start.weight), "bias": torch.tensor(start.bias)}
    )
    groups = [{"params": fc.parameters(), "lr": spec.lr * spec.head_lr_mult}]
    frozen = []
    for part, first in ((layer4, "layer4"), (stem, "all")):
        trained = spec.full or first == spec.unfreeze
        if trained:
            groups.append({"params": part.parameters(), "lr": spec.lr})
        else:
            part.requires_grad_(False)
            frozen.append(part)
    model = nn.Sequential(stem, layer4, fc)
    optimizer = torch.optim.SGD(
        groups, lr=spec.lr, momentum=0.9, weight_decay=spec.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(spec.epochs):
        model.train()
        if spec.bn != "drift":
            for part in frozen:
                part.eval()
        for images, labels in batches(epoch):
            optimizer.zero_grad()
            loss = criterion(model(prepare(images)), torch.from_numpy(labels))
            loss.backward()
            optimizer.step()
        scheduler.step()
    tensors = {**stem.state_dict(), **layer4.state_dict()}
    return tensors | {f"head.{k}": v for k, v in fc.state_dict().items()}


@pytest.mark.parametrize("bn", ["train", "drift"])
@pytest.mark.parametrize("mult", [1.0, 10.0])
@ALL
def test_weights_equal_the_tutorials(spec, mult, bn):
    """After two epochs every tensor is that of torch's SGD + StepLR to 1e-6."""
    if spec.full and bn == "drift":
        pytest.skip("there is no frozen stage")
    mult = 1.0 if spec.head_only else mult
    spec = replace(spec, head_lr_mult=mult, bn=bn)
    model = classifier(spec)
    fit(model, spec)
    found, expected = values(model), tutorial(spec)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=2e-6, atol=2e-7)


MOVING = {
    ("all", "train"): {"bn1", "layer4"},
    ("all", "frozen"): set(),
    ("layer4", "train"): {"layer4"},
    ("layer4", "frozen"): set(),
    ("layer4", "drift"): {"bn1", "layer4"},
    ("head", "train"): set(),
    ("head", "frozen"): set(),
    ("head", "drift"): {"bn1", "layer4"},
}


@pytest.mark.parametrize(("unfreeze", "bn"), MOVING)
def test_batchnorm_moves_where_its_policy_says(unfreeze, bn):
    """Statistics of all other stages keep their bits, and so do frozen weights."""
    spec = replace(SPEC, unfreeze=unfreeze, bn=bn)
    model = classifier(spec)
    before = copy.deepcopy(values(model))
    fit(model, spec)
    moved = {k for k, v in values(model).items() if not torch.equal(v, before[k])}
    statistics = {k.split(".")[0] for k in moved if "running" in k}
    assert statistics == MOVING[unfreeze, bn]
    weights = {k.split(".")[0] for k in moved if not ("running" in k or "num_" in k)}
    trained = {"all": {"conv1", "bn1", "layer4", "head"}, "layer4": {"layer4", "head"}}
    assert weights == trained.get(unfreeze, {"head"})


@ALL
def test_equal_seeds_give_equal_bits(spec):
    """Two runs end in the same weights and tell the same but for the time."""
    models = [classifier(spec), classifier(spec)]
    with repeatable():
        a, b = (fit(model, spec) for model in models)
    assert [replace(r, seconds=0) for r in a] == [replace(r, seconds=0) for r in b]
    x, y = map(values, models)
    assert all(torch.equal(x[k], y[k]) for k in x)


def test_the_process_random_numbers_are_left_alone():
    """Neither making nor training a model draws from torch's own generator."""
    model = classifier()
    before = torch.random.get_rng_state()
    fit(model, replace(SPEC, mixup=0.3))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_start_is_the_heads_own_copy():
    """Training leaves the initial head as it was."""
    start = initial_head(C, D, seed=0)
    model = Classifier(nn.Flatten(), start)
    with torch.no_grad():
        model.head.weight.zero_()
    np.testing.assert_array_equal(initial_head(C, D, seed=0).weight, start.weight)


def test_train_loss_is_the_mean_over_images_while_the_weights_move():
    """A short last batch counts by its images, as in the tutorial."""
    spec = replace(HEAD, epochs=1, lr=1e-12)
    [passed] = fit(classifier(spec), spec)
    with torch.no_grad():
        scores = classifier(spec).eval()(prepare(IMAGES))
    targets = torch.from_numpy(LABELS)
    loss = nn.functional.cross_entropy(scores, targets).item()
    assert passed.loss == pytest.approx(loss, rel=1e-5)
    right = (scores.argmax(1) == targets).double().mean().item()
    assert passed.accuracy == pytest.approx(right)
    assert passed.seconds > 0


def test_the_model_learns():
    """Colours are told apart after a few epochs, and the loss has fallen."""
    passed = fit(classifier(), replace(SPEC, epochs=12, step_size=12))
    assert passed[-1].loss < 0.5 * passed[0].loss
    assert passed[-1].accuracy > max(passed[0].accuracy, 0.6)


def test_a_last_batch_of_one_image_trains():
    """BatchNorm needs more than one value per channel, which one image has."""
    trainer = Trainer(classifier(), SPEC, prepare, images=1)
    assert trainer.train_epoch(0, [(IMAGES[:1], LABELS[:1])]).loss > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_accumulated_batches_are_one_large_batch(accumulate, optimizer):
    """Where no statistics are taken from a batch, also for the rest at the end."""
    spec = replace(SPEC, bn="frozen", batch_size=2, optimizer=optimizer, lr=0.01)
    small, large = classifier(spec), classifier(spec)
    fit(small, replace(spec, accumulate=accumulate))
    fit(large, spec, size=2 * accumulate)
    for a, b in zip(values(small).values(), values(large).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_adamw_is_torchs():
    """The same weights as torch.optim.AdamW in the tutorial's loop."""
    spec = replace(HEAD, optimizer="adamw", schedule="constant", weight_decay=0.1)
    model, plain = classifier(spec), classifier(spec)
    fit(model, spec)
    optimizer = torch.optim.AdamW(plain.head.parameters(), lr=0.05, weight_decay=0.1)
    for epoch in range(2):
        for images, labels in batches(epoch):
            loss = nn.functional.cross_entropy(
                plain(prepare(images)), torch.from_numpy(labels)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(model.head.weight, plain.head.weight)


def test_label_smoothing_is_torchs():
    """The epoch's loss is that of torch's cross_entropy with the same share."""
    spec = replace(HEAD, label_smoothing=0.2, lr=1e-12, epochs=1)
    [passed] = fit(classifier(spec), spec)
    with torch.no_grad():
        scores = classifier(spec).eval()(prepare(IMAGES))
    expected = nn.functional.cross_entropy(
        scores, torch.from_numpy(LABELS), label_smoothing=0.2
    )
    assert passed.loss == pytest.approx(expected.item(), rel=1e-5)


def test_mixup_is_cross_entropy_with_mixed_labels():
    """Loss and images are those of soft labels, mixed by hand."""
    mix = Mix.drawn(replace(SPEC, mixup=0.4), 5, 0, 3)
    assert 0 < mix.share < 1
    assert mix.share == Mix.drawn(replace(SPEC, mixup=0.4), 5, 0, 3).share
    assert mix.share != Mix.drawn(replace(SPEC, mixup=0.4), 5, 1, 3).share
    images, targets = prepare(IMAGES[:5]), torch.from_numpy(LABELS[:5])
    other = images[mix.partners]
    expected = mix.share * images + (1 - mix.share) * other
    torch.testing.assert_close(mix.images(images), expected)
    scores = torch.from_numpy(generator(0, "scores").normal(size=(5, C)))
    one_hot = nn.functional.one_hot(targets, C).double()
    soft = mix.share * one_hot + (1 - mix.share) * one_hot[mix.partners]
    summed = nn.functional.cross_entropy(scores, soft, reduction="sum")
    found = mix.loss(scores, targets, label_smoothing=0)
    torch.testing.assert_close(found.double(), summed, rtol=1e-5, atol=1e-6)


def test_without_mixup_nothing_is_mixed():
    """The images are those given."""
    images = prepare(IMAGES)
    assert Mix.drawn(SPEC, N, 0, 0).images(images) is images


def test_bfloat16_multiplies_in_bfloat16_and_keeps_float32_weights():
    """The weights differ from float32's by rounding, and stay float32."""
    exact, rounded = classifier(), classifier()
    fit(exact, SPEC)
    fit(rounded, replace(SPEC, precision="bfloat16"))
    a, b = values(exact), values(rounded)
    assert {v.dtype for v in b.values()} == {v.dtype for v in a.values()}
    assert not torch.equal(a["conv1.weight"], b["conv1.weight"])
    torch.testing.assert_close(a["conv1.weight"], b["conv1.weight"], rtol=0.1, atol=0.1)


def test_the_learning_rate_that_is_too_large_is_named():
    """A loss that is not finite stops with epoch, step, lr and what to try."""
    with pytest.raises(
        TrainingError, match=r"epoch \d, step \d, with lr 1e\+30; try a"
    ):
        fit(classifier(), replace(SPEC, lr=1e30))


def rates(optimizer):
    """Return the learning rate of each stage."""
    return {g["stage"]: g["lr"] for g in optimizer.param_groups}


def test_stages_have_their_own_learning_rates():
    """Each stage has a share of the next one's, the head a multiple of the last."""
    spec = replace(SPEC, layer_decay=0.5, head_lr_mult=10.0, schedule="constant")
    optimizer = make_optimizer(classifier(), spec)
    expected = {"stem": 0.05 / 16, "layer4": 0.05, "head": 0.5}
    assert rates(optimizer) == pytest.approx(expected)
    set_epoch(optimizer, replace(spec, warmup=1), 0)
    assert rates(optimizer) == pytest.approx({k: v / 2 for k, v in expected.items()})


@pytest.mark.parametrize("norm_decay", [True, False])
def test_weight_decay_leaves_vectors_alone_on_request(norm_decay):
    """Every parameter is in one group; BatchNorm and biases may be without decay."""
    model = classifier()
    optimizer = make_optimizer(model, replace(SPEC, norm_decay=norm_decay))
    decay = {
        id(p): group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert len(decay) == len(list(model.parameters()))
    for parameter in model.parameters():
        spared = parameter.ndim == 1 and not norm_decay
        assert decay[id(parameter)] == (0 if spared else 0.01)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@ALL
def test_a_resumed_training_ends_in_the_same_bits(spec, optimizer, momentum):
    """From arrays of its model and optimizer it goes on as if it had not stopped."""
    spec = replace(spec, optimizer=optimizer, momentum=momentum, epochs=3)
    whole = classifier(spec)
    fit(whole, spec)
    begun = Trainer(classifier(spec), spec, prepare, images=N)
    begun.train_epoch(0, batches(0))
    arrays = training_arrays(begun.model, begun.optimizer)
    resumed = Trainer(classifier(spec), spec, prepare, images=N)
    resume_training(resumed.model, resumed.optimizer, arrays)
    for epoch in (1, 2):
        resumed.train_epoch(epoch, batches(epoch))
    x, y = values(whole), values(resumed.model)
    assert all(torch.equal(x[k], y[k]) for k in x)


class Hungry(nn.Module):
    """Runs out of memory above so many images."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, images):
        """Return the images' means, if they are not too many."""
        if len(images) > self.most:
            message = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"
            raise torch.OutOfMemoryError(message)
        return images.mean((2, 3))


@pytest.mark.parametrize(
    ("most", "advice"),
    [
        (3, "a batch of 2 fits: pass --batch-size 2 --accumulate 2 "),
        (1, "a batch of 1 fits: pass --batch-size 1 --accumulate 4 "),
        (0, "not even one image fits"),
    ],
)
def test_too_little_memory_says_which_batch_fits(most, advice):
    """Smaller batches are tried, and the largest that passes is named."""
    model = Classifier(Hungry(most), initial_head(C, 3, seed=0))
    with pytest.raises(DeviceError, match=f"ran out of memory.*of 4; {advice}"):
        fit(model, SPEC)


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
@ALL
def test_the_best_epoch_is_kept(spec, figures, best):
    """Restoring puts back the weights of the best epoch, statistics included."""
    model = classifier(spec)
    keeper = Best(model)
    for epoch, (accuracy, loss) in enumerate(figures, 1):
        with torch.no_grad():
            for tensor in model.changing().values():
                tensor.fill_(epoch)
        keeper.offer(record(epoch, accuracy, loss))
    keeper.restore()
    assert keeper.record.epoch == best
    for tensor in model.changing().values():
        assert (tensor == best).all()


def test_repeatable_puts_the_setting_back():
    """The flag of cuDNN is set inside and as before outside."""
    before = torch.backends.cudnn.deterministic
    with repeatable():
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.deterministic == before
