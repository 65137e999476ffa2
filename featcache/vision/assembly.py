"""Assembly: the fastest exact pieces of this machine, put together."""

from featcache.core.clock import Clock
from featcache.core.specs import Precision, ViewSpec
from featcache.vision import forward
from featcache.vision.backbones import Backbone
from featcache.vision.pipeline import Extractor


def assemble(
    backbone: Backbone,
    view: ViewSpec,
    *,
    device: str,
    precision: Precision,
    batch_size: int = 0,
    clock: Clock | None = None,
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
    clock : Clock, optional
        Hears how long each stage takes.

    Returns
    -------
    Extractor
        Its pieces say what is used, and why if it is not the fastest.

    Raises
    ------
    DeviceError
        When there is no such device.
    """
    place = forward.pick_device(device)
    batch_size = batch_size or (8 if place.type == "cpu" else 64)
    embed = forward.embedder(
        backbone, view, device=place, precision=precision, batch_size=batch_size
    )
    return Extractor(
        embed,
        view,
        batch_size,
        pieces={"forward": embed.description},
        clock=clock or Clock(),
        device=place.type,
    )
