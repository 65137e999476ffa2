"""Which engine trains some heads: numpy, compiled loops, or torch on a device."""

import sys
from importlib.util import find_spec

import numpy as np

from featcache.core.features import Features
from featcache.core.resources import Resources
from featcache.core.training_specs import SgdSpec
from featcache.train.heads import Heads
from featcache.train.standardize import Scaling
from featcache.train.steps import Epochs, NumpyEpochs

# What numpy takes for a step besides the products (measured: its calls, each score's
# way to a probability, each weight's passes through memory), and what it must come to
# before numba is loaded: 0.4 s, and 5 s more the first time, when it compiles.
_CALL_SECONDS, _SCORE_SECONDS, _WEIGHT_SECONDS = 35e-6, 10e-9, 0.5e-9
_LOADING_SECONDS = 1.0
_COMPILED_FLOATS = 32_768  # of a head: larger ones do not stay in the L1/L2 cache
_WIDE, _LARGE_STEP = 32, 500_000  # columns and multiply-adds from which BLAS wins
_RESIDENT = 0.8  # share of a device's memory that features may take
_COMPILED_BYTES = 256 << 20  # of standardised features, which are copied for this


def engine(
    heads: Heads,
    train: Features,
    scaling: Scaling,
    spec: SgdSpec,
    resources: Resources,
) -> Epochs:
    """Return who trains heads soonest.

    Parameters
    ----------
    heads : Heads
        Trained in place.
    train : Features
        n samples.
    scaling : Scaling
        Of the features.
    spec : SgdSpec
        Epochs and batch size.
    resources : Resources
        The device.

    Returns
    -------
    Epochs
        With a device other than ``cpu`` torch; numba where loading it pays; numpy
        where several processes train together.
    """
    n = len(train)
    batch_size = min(spec.batch_size, n)
    if resources.share.count > 1:
        from featcache.train.rank_steps import RankEpochs

        return RankEpochs(heads, scaling, batch_size, resources.share)
    if resources.device != "cpu":
        from featcache.train.tensors import TorchEpochs

        return TorchEpochs(heads, scaling, batch_size, resources.device)
    copied = scaling.kind != "none" or train.dtype != np.float32
    seconds = numpy_seconds(heads, n, spec)
    if "featcache.train.kernels" not in sys.modules and seconds < _LOADING_SECONDS:
        return NumpyEpochs(heads, scaling, batch_size)
    if find_spec("numba") is None:
        return NumpyEpochs(heads, scaling, batch_size)
    from featcache.train.kernels import CompiledEpochs, MixedEpochs

    if compiled_is_faster(heads, n, batch_size, copied=copied):
        return CompiledEpochs(heads, scaling, batch_size)
    return MixedEpochs(heads, scaling, batch_size)


def limits(resources: Resources) -> tuple[int, int | None]:
    """Return how much memory windows may take, and what fits without any.

    Parameters
    ----------
    resources : Resources
        Memory and device.

    Returns
    -------
    memory : int
        Bytes, of windows.
    resident : int or None
        Bytes of features up to which there are none, where a device has memory of its
        own and no limit was asked for.
    """
    memory = resources.budget()
    if resources.device == "cpu" or resources.memory is not None:
        return memory, None
    from featcache.train.tensors import free_memory

    free = free_memory(resources.device)
    if free is None:
        return memory, None
    resident = int(free * _RESIDENT)
    return min(memory, resident), resident


def numpy_seconds(heads: Heads, n: int, spec: SgdSpec) -> float:
    """Return what numpy takes besides the products, which compiled code saves most of.

    Parameters
    ----------
    heads : Heads
        To be trained.
    n : int
        Samples of an epoch.
    spec : SgdSpec
        Epochs and batch size.

    Returns
    -------
    float
        Seconds, of all epochs.
    """
    H, C, _ = heads.W.shape
    steps = -(-n // spec.batch_size)
    scores = min(spec.batch_size, n) * H * C
    each = _CALL_SECONDS + scores * _SCORE_SECONDS + heads.W.size * _WEIGHT_SECONDS
    return float(spec.epochs * steps * each)


def compiled_is_faster(heads: Heads, n: int, batch_size: int, *, copied: bool) -> bool:
    """Tell whether compiled loops take less time than matrix products.

    Parameters
    ----------
    heads : Heads
        To be trained.
    n : int
        Samples of an epoch.
    batch_size : int
        b.
    copied : bool
        Whether the loops would need a copy of all features: scaled, or in float32.

    Returns
    -------
    bool
        False for heads too large for the nearest caches, or many at once.
    """
    H, C, columns = heads.W.shape
    if C * columns > _COMPILED_FLOATS:
        return False
    if copied and 4 * n * columns > _COMPILED_BYTES:
        return False
    # BLAS is at its best where many heads make wide products of large batches.
    return not (H * C >= _WIDE and min(batch_size, n) * heads.W.size > _LARGE_STEP)
