"""Words: a decoded image as Pillow stores it, four bytes a pixel, without a copy."""

import ctypes

import numpy as np
import numpy.typing as npt
from PIL import Image

# Shape (h, w), C-contiguous: in memory R, G, B and a byte without meaning.
Words = npt.NDArray[np.uint32]


def words_of(image: Image.Image) -> Words:
    """Return Pillow's own storage of an image, or a copy where that is in parts.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB, loaded.

    Returns
    -------
    ndarray of uint32, shape (h, w)
        To be read only, and only as long as the image is alive.
    """
    shape = (image.height, image.width)
    try:
        _, capsule = image.__arrow_c_array__()
    except (AttributeError, ValueError):  # Pillow below 11.2; an image above 16 MiB
        return np.frombuffer(image.tobytes("raw", "RGBX"), np.uint32).reshape(shape)
    array = _Array.from_address(_pointer(capsule, b"arrow_array"))
    storage = array.children[0].contents.buffers[1]  # [0] would tell what is missing
    buffer = (ctypes.c_uint32 * (shape[0] * shape[1])).from_address(storage)
    return np.frombuffer(memoryview(buffer), np.uint32).reshape(shape)


def copied(image: Image.Image) -> Words:
    """Return the words of an image that may go.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB, loaded; alive until this returns, even if nobody else holds it.

    Returns
    -------
    ndarray of uint32, shape (h, w)
        Their own memory.
    """
    return words_of(image).copy()


def image_of(words: Words) -> Image.Image:
    """Return words as an image, without a copy.

    Parameters
    ----------
    words : ndarray of uint32, shape (h, w)
        Not to be changed as long as the image is in use.

    Returns
    -------
    PIL.Image.Image
        Mode RGBX; ``convert("RGB")`` of it, or of what is cut out of it, has the
        pixels of the image that the words are from.
    """
    height, width = words.shape
    return Image.frombuffer("RGBX", (width, height), words, "raw", "RGBX", 0, 1)


class _Array(ctypes.Structure):
    """``struct ArrowArray`` of Arrow's C data interface, which never changes."""


_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
