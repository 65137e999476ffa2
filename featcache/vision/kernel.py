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
from featcache.vision.window import Geometry, Taps, down_first, taps
from featcache.vision.words import Words

# Sizes; the weights of one take 20 kB, of a very large one 0.3 MB. A photo of 500x375
# has random boxes of 400 widths, mirrored or not, and 270 heights; to make the weights
# of one takes 50 us, in which no other thread can use the interpreter.
_KEPT = 1024


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
        self._down_code = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(down)
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
        pixels = self._run_down(rows, Taps(down.starts - first, down.weights))
        return pixels.reshape(view.crop, view.crop, 3)

    def resized(self, box: Words, crop: int, *, mirrored: bool = False) -> Pixels:
        """Return a whole image, or a box of one, resized to a square.

        Parameters
        ----------
        box : ndarray of uint32, shape (h, w)
            Of `featcache.vision.words`; each row contiguous.
        crop : int
            Side of the result, pixels.
        mirrored : bool
            Whether left and right change places.

        Returns
        -------
        ndarray of uint8, shape (crop, crop, 3)
            Those of Pillow's bilinear resize, if `across_first` of the box's size.

        Raises
        ------
        ValueError
            When the pixels of a row do not lie side by side.
        """
        if box.strides[1] != box.itemsize:
            raise ValueError("the pixels of a row must lie side by side")
        height, width = box.shape
        across = self._across_taps(width, crop, 0, crop, mirrored)
        down = self._down_taps(height, crop, 0, crop)
        read = 4 * across.weights.shape[1]
        if read > width:  # one step reads four; weights of zero meet the others
            box = np.pad(box, ((0, 0), (0, read - width)))
        if not down_first(width, height, crop):
            pixels = self._run_down(self._run_across(box, across, crop), down)
        else:
            few = self._run_down(box.view(np.uint8), down).view(np.uint32)
            pixels = self._run_across(few, across, crop)
        return pixels.reshape(crop, crop, 3)

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
        return rows[: len(words) * line].reshape(len(words), line)

    def _run_down(self, rows: Pixels, down: Taps) -> Pixels:
        line = rows.shape[1]
        count = len(down.starts)
        out = np.empty(count * line + VECTOR, np.uint8)  # and one vector more
        self._down_code(
            rows.ctypes.data,
            rows.strides[0],
            down.starts.ctypes.data,
            down.weights.ctypes.data,
            down.weights.shape[1],
            count,
            out.ctypes.data,
            line,
        )
        return out[: count * line].reshape(count, line)


def _across_taps(
    source: int, resized: int, first: int, count: int, mirrored: bool = False
) -> Across:
    found = taps(source, resized, first, count, step=4)
    if mirrored:
        found = Taps(found.starts[::-1], found.weights[::-1])
    return Across.of(found)


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
