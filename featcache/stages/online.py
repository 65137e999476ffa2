"""The online path's parts: images, network and device of one training."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.core.catalog import architecture
from featcache.core.heads import initial_head
from featcache.core.manifest import SPLITS, TRAIN, VAL, Manifest
from featcache.core.progress import Progress
from featcache.core.specs import FinetuneSpec
from featcache.core.text import shown
from featcache.stages.sources import WeightsSource
from featcache.store.artifacts import Model

if TYPE_CHECKING:
    import torch

    from featcache.train.classifier import Classifier, Pixels
    from featcache.vision.loaders import Batch, Loader, Threads


@dataclass(frozen=True, eq=False)
class Counted:
    """Batches whose images are counted to a listener as they are taken.

    Parameters
    ----------
    batches : iterable of Batch
        What is given.
    progress : Progress
        Who hears of it.
    """

    batches: "Iterable[Batch]"
    progress: Progress

    def __iter__(self) -> "Iterator[Batch]":
        for batch in self.batches:
            yield batch
            self.progress.advance(len(batch[1]))


@dataclass(frozen=True, eq=False)
class OnlineParts:
    """What the training loop takes, made from what the user asked for.

    Parameters
    ----------
    manifest : Manifest
        The images.
    source : WeightsSource
        Where training starts; its view is used.
    spec : FinetuneSpec
        What is trained and how.
    device_name : str
        As the user typed it.
    threads : Threads
        Who decodes.
    progress : Progress
        Hears of every pass through images.
    """

    manifest: Manifest
    source: WeightsSource
    spec: FinetuneSpec
    device_name: str
    threads: "Threads"
    progress: Progress

    @cached_property
    def device(self) -> "torch.device":
        """Where the network is trained."""
        from featcache.vision.forward import pick_device

        return pick_device(self.device_name)

    @cached_property
    def classifier(self) -> "Classifier":
        """The network in training, on its device, in the layout that is fastest."""
        import torch

        from featcache.train.classifier import Classifier
        from featcache.vision.backbones import Backbone, network_of

        name, full = self.source.backbone, self.spec.full
        dim, classes = architecture(name).embed_dim, len(self.manifest.classes)
        backbone = (network_of if full else Backbone)(name, self.source.load())
        head = initial_head(classes, dim, seed=self.spec.seed)
        model = Classifier(backbone, head, full=full).to(self.device)
        return model.to(memory_format=torch.channels_last)

    def prepare(self, pixels: "Pixels") -> "torch.Tensor":
        """Return pixels as the network takes them.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (b, h, w, 3)
            RGB.

        Returns
        -------
        tensor of float32, shape (b, 3, h, w)
            Normalised, on the device, channels_last.
        """
        import torch

        from featcache.vision.views import normalise

        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        return normalise(images, self.source.view)

    def loader(self, split: str, batch_size: int = 0) -> "Loader | None":
        """Return the images of a split.

        Parameters
        ----------
        split : str
            ``train``, ``val`` or ``test``.
        batch_size : int
            0 for what is fastest where nothing is learned from a batch.

        Returns
        -------
        Loader or None
            None where the split has no image.
        """
        from featcache.vision.loaders import Loader

        rows = np.flatnonzero(self.manifest.splits == SPLITS.index(split))
        batch_size = batch_size or (8 if self.device.type == "cpu" else 64)
        loader = Loader(self.manifest, rows, self.source.view, batch_size, self.threads)
        return loader if len(loader) else None

    def check_images(self) -> None:
        """Decode every image once.

        Raises
        ------
        BadImagesError
            With all that cannot be used.
        """
        from featcache.vision.loaders import check_images

        loaders = [self.loader(split) for split in SPLITS]
        with self.reporting("check images", len(self.manifest)):
            check_images([x for x in loaders if x is not None], self.progress.advance)

    @contextmanager
    def reporting(self, task: str, images: int) -> Iterator[None]:
        """Tell the listener of the work inside.

        Parameters
        ----------
        task : str
            What is done.
        images : int
            To how many.

        Yields
        ------
        None
            To the work.
        """
        self.progress.begin(task, images, unit="image")
        try:
            yield
        finally:
            self.progress.end()

    def images_in(self, epoch: int) -> int:
        """Return how many images pass through the network in an epoch.

        Parameters
        ----------
        epoch : int
            From 0.

        Returns
        -------
        int
            Those of ``train``, and of ``val`` unless its features are known by now.
        """
        counts = np.bincount(self.manifest.splits, minlength=len(SPLITS))
        val = counts[VAL] if self.spec.full or epoch == 0 else 0
        return int(counts[TRAIN] + val)

    def train(self, epoch: int) -> "Iterable[Batch]":
        """Return the batches of an epoch: augmented, or of fixed views in its order.

        Parameters
        ----------
        epoch : int
            From 0.

        Returns
        -------
        iterable of Batch
            For one pass.
        """
        loader = self.loader("train", self.spec.batch_size)
        assert loader is not None
        batches = loader.augmented if self.spec.augment else loader.shuffled
        return Counted(batches(epoch, seed=self.spec.seed), self.progress)

    def val(self) -> "Iterable[Batch] | None":
        """Return the fixed batches of ``val``.

        Returns
        -------
        iterable of Batch or None
            Decoded now, if they will be gone through again and fit in memory.
        """
        loader = self.loader("val")
        if loader is None:
            return None
        batches: Iterable[Batch] = Counted(loader, self.progress)
        if self.spec.full and loader.small:  # a frozen backbone needs them only once
            with self.reporting("decode val", len(loader)):
                batches = Counted(list(batches), self.progress)
        return batches

    def accuracy(self, split: str) -> float | None:
        """Measure the classifier as it is on the fixed views of a split.

        Parameters
        ----------
        split : str
            ``train``, ``val`` or ``test``.

        Returns
        -------
        float or None
            None where the split has no image.
        """
        from featcache.train.classifier import measure

        loader = self.loader(split)
        if loader is None:
            return None
        with self.reporting(f"measure {split}", len(loader)):
            batches = Counted(loader, self.progress)
            return measure(self.classifier, batches, self.prepare).accuracy

    def model(self) -> Model:
        """Return the classifier as it is, as a model file holds it.

        Returns
        -------
        Model
            With the backbone's tensors if they were trained.
        """
        from featcache.vision.backbones import checked_state
        from featcache.vision.weights import state_sha256

        name, network = self.source.backbone, self.classifier.backbone
        if self.spec.full:
            state = checked_state(name, network.state_dict(), "the fine-tuned network")
            sha256, tuned = (
                state_sha256(state),
                {k: v.numpy() for k, v in state.items()},
            )
        else:
            sha256, tuned = str(network.weights_sha256), None
        return Model(
            head=self.classifier.linear_head(),
            classes=self.manifest.classes,
            view=self.source.view,
            backbone=name,
            weights_sha256=sha256,
            weights=self.source.name,
            state=tuned,
            report={},
        )

    def settings(self) -> dict[str, Any]:
        """Return what a person needs to do it again.

        Returns
        -------
        dict
            JSON data.
        """
        return {
            **asdict(self.spec),
            "data": shown(self.manifest.root),
            "backbone": self.source.backbone,
            "weights": self.source.name,
            "exif": self.source.view.exif,
            "device": str(self.device),
        }
