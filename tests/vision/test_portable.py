"""Networks that run without featcache: they compute what backbone and head do."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from featcache.core.heads import unit_rows
from featcache.vision import portable
from featcache.vision.backbones import Backbone
from tests.stages.test_model_exporting import (  # noqa: F401 - fixtures
    close,
    heads,
    images,
    state,
)


@pytest.mark.parametrize("kind", ["linear", "l2", "knn"])
def test_the_network_is_backbone_and_head(state, heads, kind):  # noqa: F811
    """In torch's own arithmetic, whatever the head."""
    inputs = images(4)
    expected = heads[kind].scores(Backbone("resnet18", state)(inputs).numpy())
    network = portable.portable_network(Backbone("resnet18", state), heads[kind])
    assert close(network(inputs), expected)


def test_unit_rows_are_those_of_the_head():
    """Also of zeros, and of numbers whose squares overflow or vanish."""
    rows = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    rows *= np.array([[0], [1], [1e30], [1e-30]], np.float32)
    found = portable.UnitRows()(torch.from_numpy(rows)).numpy()
    assert np.allclose(found, unit_rows(rows), atol=1e-6)
    assert not found[0].any()


@pytest.mark.slow
def test_a_network_is_exported_after_tf32_was_turned_off():
    """torch.export refuses flags of the old and the new kind that contradict."""
    program = """
import torch
from featcache.vision.forward import keep_float32_exact
keep_float32_exact()
assert not torch.backends.cudnn.allow_tf32
assert not torch.backends.cuda.matmul.allow_tf32
torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.rand(1, 2),))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
