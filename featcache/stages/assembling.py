"""The parts of a training, put together from images or from a cache of maps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featcache.core.catalog import IMAGENET
from featcache.core.errors import DataError
from featcache.core.manifest import SPLITS, TRAIN, Manifest
from featcache.core.progress import Progress
from featcache.core.text import plural, shown
from featcache.stages.datasets import data_source
from featcache.stages.feeds import ImageFeed
from featcache.stages.map_feeds import MapFeed
from featcache.stages.online import OnlineParts
from featcache.stages.online_network import OnlineNetwork
from featcache.stages.origins import Origin
from featcache.stages.recipe import Request, images_digest
from featcache.stages.sources import RANDOM, WeightsSource, find_weights
from featcache.stages.start_heads import start_head
from featcache.store.maps import StoredMaps, require_maps
from featcache.store.opening import open_cache

if TYPE_CHECKING:
    import torch

    from featcache.train.ranks import Ranks
    from featcache.vision.pixels import Images
    from featcache.vision.threads import Threads
    from featcache.vision.weights import State

_AT_ONCE = 64  # images on a GPU where nothing is learned from them


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a training takes place in.

    Parameters
    ----------
    device : torch.device
        Where the network is trained.
    threads : Threads
        Who reads images.
    ranks : Ranks
        With whom.
    folder : Path
        Of the run; decoded images may lie there meanwhile.
    progress : Progress
        Hears of it.
    """

    device: "torch.device"
    threads: "Threads"
    ranks: "Ranks"
    folder: Path
    progress: Progress

    @property
    def share(self) -> tuple[int, int]:
        """Number of the process, from 0, and how many there are."""
        return self.ranks.rank, self.ranks.count


@contextmanager
def assemble(request: Request, here: Surroundings) -> Iterator[OnlineParts]:
    """Put together what a training consists of.

    Parameters
    ----------
    request : Request
        What was asked for.
    here : Surroundings
        Where it takes place.

    Yields
    ------
    OnlineParts
        Whose images are let go of afterwards.

    Raises
    ------
    BadImagesError
        When images cannot be used; names all of them.
    CacheMismatchError
        When the cache's maps are not those of the network.
    """
    if request.from_cache is not None:
        yield _from_maps(request, request.from_cache, here)
        return
    with here.ranks.main_first():  # whichever has to be fetched is fetched once
        source = find_weights(
            request.backbone,
            RANDOM if request.spec.from_scratch else request.weights or IMAGENET,
            exif=request.exif,
            seed=request.spec.seed,
            progress=here.progress,
        )
        data = data_source(
            request.data,
            progress=here.progress,
            use_cut=request.on_error == "skip",
        )
    manifest = data.scan()
    here.progress.say(manifest.describe())
    # Before the images are decoded: a head that does not fit is known at once.
    network = _network(request, source, source.load(), manifest.classes, here)
    with _images(request, manifest, source, here) as images:
        if images.bad:
            here.progress.say(f"left out: {plural(len(images.bad), 'bad image')}")
        _require_train(images.manifest.splits[images.rows], shown(data.address))
        yield OnlineParts(
            request=request,
            classes=manifest.classes,
            feed=_image_feed(images, network, here),
            network=network,
            ranks=here.ranks,
            progress=here.progress,
            data=data.address,
            kept=images.description,
            bad_images=images.bad,
        )


def _from_maps(request: Request, place: str, here: Surroundings) -> OnlineParts:
    """Return the parts of a training on the maps of a cache."""
    table = open_cache(place)
    require_maps(table, request.spec.unfreeze)
    with here.ranks.main_first():
        source, state = Origin(weights=request.weights).state(table, here.progress)
    source = replace(source, view=table.spec.view)
    maps = {split: StoredMaps(table, split) for split in SPLITS}
    used = np.sort(np.concatenate([m.sample_index for m in maps.values()]))
    _require_train(table.splits[used], shown(table.path))
    network = _network(request, source, state, table.classes, here, cached=True)
    here.progress.say(
        f"{plural(len(used), 'map')} of {table.spec.layer} from "
        f"{shown(table.path.name)}, not augmented"
    )
    return OnlineParts(
        request=request,
        classes=table.classes,
        feed=MapFeed(
            {split: m for split, m in maps.items() if len(m)},
            network,
            here.share,
            here.progress,
            {
                "images": images_digest(table.columns, used),
                "image_count": len(used),
                "cache": table.fingerprint,
            },
        ),
        network=network,
        ranks=here.ranks,
        progress=here.progress,
        data=str(table.provenance.get("data", "")),
        kept="maps of a cache",
    )


def _require_train(splits: npt.NDArray[np.uint8], where: str) -> None:
    if not (splits == TRAIN).any():
        raise DataError(
            f"no usable training image in {where}: mend the images that cannot be "
            "used, or name another folder"
        )


def _network(
    request: Request,
    source: WeightsSource,
    state: "State",
    classes: tuple[str, ...],
    here: Surroundings,
    *,
    cached: bool = False,
) -> OnlineNetwork:
    from featcache.vision.weights import state_sha256

    sha256 = state_sha256(state)
    start = start_head(request, source, sha256, classes)
    return OnlineNetwork(
        source, state, sha256, request.spec, start, here.device, cached
    )


@contextmanager
def _images(
    request: Request, manifest: Manifest, source: WeightsSource, here: Surroundings
) -> "Iterator[Images]":
    """Decode every image once; all processes fail over a bad one together."""
    from featcache.vision.pixels import load_images

    spec, progress = request.spec, here.progress
    progress.begin("decode", len(manifest), unit="image")
    try:
        with here.ranks.agreeing():
            images = load_images(
                manifest,
                np.arange(len(manifest)),
                source.view,
                threads=here.threads,
                folder=here.folder,
                store=spec.store,
                size=spec.store_size,
                on_error=request.on_error,
                tick=progress.advance,
                share=here.ranks.local_count,
            )
    finally:
        progress.end()
    with images:
        yield images


def _image_feed(
    images: "Images", network: OnlineNetwork, here: Surroundings
) -> ImageFeed:
    from featcache.vision.loaders import Loader

    splits = images.manifest.splits[images.rows]
    loaders = {}
    for number, split in enumerate(SPLITS):
        rows = images.rows[splits == number]
        size = network.spec.batch_size if number == TRAIN else _AT_ONCE
        if len(rows):
            loaders[split] = Loader(
                images, rows, size, here.threads, here.share, here.device.type != "cpu"
            )
    return ImageFeed(loaders, network, here.threads, here.progress)
