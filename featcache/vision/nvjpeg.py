"""JPEG files to views on a GPU: nvJPEG decodes them, torch resizes and crops them.

The pixels differ by a few levels from Pillow's, so this is another view with an
identity of its own. What nvJPEG is not made for, and what it refuses, Pillow decodes:
which of the two it is depends on the file alone.
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg

from featcache.core.errors import DeviceError
from featcache.core.specs import Exif, ViewSpec
from featcache.core.status import UnusableImageError
from featcache.vision.decode import decode_view
from featcache.vision.views import center_box, resized_size

# Pixels that are decoded at once, and the most that an image may have: 100 MB as
# bytes, and one image of them takes 400 MB while it is resized.
_AT_ONCE = 1 << 25
_ORIENTATION = 0x0112  # EXIF tag; 2 to 8 are turned
_YCBCR = 1  # Adobe's number for the usual colours
_CLOSE = 4.0  # levels of 255, in the mean; what the self-test allows to Pillow's pixels


class JpegViews:
    """Image files to views on a device; several threads may call it at once.

    Parameters
    ----------
    view : ViewSpec
        Resize, crop and EXIF policy.
    device : torch.device
        A CUDA device with its number; the CPU serves for tests.
    """

    def __init__(self, view: ViewSpec, device: torch.device) -> None:
        self._view = view
        self._device = device

    def __call__(
        self, files: Sequence[bytes], out: Tensor
    ) -> dict[int, UnusableImageError]:
        """Decode, resize and crop image files.

        Parameters
        ----------
        files : sequence of bytes
            n image files of any format.
        out : tensor of uint8, shape (n, crop, crop, 3)
            On the device; filled in place, but for files that cannot be used. On CUDA
            the work is the current stream's.

        Returns
        -------
        dict of int to UnusableImageError
            Why a file cannot be used, by row; Pillow's verdict.
        """
        sizes = {row: self._size(data) for row, data in enumerate(files)}
        left = [row for row, size in sizes.items() if size is None]
        for rows in _groups({row: size for row, size in sizes.items() if size}):
            images = self._decoded([files[row] for row in rows])
            for row, image in zip(rows, images, strict=True):
                width, height = sizes[row] or (0, 0)
                if image is None or image.shape != (3, height, width):
                    left.append(row)
                else:
                    out[row].copy_(rendered(image, self._view))
        return self._by_pillow(files, left, out)

    def _size(self, data: bytes) -> tuple[int, int] | None:
        """Return the size of a file for nvJPEG, or None if Pillow is to decode it."""
        size = plain_jpeg_size(data, self._view.exif)
        if size is None:
            return None
        width, height = resized_size(*size, self._view.resize)
        largest = max(size[0] * size[1], width * height)
        return size if largest <= _AT_ONCE else None

    def _decoded(self, files: Sequence[bytes]) -> list[Tensor | None]:
        """Return images (3, h, w) in uint8; None for what nvJPEG refuses."""
        if self._device.type == "cuda":
            # torchvision decodes on a stream of its own into memory taken for ours,
            # without waiting for what ours still does with that memory.
            torch.cuda.current_stream(self._device).synchronize()
        try:
            return [*decoded(files, self._device)]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # that stream may still write
        if len(files) == 1:
            return [None]
        return [self._decoded([file])[0] for file in files]

    def prove(self) -> None:
        """Compare with Pillow on a small picture.

        Raises
        ------
        DeviceError
            When this torchvision cannot decode on the device, or decodes another
            picture.
        """
        data = _sample()
        try:
            found = rendered(decoded([data], self._device)[0], self._view)
        except RuntimeError as error:
            reason = str(error).split("\n", 1)[0]
            raise DeviceError(
                f"this torchvision cannot decode JPEG on {self._device} ({reason}); "
                "install a CUDA build of it, or make the features with --decode cpu"
            ) from error
        expected = decode_view(data, self._view).astype(np.float32)
        off = float(np.abs(found.cpu().numpy() - expected).mean())
        if not off <= _CLOSE:
            raise DeviceError(
                f"pixels decoded on {self._device} are {off:.1f} levels off Pillow's, "
                f"above {_CLOSE:g}; make the features with --decode cpu"
            )

    def _by_pillow(
        self, files: Sequence[bytes], rows: Sequence[int], out: Tensor
    ) -> dict[int, UnusableImageError]:
        reasons = {}
        for row in rows:
            try:
                pixels = decode_view(files[row], self._view)
            except UnusableImageError as reason:
                reasons[row] = reason
            else:
                out[row].copy_(torch.from_numpy(np.array(pixels)))
        return reasons


def plain_jpeg_size(data: bytes, exif: Exif) -> tuple[int, int] | None:
    """Return the size of an ordinary JPEG file that is upright.

    Ordinary is what every decoder reads as the same picture: grey or YCbCr, 8 bits,
    not cut off. Only the header is read.

    Parameters
    ----------
    data : bytes
        A file.
    exif : {"apply", "ignore"}
        Whether a camera's rotation makes it another case.

    Returns
    -------
    (int, int) or None
        Width and height; None for every other file, whatever it is.
    """
    # nvJPEG may take a file without an end for whole, which Pillow does not.
    if not data[-4096:].rstrip(b"\0").endswith(b"\xff\xd9"):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            size, mode, info = image.size, image.mode, image.info
            components = bytes(layer[0] for layer in getattr(image, "layer", ()))
            turn = image.getexif().get(_ORIENTATION, 1) if exif == "apply" else 1
    except Exception:  # of whatever kind: Pillow's decoder will tell it again
        return None
    usual = info.get("adobe_transform", _YCBCR) == _YCBCR and components != b"RGB"
    plain = mode == "L" or (mode == "RGB" and usual)
    return size if plain and turn not in range(2, 9) else None


def decoded(files: Sequence[bytes], device: torch.device) -> list[Tensor]:
    """Decode JPEG files on a device.

    Parameters
    ----------
    files : sequence of bytes
        n files.
    device : torch.device
        With nvJPEG on CUDA, with libjpeg on the CPU.

    Returns
    -------
    list of tensor of uint8, each of shape (3, height, width)
        RGB, n of them.

    Raises
    ------
    RuntimeError
        torchvision's, when one of them is refused.
    """
    data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    images: list[Tensor] = decode_jpeg(data, ImageReadMode.RGB, device)
    return images


def rendered(image: Tensor, view: ViewSpec) -> Tensor:
    """Return the view of an image.

    Parameters
    ----------
    image : tensor of uint8, shape (3, height, width)
        RGB.
    view : ViewSpec
        Resize and crop.

    Returns
    -------
    tensor of uint8, shape (crop, crop, 3)
        Within a few levels of `featcache.vision.views.render`, which rounds twice.
    """
    height, width = image.shape[1:]
    size = resized_size(width, height, view.resize)
    left, upper, right, lower = center_box(*size, view.crop)
    if size != (width, height):
        floats = image[None].to(torch.float32)
        resized = interpolate(
            floats, (size[1], size[0]), mode="bilinear", antialias=True
        )
        cut = resized[0, :, upper:lower, left:right]
        # A mean with positive weights: what is rounded lies between 0 and 255.
        return cut.round().to(torch.uint8).permute(1, 2, 0)
    return image[:, upper:lower, left:right].permute(1, 2, 0)


def jpeg_views(view: ViewSpec, device: torch.device) -> JpegViews:
    """Return what decodes files on a GPU, after it has proved itself there.

    Parameters
    ----------
    view : ViewSpec
        Whose decoder is nvJPEG.
    device : torch.device
        Where the network runs.

    Returns
    -------
    JpegViews
        For that device.

    Raises
    ------
    DeviceError
        When that is no CUDA device, or this torchvision cannot use nvJPEG there.
    """
    if device.type != "cuda":
        raise DeviceError(
            f"nvJPEG decodes on a CUDA device, but the device is {device}; pass "
            "--device cuda where there is one, or make the features with --decode cpu"
        )
    views = JpegViews(view, device)
    views.prove()
    return views


def _sample() -> bytes:
    """Return a JPEG file of 64 x 48 pixels, all colours from corner to corner."""
    y, x = np.mgrid[0:48, 0:64]
    colours = np.stack([4 * x, 5 * y, 255 - 2 * (x + y)], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _groups(sizes: dict[int, tuple[int, int]]) -> Iterator[list[int]]:
    """Yield rows, as many at once as memory is meant for."""
    rows: list[int] = []
    pixels = 0
    for row, (width, height) in sizes.items():
        if rows and pixels + width * height > _AT_ONCE:
            yield rows
            rows, pixels = [], 0
        rows.append(row)
        pixels += width * height
    if rows:
        yield rows
