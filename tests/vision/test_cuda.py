"""The GPU's forward pass: lanes on any machine, streams and graphs on a GPU."""

import io
import threading

import numpy as np
import pytest
import torch

from featcache.core.errors import DeviceError
from featcache.core.specs import ViewSpec
from featcache.core.tolerances import BFLOAT16, FLOAT32, relative_errors
from featcache.vision.backbones import Backbone, random_weights
from featcache.vision.cuda import BATCH, LANES, CudaEmbedder, batch_size_for
from featcache.vision.forward import Embedder, default_batch_size, embedder
from featcache.vision.graph import PixelForward
from featcache.vision.nvjpeg import JpegViews
from featcache.vision.views import normalise
from tests.conftest import picture

CPU = torch.device("cpu")
VIEW = ViewSpec(resize=72, crop=64)
BATCH_OF_4 = 4

pytestmark = pytest.mark.filterwarnings("ignore:.*TorchCodec:DeprecationWarning")


@pytest.fixture(scope="module")
def state():
    return random_weights("resnet18", 0)


@pytest.fixture(scope="module")
def plain(state):
    """torchvision's own eager forward on the CPU."""
    return Embedder(Backbone("resnet18", state), VIEW, CPU, torch.float32, "plain")


@pytest.fixture
def lanes(state):
    """The embedder of a GPU, on the CPU."""
    return CudaEmbedder(
        Backbone("resnet18", state),
        VIEW,
        device=CPU,
        dtype=torch.float32,
        batch_size=BATCH_OF_4,
        jpegs=JpegViews(VIEW, CPU),
    )


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda")


def pixels(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, VIEW.crop, VIEW.crop, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def jpeg(seed: int, size=(80, 72)) -> bytes:
    """A smooth picture: decoders differ by rounding, not by ringing."""
    buffer = io.BytesIO()
    image = picture(seed, (150, 60, 40), (12, 9)).resize(size)
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def assert_equal_features(expected, found, limit=FLOAT32):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert relative_errors(expected, found).max() <= limit


def in_threads(count: int, work) -> list[BaseException]:
    """Call work(number) on threads at once; return what they raised."""
    raised, start = [], threading.Barrier(count)

    def run(number):
        start.wait()
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return raised


class WholeBatch:
    """What a graph is, without a GPU: computes all rows of a lane, used or not."""

    def __init__(self, forward) -> None:
        self.forward = forward

    def __call__(self, pixels, features):
        assert len(pixels) == BATCH_OF_4
        features.copy_(self.forward(pixels))


class Hungry(Backbone):
    """A backbone that never finds memory enough."""

    def forward(self, images):
        raise torch.OutOfMemoryError(f"tried to allocate {images.shape}")


class Failing(Backbone):
    """A backbone that fails for black images, but not for the first of them."""

    healthy = True

    def forward(self, images):
        if not self.healthy and images.max() < 0:
            raise RuntimeError("a black image")
        return super().forward(images)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_lanes_give_the_plain_networks_features_in_order(lanes, plain, count):
    """Short batches, full ones, and more than go through at once."""
    assert_equal_features(plain(pixels(count)), lanes(pixels(count)))


def test_results_are_the_callers_own(lanes):
    """The next batch through the same lane changes nothing of what was given out."""
    first = lanes(pixels(4))
    kept = first.copy()
    for seed in range(1, LANES + 2):
        lanes(pixels(4, seed))
    assert np.array_equal(kept, first)


@pytest.mark.parametrize("graph", [False, True], ids=["kernels", "whole batches"])
def test_many_threads_share_a_few_lanes(lanes, plain, graph):
    """More threads than lanes, other sizes each: everyone gets their own features."""
    if graph:
        lanes._graph = WholeBatch(lanes._forward)
    sizes = [1 + i % BATCH_OF_4 for i in range(3 * LANES)]
    expected = [plain(pixels(size, seed)) for seed, size in enumerate(sizes)]
    wrong = in_threads(
        len(sizes),
        lambda i: assert_equal_features(expected[i], lanes(pixels(sizes[i], i))),
    )
    assert not wrong


def test_an_error_in_one_thread_leaves_the_lanes_to_the_others(state, plain):
    """Every lane fails several times, and all are there afterwards."""
    backbone = Failing("resnet18", state)
    embed = CudaEmbedder(
        backbone, VIEW, device=CPU, dtype=torch.float32, batch_size=BATCH_OF_4
    )
    backbone.healthy = False
    black = np.zeros_like(pixels(2))
    raised = in_threads(3 * LANES, lambda i: embed(black if i % 2 else pixels(2, i)))
    assert {str(error) for error in raised} == {"a black image"}
    assert embed._free.qsize() == LANES
    assert_equal_features(plain(pixels(3)), embed(pixels(3)))


def test_pixels_of_another_shape_cost_no_lane(lanes):
    """They are refused, and the lane is free again."""
    with pytest.raises(ValueError, match="broadcast"):
        lanes(np.zeros((2, 8, 9, 3), np.uint8))
    assert lanes._free.qsize() == LANES


def test_normalisation_is_the_hosts_to_the_bit(state):
    """All 256 levels of each channel, in the layout that the network wants."""
    forward = PixelForward(lambda images: images, ViewSpec(), CPU, torch.float32)
    levels = torch.arange(256, dtype=torch.uint8)
    levels = levels.view(1, 256, 1, 1).expand(1, 256, 2, 3).contiguous()
    found = forward.normalised(levels)
    assert torch.equal(normalise(levels.permute(0, 3, 1, 2), ViewSpec()), found)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("batch_size", "remedy"), [(6, "--batch-size 3"), (1, "--device cpu")]
)
def test_too_little_memory_shows_at_once(state, batch_size, remedy):
    """The error names the batch and what to pass instead."""
    with pytest.raises(DeviceError, match=f"batches of {batch_size}; pass {remedy}"):
        CudaEmbedder(
            Hungry("resnet18", state),
            VIEW,
            device=CPU,
            dtype=torch.float32,
            batch_size=batch_size,
        )


