"""The online path's parts: what is fed, what is trained, from where, with whom."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.core.errors import BadImage, TrainingError
from featcache.core.finetune_spec import FinetuneSpec
from featcache.core.progress import Progress
from featcache.stages.feeds import Feed, ImageFeed
from featcache.stages.measuring import Measured, measure_scores
from featcache.stages.online_network import OnlineNetwork
from featcache.stages.recipe import Request, head_digest, spec_fields
from featcache.store.artifacts import Model

if TYPE_CHECKING:
    from featcache.train.loop import Trainer
    from featcache.train.ranks import Ranks


@dataclass(frozen=True, eq=False)
class OnlineParts:
    """What a training consists of.

    Parameters
    ----------
    request : Request
        What was asked for.
    classes : tuple of str
        Their names.
    feed : Feed
        What the loop is given.
    network : OnlineNetwork
        What is trained.
    ranks : Ranks
        With whom.
    progress : Progress
        Hears of it.
    data : str
        The images' folder.
    kept : str
        Where decoded images wait for the next epoch, for people.
    bad_images : tuple of BadImage
        Left out.
    """

    request: Request
    classes: tuple[str, ...]
    feed: Feed
    network: OnlineNetwork
    ranks: "Ranks"
    progress: Progress
    data: str
    kept: str = ""
    bad_images: tuple[BadImage, ...] = ()

    @property
    def spec(self) -> FinetuneSpec:
        """The settings."""
        return self.request.spec

    @cached_property
    def described(self) -> dict[str, Any]:
        """What a checkpoint says of the training: request, and recipe to compare."""
        source = self.network.source
        recipe = {
            **spec_fields(self.spec),
            **self.feed.identity,
            "classes": list(self.classes),
            "backbone": source.backbone,
            "weights_sha256": self.network.weights_sha256,
            "view": source.view.to_json(),
            "head": head_digest(self.network.start),
        }
        return {**self.request.to_json(), "recipe": recipe}

    def without(self, bad: Sequence[BadImage]) -> "OnlineParts":
        """Return the parts without images that were damaged while it trained.

        Parameters
        ----------
        bad : sequence of BadImage
            From an error of the feed.

        Returns
        -------
        OnlineParts
            With the same network.

        Raises
        ------
        TrainingError
            When no image is left to train on.
        """
        assert isinstance(self.feed, ImageFeed)
        feed = self.feed.without({image.path for image in bad})
        if not feed.count("train"):
            raise TrainingError("every training image has been damaged by now")
        return replace(self, feed=feed, bad_images=(*self.bad_images, *bad))

    def trainer(self) -> "Trainer":
        """Return what trains, before its first epoch.

        Returns
        -------
        Trainer
            Of the network's classifier.
        """
        from featcache.train.loop import Trainer

        return Trainer(
            self.network.classifier,
            self.spec,
            self.network.prepare,
            images=self.feed.count("train"),
            ranks=self.ranks,
        )

    @contextmanager
    def reporting(self, task: str, *splits: str) -> Iterator[None]:
        """Tell the listener of the work inside.

        Parameters
        ----------
        task : str
            What is done.
        *splits : str
            To the images of which parts.

        Yields
        ------
        None
            To the work.
        """
        images = sum(map(self.feed.passing, splits))
        if not images:
            yield
            return
        self.progress.begin(task, images, unit="image")
        try:
            yield
        finally:
            self.progress.end()

    def measure(self, split: str) -> Measured | None:
        """Measure the classifier as it is on the fixed views of a split.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Which part; of all processes together, each image once.

        Returns
        -------
        Measured or None
            None where the split has no image.

        Raises
        ------
        TrainingError
            When a score is not finite.
        """
        if not self.feed.count(split):
            return None
        said = list(self.feed.scores(split))
        scores = np.concatenate([s for s, _ in said] or [self._nothing])
        labels = np.concatenate([y for _, y in said] or [np.empty(0, np.int32)])
        parts = [self.ranks.gather(array) for array in (scores, labels)]
        scores, labels = map(np.concatenate, parts)
        if not np.isfinite(scores).all():
            raise TrainingError(
                "the trained weights give scores that are not finite; try a smaller lr"
            )
        return measure_scores(scores, labels)

    @property
    def _nothing(self) -> Any:  # noqa: ANN401
        return np.empty((0, len(self.classes)), np.float32)

    def model(self) -> Model:
        """Return the classifier as it is, as a model file holds it.

        Returns
        -------
        Model
            With the backbone's tensors if they were trained.
        """
        return self.network.model(self.classes)

    def settings(self) -> dict[str, Any]:
        """Return what a person needs to do it again.

        Returns
        -------
        dict
            JSON data.
        """
        request, source = self.request.to_json(), self.network.source
        spec = request.pop("spec")
        if self.network.cached:  # nothing is augmented, and no image is kept
            spec |= {"augment": False, "store": "off"}
        return {
            **spec,
            **request,
            "data": self.data,
            "backbone": source.backbone,
            "weights": source.name,
            "exif": source.view.exif,
            "device": str(self.network.device),
            "processes": self.ranks.count,
            "images_kept": self.kept,
        }
