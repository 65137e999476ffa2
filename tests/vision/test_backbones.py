"""Backbones: torchvision's networks without a classifier, frozen for good."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from featcache.core.catalog import BACKBONES
from featcache.core.errors import DeviceError, WeightsError
from featcache.core.specs import ViewSpec
from featcache.vision.backbones import Backbone, checked_state, random_weights
from featcache.vision.forward import embedder, pick_device
from featcache.vision.views import normalise
from featcache.vision.weights import read_weights, state_sha256


@pytest.fixture(scope="module")
def network():
    """torchvision's own ResNet-18 with random weights and lively BatchNorm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_model("resnet18", weights=None)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def state(network):
    return checked_state("resnet18", network.state_dict(), "weights")


@pytest.fixture(scope="module")
def pixels():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 224, 224, 3), generator=generator).to(torch.uint8)


def relative_error(found, expected) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_features_equal_torchvisions_forward(network, state, pixels):
    """What embed returns is what feeds fc in torchvision, to 1e-5 relative."""
    inputs = []
    network.fc.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    view = ViewSpec()
    with torch.inference_mode():
        network(normalise(pixels.permute(0, 3, 1, 2).contiguous(), view))
    embed = embedder(
        Backbone("resnet18", state),
        view,
        device=torch.device("cpu"),
        precision="float32",
    )
    found = torch.from_numpy(embed(pixels.numpy()))
    assert found.shape == (3, 512)
    assert relative_error(found, inputs[0]) < 1e-5


def test_bfloat16_is_near_float32_and_not_equal(state, pixels):
    """The opt-in precision is really used, and is what it says."""
    features = {
        precision: torch.from_numpy(
            embedder(
                Backbone("resnet18", dict(state)),
                ViewSpec(),
                device=torch.device("cpu"),
                precision=precision,
            )(pixels.numpy())
        )
        for precision in ("float32", "bfloat16")
    }
    error = relative_error(features["bfloat16"], features["float32"])
    assert 1e-5 < error < 0.1


def test_batchnorm_cannot_move_under_a_parents_train(state, pixels):
    """A parent in training mode leaves the frozen statistics where they were."""
    backbone = Backbone("resnet18", {k: v.clone() for k, v in state.items()})
    parent = nn.Sequential(backbone, nn.Linear(512, 2)).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    parent(normalise(pixels.permute(0, 3, 1, 2), ViewSpec()))
    assert not backbone.training
    assert not backbone.body.bn1.training
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet34",
        "resnet50",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in BACKBONES
            if name not in ("resnet18", "resnet34", "resnet50")
        ),
    ],
)
def test_every_backbone_is_built_and_has_its_dimension(name):
    """All of the catalog's networks run; their random weights can be repeated."""
    backbone = Backbone(name, random_weights(name, seed=3))
    with torch.inference_mode():
        assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, backbone.row_size(64))
    assert state_sha256(random_weights(name, seed=3)) == backbone.weights_sha256
    assert state_sha256(random_weights(name, seed=4)) != backbone.weights_sha256


@pytest.mark.parametrize(
    ("ending", "wrapper"),
    [
        (".pth", None),
        (".pth", "state_dict"),
        (".pth", "model"),
        (".safetensors", None),
    ],
)
def test_weights_are_read_from_every_common_file(
    network, state, tmp_path, ending, wrapper
):
    """Plain and wrapped state dicts have one identity, whatever file they came in."""
    saved = {f"module.{k}": v for k, v in network.state_dict().items()}
    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save({wrapper: saved} if wrapper else saved, path)
    else:
        save_file(saved, path)
    found = checked_state("resnet18", read_weights(path), "weights")
    assert state_sha256(found) == state_sha256(state)


class Bomb:
    """Runs code when unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_a_pickle_of_code_is_refused_before_it_runs(tmp_path):
    """A poisoned .pth is named as what it is."""
    path = tmp_path / "bomb.pth"
    torch.save({"conv1.weight": Bomb()}, path)
    with pytest.raises(WeightsError, match="refused: it is a pickle that runs code"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not a weights file, or is truncated", id="empty"),
        pytest.param(b"PK\x03\x04 cut off", "not a weights file", id="truncated zip"),
        pytest.param(b"<html></html>", "not a weights file", id="HTML"),
    ],
)
def test_broken_weights_files_say_so(tmp_path, content, message):
    """A file that is no weights file is an error of one line."""
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_a_broken_safetensors_file_says_so(tmp_path):
    """A truncated safetensors file is an error of one line."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x10\x00")
    with pytest.raises(WeightsError, match="is no safetensors file"):
        read_weights(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}),
            "w is no resnet18: layer1.0.conv1.weight has shape 64x64x1x1, "
            "expected 64x64x3x3",
            id="another shape",
        ),
        pytest.param(
            lambda s: s.pop("bn1.bias"),
            r"w is no resnet18: it has no bn1.bias \(64\)",
            id="missing",
        ),
        pytest.param(
            lambda s: s.update({"layer1.2.conv1.weight": torch.zeros(1)}),
            "w is no resnet18: it has a layer1.2.conv1.weight too many",
            id="left over",
        ),
        pytest.param(
            lambda s: s["conv1.weight"].fill_(float("nan")),
            "conv1.weight holds values that are not finite",
            id="not finite",
        ),
        pytest.param(
            lambda s: s.update({"conv1.weight": "text"}),
            "it has no conv1.weight",
            id="not a tensor",
        ),
    ],
)
def test_weights_of_another_network_name_the_first_difference(state, change, message):
    """The first differing tensor is named with its shape."""
    other = {k: v.clone() for k, v in state.items()}
    change(other)
    with pytest.raises(WeightsError, match=message):
        checked_state("resnet18", other, "w")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("gpu", "unknown device 'gpu'", id="unknown"),
        pytest.param("meta", "device meta is not supported", id="no place to work"),
        pytest.param("cpu:7", "device cpu:7 is not supported", id="no such processor"),
        pytest.param(
            "cuda:99", "device cuda:99 was asked for, but torch sees", id="absent"
        ),
    ],
)
def test_a_device_that_is_not_there_is_named(name, message):
    """CUDA asked for and absent is an error, never a silent CPU run."""
    with pytest.raises(DeviceError, match=message):
        pick_device(name)