@pytest.mark.parametrize(
    ("gib", "expected"),
    [(0, 8), (1.2, 8), (1.6, 16), (2, 32), (3.5, 64), (6, 128), (140, BATCH)],
)
def test_the_batch_follows_the_memory(gib, expected):
    """A power of two, small on a laptop's GPU and bounded on a large one."""
    assert batch_size_for(int(gib * 2**30)) == expected


def test_the_cpu_keeps_small_batches():
    """They stay in its caches."""
    assert default_batch_size(CPU) == 8


def test_files_come_out_in_order_with_their_reasons(lanes, plain):
    """Across batches; a file that cannot be used has no feature, and a reason."""
    files = [jpeg(i) for i in range(6)]
    files[4] = b"no image"
    features, reasons = lanes.embed_files(files)
    assert list(reasons) == [4]
    assert "no image format" in str(reasons[4])
    assert np.isnan(features[4]).all()
    good = [0, 1, 2, 3, 5]
    out = torch.zeros((5, 64, 64, 3), dtype=torch.uint8)
    assert not JpegViews(VIEW, CPU)([files[i] for i in good], out)
    assert_equal_features(plain(out.numpy()), features[good])


@pytest.mark.gpu
@pytest.mark.parametrize("expected", [0, 10**6], ids=["kernels", "graph"])
@pytest.mark.parametrize(
    ("precision", "limit"), [("float32", FLOAT32), ("bfloat16", BFLOAT16)]
)
def test_a_gpu_gives_the_cpus_features(gpu, state, plain, precision, limit, expected):
    """float32 to 1e-5 of torchvision's eager forward; full and short batches."""
    backbone = Backbone("resnet18", state)
    embed = embedder(
        backbone,
        VIEW,
        device=gpu,
        precision=precision,
        batch_size=BATCH_OF_4,
        expected=expected,
    )
    assert isinstance(embed, CudaEmbedder)
    assert embed.description.endswith("a CUDA graph") == bool(expected)
    for count in (4, 1, 7):
        assert_equal_features(plain(pixels(count)), embed(pixels(count)), limit)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_float32_on_a_gpu_is_torchvisions_eager_forward(gpu, name):
    """At the real size, against the same network run as torchvision runs it."""
    own, view = random_weights(name, 0), ViewSpec()
    embed = embedder(
        Backbone(name, own), view, device=gpu, precision="float32", batch_size=16
    )
    shape = (16, view.crop, view.crop, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    eager = Backbone(name, own).to(gpu)
    with torch.inference_mode():
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        expected = eager(normalise(batch, view).to(gpu)).cpu().numpy()
    assert_equal_features(expected, embed(images))


@pytest.mark.gpu
def test_a_graph_gives_what_its_kernels_give(gpu, state):
    """Replayed or launched one by one: the same features."""
    kernels, graph = (
        embedder(
            Backbone("resnet18", state),
            VIEW,
            device=gpu,
            precision="float32",
            batch_size=BATCH_OF_4,
            expected=expected,
        )
        for expected in (0, 10**6)
    )
    assert graph._graph is not None
    assert_equal_features(kernels(pixels(4, 3)), graph(pixels(4, 3)))


@pytest.mark.gpu
@pytest.mark.parametrize("expected", [0, 10**6], ids=["kernels", "graph"])
def test_many_threads_share_a_gpu(gpu, state, plain, expected):
    """Copies and kernels of different lanes do not mix."""
    embed = embedder(
        Backbone("resnet18", state),
        VIEW,
        device=gpu,
        precision="float32",
        batch_size=BATCH_OF_4,
        expected=expected,
    )
    wanted = [plain(pixels(1 + i % 4, i)) for i in range(16)]

    def work(number):
        for _ in range(20):
            found = embed(pixels(1 + number % 4, number))
            assert_equal_features(wanted[number], found)

    assert not in_threads(16, work)


@pytest.mark.gpu
def test_normalisation_on_a_gpu_is_the_hosts_to_the_bit(gpu):
    """All levels of each channel."""
    forward = PixelForward(lambda images: images, ViewSpec(), gpu, torch.float32)
    levels = torch.arange(256, dtype=torch.uint8)
    levels = levels.view(1, 256, 1, 1).expand(1, 256, 2, 3).contiguous()
    expected = normalise(levels.permute(0, 3, 1, 2), ViewSpec())
    assert torch.equal(expected, forward.normalised(levels.to(gpu)).cpu())


@pytest.mark.gpu
def test_too_little_memory_on_a_gpu_is_one_clear_line(gpu, state):
    """A batch for which no GPU has memory."""
    with pytest.raises(DeviceError, match="too little free memory for batches of"):
        embedder(
            Backbone("resnet18", state),
            ViewSpec(),
            device=gpu,
            precision="float32",
            batch_size=2**18,
        )


@pytest.mark.gpu
def test_files_decoded_on_a_gpu_have_features_close_to_pillows(gpu, state):
    """Another view, but of the same pictures; a broken file is told from the rest."""
    view = ViewSpec(decoder="nvjpeg")
    embed = embedder(
        Backbone("resnet18", state),
        view,
        device=gpu,
        precision="float32",
        batch_size=BATCH_OF_4,
    )
    files = [jpeg(i, (500 - i, 375 + i)) for i in range(6)]
    files[2] = files[2][:-1000]
    features, reasons = embed.embed_files(files)
    assert list(reasons) == [2]
    out = torch.zeros((6, 224, 224, 3), dtype=torch.uint8)
    JpegViews(view, CPU)(files, out)
    good = [0, 1, 3, 4, 5]
    assert relative_errors(embed(out.numpy())[good], features[good]).max() < 0.1


def test_the_description_says_why_there_is_no_graph(lanes):
    """For provenance, and for whoever wonders about the speed."""
    assert lanes.description == (
        "3 lanes of 4, channels_last, no CUDA graph: not a CUDA device"
    )
