"""The fused network: equal to torchvision's to rounding, or not used at all."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

from featcache.core.catalog import BACKBONES
from featcache.core.specs import ViewSpec
from featcache.vision import fused
from featcache.vision.backbones import Backbone, checked_state
from featcache.vision.forward import embedder
from featcache.vision.fused import TOLERANCE, Unfusable, fuse

SHAPE = (4, 3, 64, 64)
CPU = torch.device("cpu")


def lively(name: str) -> nn.Module:
    """torchvision's network with random weights and BatchNorm that does something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = get_model(name, weights=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.8, 1.2)
                nn.init.uniform_(module.weight, 0.3, 0.6)
                nn.init.uniform_(module.bias, -0.1, 0.1)
    network.fc = nn.Identity()
    return network.eval()


def images(count: int) -> torch.Tensor:
    sample = torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(1))
    return sample.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "resnext50_32x4d",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in BACKBONES
            if name not in ("resnet18", "resnet50", "resnext50_32x4d")
        ),
    ],
)
def test_every_backbone_fuses_to_equal_features(name):
    """Relative 1e-5 of torchvision's own forward, for full and short batches."""
    network = lively(name)
    quick = fuse(network, SHAPE, torch.float32)
    with torch.inference_mode():
        for count in (4, 1, 3):
            expected = network(images(count).contiguous())
            found = quick(images(count))
            error = (found - expected).abs().max() / expected.abs().max()
            assert error <= TOLERANCE


def test_a_row_does_not_depend_on_its_batch():
    """An image alone and among others gives equal bits: short batches are no risk."""
    quick = fuse(lively("resnet18"), SHAPE, torch.float32)
    with torch.inference_mode():
        together = quick(images(4))
        alone = torch.cat(
            [quick(images(4)[i : i + 1].contiguous(memory_format=torch.channels_last))
             for i in range(4)]
        )  # fmt: skip
    assert (together - alone).abs().max() <= TOLERANCE * together.abs().max()


def test_fusing_leaves_the_network_as_it_was():
    """The plain network can still be used; nothing is folded in place."""
    network = lively("resnet18")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    fuse(network, SHAPE, torch.float32)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_a_fused_network_that_differs_is_not_used(monkeypatch):
    """The self-test compares with the plain network before anything is extracted."""
    monkeypatch.setattr(fused, "TOLERANCE", 0.0)
    with pytest.raises(Unfusable, match="differs from the plain one by"):
        fuse(lively("resnet18"), SHAPE, torch.float32)


@pytest.mark.parametrize(
    ("take_away", "reason"),
    [
        pytest.param(
            ("featcache.vision.fused.FusedResNet.__call__", "no such operator"),
            "fused operations fail here: no such operator",
            id="private operation gone",
        ),
        pytest.param(
            ("torch.backends.mkldnn.is_available", None),
            "built without oneDNN",
            id="no oneDNN",
        ),
    ],
)
def test_without_fused_operations_the_plain_network_serves(
    monkeypatch, take_away, reason
):
    """Features stay equal to rounding, and the description says why it is slower."""
    name, message = take_away

    def gone(*_, **__):
        if message is None:
            return False
        raise RuntimeError(message)

    state = checked_state("resnet18", lively("resnet18").state_dict(), "it")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)

    def embedded():
        embed = embedder(
            Backbone("resnet18", state), ViewSpec(), device=CPU, precision="float32"
        )
        return embed(pixels), embed.description

    expected, description = embedded()
    assert description == "fused oneDNN operations"
    monkeypatch.setattr(name, gone)
    found, description = embedded()
    assert reason in description
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
