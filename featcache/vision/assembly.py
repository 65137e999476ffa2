"""Assembly: the fastest exact pieces of this machine, put together."""

from featcache.core.clock import Clock
from featcache.core.machine import cores
from featcache.core.specs import AugmentSpec, Precision, ViewSpec
from featcache.core.view_specs import TUTORIAL
from featcache.vision import forward
from featcache.vision.backbones import Backbone
from featcache.vision.cuda import LANES, CudaEmbedder
from featcache.vision.pipeline import Extractor
from featcache.vision.viewer import Viewer

MANY = 1_000_000  # images


def assemble(  # noqa: PLR0913 - settings, all named
    backbone: Backbone,
    view: ViewSpec,
    *,
    device: str,
    precision: Precision,
    batch_size: int = 0,
    expected: int | None = None,
    clock: Clock | None = None,
    augment: AugmentSpec = TUTORIAL,
) -> Extractor:
    """Return what turns image files into features on a device.

    Parameters
    ----------
    backbone : Backbone
        float32, on the CPU; moved to the device if that is another.
    view : ViewSpec
        Crop and normalisation.
    device : str
        See `featcache.vision.forward.pick_device`.
    precision : {"float32", "bfloat16"}
        Of the network's arithmetic.
    batch_size : int
        Images in one forward pass; 0 for what suits the device.
    expected : int, optional
        Images to come, for what pays in long runs only; very many, if nobody knows.
    clock : Clock, optional
        Hears how long each stage takes.
    augment : AugmentSpec
        How views beyond the first are drawn.

    Returns
    -------
    Extractor
        Its pieces say what is used, and why if it is not the fastest.

    Raises
    ------
    DeviceError
        When there is no such device, it has too little memory, or it cannot decode
        as the view wants.
    """
    place = forward.pick_device(device)
    batch_size = batch_size or forward.default_batch_size(place)
    embed = forward.embedder(
        backbone,
        view,
        device=place,
        precision=precision,
        batch_size=batch_size,
        expected=MANY if expected is None else expected,
    )
    viewer, embed_files = None, None
    pieces = {"forward": embed.description}
    if isinstance(embed, CudaEmbedder) and view.decoder == "nvjpeg":
        pieces["decode"] = "nvJPEG; Pillow where the file is no ordinary JPEG"
        embed_files = embed.embed_files
    else:
        viewer = Viewer.fastest(view, expected)
        pieces |= viewer.description
    return Extractor(
        embed,
        view,
        batch_size,
        pieces=pieces,
        clock=clock or Clock(),
        device=place.type,
        viewer=viewer,
        embed_files=embed_files,
        # Threads in the lanes wait: as many more keep the cores decoding.
        workers=cores() + (LANES if place.type == "cuda" else 0),
        augment=augment,
    )
