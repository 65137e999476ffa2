"""The compiled window: both passes of the resize, as fast as the processor goes.

Compiled by llvmlite in 0.03 s at each start. numba, which stands on it and speaks
Python, gave as fast a kernel, but takes 0.8 s to load it and 7 s to compile it the
first time; a C compiler is not everywhere.
"""

import ctypes
import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featcache.core.specs import ViewSpec
from featcache.vision.kernel_code import CODE, VECTOR
from featcache.vision.views import Pixels
from featcache.vision.window import Geometry, Taps, taps
from featcache.vision.words import Words

_KEPT = 64  # sizes; the weights of one take 20 kB, of a very large one 0.3 MB


class Across(NamedTuple):
    """`Taps` of the pass across, as its code wants them.

    Parameters
    ----------
    starts : ndarray of int64, shape (4 groups,)
        In bytes.
    weights : ndarray of int32, shape (groups, chunks, 4, 4, 4)
        Of four outputs, four inputs of each, four channels of each.
    """

    starts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int32]

    @classmethod
    def of(cls, found: Taps) -> "Across":
        """Return weights in groups of four outputs.

        Parameters
        ----------
        found : Taps
            Their number is a multiple of four.

        Returns
        -------
        Across
            The last group is filled up with weights of zero.
        """
        count, room = found.weights.shape
        groups = (count + 3) // 4
        starts = np.zeros(4 * groups, np.int64)
        starts[:count] = 4 * found.starts
        weights = np.zeros((4 * groups, room), np.int32)
        weights[:count] = found.weights
        grouped = weights.reshape(groups, 4, room // 4, 4, 1).swapaxes(1, 2)
        return cls(starts, np.repeat(grouped, 4, axis=-1))


class Kernel:
    """The window, compiled for this processor; threads may share it.

    Raises
    ------
    Exception
        ImportError without llvmlite, and whatever else it says.
    """

    def __init__(self) -> None:
        across, down = _addresses("across", "down")
        # Called by ctypes, which lets go of the interpreter meanwhile.
        self._across_code = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9)(across)
        self._down_code = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 7)(down)
        self._across_taps = functools.lru_cache(_KEPT)(_across_taps)
        self._down_taps = functools.lru_cache(_KEPT)(taps)

    def takes(self, width: int, height: int, view: ViewSpec) -> bool:
        """Tell whether an image has the columns that one step reads.

        Parameters
        ----------
        width, height : int
            Of the image, pixels.
        view : ViewSpec
            Resize and crop.

        Returns
        -------
        bool
            False for images of very few columns.
        """
        read = 4 * self._across(width, height, view).weights.shape[1]
        return bool(read <= width)

    def __call__(self, words: Words, view: ViewSpec) -> Pixels:
        """Return the view of an image.

        Parameters
        ----------
        words : ndarray of uint32, shape (h, w)
            The image; see `featcache.vision.words`.
        view : ViewSpec
            Resize and crop.

        Returns
        -------
        ndarray of uint8, shape (crop, crop, 3)
            Those of `featcache.vision.window.two_passes`.

        Raises
        ------
        ValueError
            When the code would read beyond the image.
        """
        height, width = words.shape
        if not (words.flags.c_contiguous and self.takes(width, height, view)):
            raise ValueError(f"not for images of {width}x{height}, or not contiguous")
        size, (_, top) = Geometry.of(width, height, view)
        down = self._down_taps(height, size[1], top, view.crop)
        first = int(down.starts[0])
        used = words[first : int(down.starts[-1]) + down.weights.shape[1]]
        rows = self._run_across(used, self._across(width, height, view), view.crop)
        return self._run_down(rows, Taps(down.starts - first, down.weights), view.crop)

    def _across(self, width: int, height: int, view: ViewSpec) -> Across:
        size, (left, _) = Geometry.of(width, height, view)
        return self._across_taps(width, size[0], left, view.crop)

    def _run_across(self, words: Words, across: Across, crop: int) -> Pixels:
        line = 3 * crop
        # The last step of all may write one group more than is meant.
        rows = np.empty(len(words) * line + 4 * VECTOR, np.uint8)
        self._across_code(
            words.ctypes.data,
            words.strides[0],
            len(words),
            across.starts.ctypes.data,
            across.weights.ctypes.data,
            across.weights.shape[1],
            across.weights.shape[0],
            rows.ctypes.data,
            line,
        )
        return rows

    def _run_down(self, rows: Pixels, down: Taps, crop: int) -> Pixels:
        line = 3 * crop
        starts = down.starts * line
        out = np.empty(crop * line + VECTOR, np.uint8)  # and one vector more
        self._down_code(
            rows.ctypes.data,
            line,
            starts.ctypes.data,
            down.weights.ctypes.data,
            down.weights.shape[1],
            crop,
            out.ctypes.data,
        )
        return out[: crop * line].reshape(crop, crop, 3)


def _across_taps(source: int, resized: int, first: int, count: int) -> Across:
    return Across.of(taps(source, resized, first, count, step=4))


def _addresses(*names: str) -> list[int]:
    """Compile the code; it stays in memory until the process ends."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
    )
    module = llvm.parse_assembly(CODE)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    addresses = [engine.get_function_address(name) for name in names]
    engine.detach()  # a thread left behind at exit may still be in there
    return addresses
