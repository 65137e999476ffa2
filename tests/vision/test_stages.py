"""Stages: a network cut in two is the network, and its frozen part runs in order."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

from featcache.core.finetune_spec import SHALLOWEST_FIRST
from featcache.core.layers import stages_up_to
from featcache.core.specs import ViewSpec
from featcache.vision.backbones import Backbone, checked_state
from featcache.vision.cuda import CudaEmbedder
from featcache.vision.forward import Embedder, embedder
from featcache.vision.fused import TOLERANCE, fuse
from featcache.vision.stages import forward_windows, split
from featcache.vision.threads import Threads
from featcache.vision.views import normalise

CUTS = [SHALLOWEST_FIRST[:count] for count in range(6)]
VIEW = ViewSpec(resize=64, crop=64)


@pytest.fixture(
    scope="module",
    params=["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)],
)
def network(request):
    """torchvision's network with BatchNorm that does something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = get_model(request.param, weights=None)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.weight, 0.3, 0.6)
    made.fc = nn.Identity()
    return made.eval()


def inputs(*shape, seed=1):
    sample = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return sample.contiguous(memory_format=torch.channels_last)


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("frozen", CUTS, ids=len)
@pytest.mark.parametrize("training", [False, True])
def test_prefix_and_tail_are_the_network_to_the_bit(network, frozen, training):
    """Wherever it is cut, in evaluation and in training mode."""
    before = {k: v.clone() for k, v in network.state_dict().items()}
    prefix, tail = split(network.train(training), frozen)
    try:
        with torch.no_grad():
            expected = network(inputs(4, 3, 64, 64))
            network.load_state_dict(before)
            assert torch.equal(tail(prefix(inputs(4, 3, 64, 64))), expected)
    finally:
        network.load_state_dict(before)
        network.eval()


@pytest.mark.parametrize("frozen", CUTS, ids=len)
def test_parts_share_the_tensors_under_their_names(network, frozen):
    """Each tensor is in one part, under torchvision's name, and is the same memory."""
    prefix, tail = split(network, frozen)
    whole, front, back = (part.state_dict() for part in (network, prefix, tail))
    assert front.keys() | back.keys() == whole.keys()
    assert not front.keys() & back.keys()
    for name, tensor in {**front, **back}.items():
        assert tensor.data_ptr() == whole[name].data_ptr()
    stem = {"conv1", "bn1"} if frozen else set()
    assert {name.split(".")[0] for name in front} == {*frozen[1:], *stem}


def test_no_stage_and_all_stages_leave_an_identity(network):
    """An empty part gives back what it is given."""
    images = inputs(2, 3, 64, 64)
    assert split(network, ())[0](images) is images
    prefix, tail = split(network, SHALLOWEST_FIRST)
    assert tail(images) is images
    assert prefix(images).ndim == 2


@pytest.mark.parametrize(
    "frozen", [("layer1",), ("stem", "layer2"), ("head",)], ids="-".join
)
def test_only_the_first_stages_can_be_frozen(network, frozen):
    """A gap would train a network that is none."""
    with pytest.raises(ValueError, match="the first stages are"):
        split(network, frozen)


@pytest.mark.parametrize("frozen", CUTS[1:5], ids=len)
def test_fused_parts_are_the_parts_and_leave_their_input_alone(network, frozen):
    """Maps and features to 1e-5; maps in channels_last; the caller's maps unchanged."""
    prefix, tail = split(network, frozen)
    images = inputs(3, 3, 64, 64)
    with torch.inference_mode():
        quick = fuse(prefix, (3, 3, 64, 64), torch.float32)
        expected, maps = prefix(images), quick(images)
        assert relative(maps, expected) <= TOLERANCE
        assert maps.is_contiguous(memory_format=torch.channels_last)
        ending = fuse(tail, tuple(maps.shape), torch.float32)
        for layout in (torch.channels_last, torch.contiguous_format):
            given = expected.contiguous(memory_format=layout)
            kept = given.clone()
            assert relative(ending(given), tail(kept)) <= TOLERANCE
            assert torch.equal(given, kept)


def test_fusing_again_follows_the_weights(network):
    """After a step of training the fused tail gives the trained tail's features."""
    _, tail = split(network, CUTS[4])
    before = {k: v.clone() for k, v in tail.state_dict().items()}
    channels = tail.state_dict()["layer4.0.conv1.weight"].shape[1]
    maps = inputs(2, channels, 4, 4)
    quick = fuse(tail, (2, channels, 4, 4), torch.float32)
    try:
        with torch.no_grad():
            old = tail(maps)
            for tensor in tail.parameters():
                tensor.mul_(1.1)
        with torch.inference_mode():
            assert relative(quick(maps), old) <= TOLERANCE
            assert relative(quick.again(tail)(maps), tail(maps)) <= TOLERANCE
    finally:
        tail.load_state_dict(before)


