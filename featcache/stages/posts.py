"""Posts: what each worker process of an extraction is told, and where it works."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from featcache.core.machine import ALLOCATOR, CHILD, cores
from featcache.core.specs import FeatureSpec
from featcache.stages.jobs import Job
from featcache.stages.tasks import Setting
from featcache.store.ledger import SLOTS

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Post:
    """What outlives a worker's process, for the next one in its place.

    Parameters
    ----------
    place : str
        The device as this process names it: ``cuda:1``.
    job : Job
        What the worker is told first.
    slots : range
        Its lines of the ledger.
    tensors : bytes
        The weights, where the worker is not to read them from their file.
    """

    place: str
    job: Job
    slots: range
    tensors: bytes = field(default=b"", repr=False)

    def environment(self) -> dict[str, str]:
        """Return the environment of the worker's process.

        Returns
        -------
        dict of str to str
            In which a GPU is the only one, so that nothing is kept on another.
        """
        found = {**ALLOCATOR, **os.environ}
        found.pop(CHILD, None)
        if self.place.startswith("cuda:"):
            number = int(self.place.removeprefix("cuda:"))
            visible = [name for name in found.get(_VISIBLE, "").split(",") if name]
            found[_VISIBLE] = visible[number].strip() if visible else str(number)
        return found


def assign(
    devices: Sequence[str],
    setting: Setting,
    wanted: FeatureSpec,
    tensors: bytes = b"",
) -> list[Post]:
    """Divide the work between devices.

    Parameters
    ----------
    devices : sequence of str
        As `featcache.stages.devices.device_list` gives them.
    setting : Setting
        What to compute; its workers are divided, and each device has at least one.
    wanted : FeatureSpec
        The features' identity.
    tensors : bytes
        The weights, as `featcache.vision.weights.packed` gives them; without them,
        each process reads the file.

    Returns
    -------
    list of Post
        One for each device.
    """
    number, source = len(devices), setting.source
    slots = SLOTS // number
    found = []
    for index, device in enumerate(devices):
        gpu = device.startswith("cuda:")
        threads = ((setting.workers or cores()) + index) // number or 1
        if gpu and not setting.workers:
            from featcache.vision.cuda import LANES  # imports torch

            threads += LANES  # that wait there: as many more keep the cores decoding
        job = Job(
            backbone=source.backbone,
            weights=None if source.file is None else str(source.file.absolute()),
            seed=source.seed,
            weights_sha256=wanted.weights_sha256,
            view=wanted.view.to_json(),
            layer=wanted.layer,
            precision=setting.precision,
            dtype=wanted.dtype,
            device="cuda" if gpu else device,  # the only one that it sees
            batch_size=setting.batch_size,
            threads=threads,
            expected=setting.expected // number,
            views=wanted.views,
            augment=wanted.augment.to_json(),
            shipped=len(tensors),
        )
        place = device if gpu else f"{device} {index + 1}"
        own = range(index * slots, (index + 1) * slots)
        found.append(Post(place, job, own, tensors))
    return found