# What follows needs no network: the pass over images is about order, threads, memory.


def pixels(index):
    return np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)


def colours(images):
    return images.mean((2, 3))


@pytest.mark.parametrize("rows", [[], [3], [5, 0, 5, 2, 9, 1, 7], list(range(20))])
@pytest.mark.parametrize(("window", "chunk"), [(8, 3), (4, 8), (1, 1)])
def test_outputs_come_in_the_order_of_the_rows(rows, window, chunk):
    """Window by window, each row's own output, repeated rows too."""
    with Threads(3) as threads:
        windows = list(
            forward_windows(
                colours, rows, pixels, VIEW, threads, window=window, chunk=chunk
            )
        )
    assert [len(w) for w in windows] == [
        len(rows[i : i + window]) for i in range(0, len(rows), window)
    ]
    for row, found in zip(rows, (f for w in windows for f in w), strict=True):
        image = torch.from_numpy(pixels(row)[None]).permute(0, 3, 1, 2)
        expected = colours(normalise(image, VIEW))[0]
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_threads_rest_while_the_caller_has_a_window():
    """Nothing is read ahead of the next window, and each thread has one core."""
    reads, cores, outside = [], set(), torch.get_num_threads()

    def read(index):
        reads.append(index)
        cores.add((threading.current_thread().name, torch.get_num_threads()))
        return pixels(index)

    with Threads(2) as threads:
        passes = forward_windows(
            colours, range(20), read, VIEW, threads, window=8, chunk=2
        )
        for done, _ in enumerate(passes, start=1):
            assert sorted(reads) == list(range(min(20, 8 * done)))
            assert torch.get_num_threads() == outside
    assert {count for _, count in cores} == {1}
    assert threading.current_thread().name not in {name for name, _ in cores}


def test_outputs_can_be_trained_on():
    """They are plain tensors without a gradient of their own."""
    head = nn.Linear(3, 2)
    with Threads(2) as threads:
        (found,) = forward_windows(colours, range(4), pixels, VIEW, threads)
    head(found).sum().backward()
    assert not found.requires_grad
    assert head.weight.grad is not None


def test_a_bad_image_is_raised_where_its_window_would_be():
    """The windows before it have been given; torch's threads are as before."""
    outside = torch.get_num_threads()

    def read(index):
        if index == 5:
            message = "image 5"
            raise OSError(message)
        return pixels(index)

    with Threads(2) as threads:
        passes = forward_windows(
            colours, range(8), read, VIEW, threads, window=4, chunk=2
        )
        assert len(next(passes)) == 4
        with pytest.raises(OSError, match="image 5"):
            next(passes)
    assert torch.get_num_threads() == outside


def test_an_output_does_not_depend_on_its_chunk(network):
    """Alone or among seven others: relative 1e-5."""
    prefix, _ = split(network, SHALLOWEST_FIRST)
    quick = fuse(prefix, (8, 3, 64, 64), torch.float32)

    def read(index):
        return np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)

    with Threads(2) as threads:
        by_8, by_1 = (
            torch.cat(
                list(forward_windows(quick, range(9), read, VIEW, threads, chunk=size))
            )
            for size in (8, 1)
        )
    assert relative(by_8, by_1) <= TOLERANCE


@pytest.mark.parametrize("network", ["resnet18"], indirect=True)
@pytest.mark.parametrize("layer", ["stem", "layer3"])
def test_every_embedder_gives_the_maps_of_a_layer(network, layer):
    """Fused, plain, and in the lanes of a GPU (which the CPU can do as well)."""
    state = checked_state("resnet18", network.state_dict(), "it")
    many = np.stack([np.resize(pixels(i), (64, 64, 3)) for i in range(3)])
    images = normalise(torch.from_numpy(many).permute(0, 3, 1, 2), VIEW)
    with torch.inference_mode():
        expected = split(network, stages_up_to(layer))[0](images).flatten(1)
    backbone = Backbone("resnet18", state, layer)
    assert backbone.row_size(64) == expected.shape[1]
    cpu, settings = torch.device("cpu"), {"precision": "float32", "batch_size": 2}
    fused = embedder(backbone, VIEW, device=cpu, **settings)
    plain = Embedder(backbone, VIEW, cpu, torch.float32, "plain")
    lanes = CudaEmbedder(backbone, VIEW, device=cpu, dtype=torch.float32, batch_size=2)
    assert "fused" in fused.description
    for embed in (fused, plain, lanes):
        found = torch.from_numpy(embed(many))
        assert found.shape == expected.shape
        assert relative(found, expected) <= TOLERANCE
