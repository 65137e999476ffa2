"""What a stage has to tell when it is done; field names are the JSON keys."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from featcache.core.displays import Displayed, Told, titled, worded
from featcache.core.errors import BadImage


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training."""

    epoch: int  # from 1, as people count
    lr: float
    train_loss: float  # nats; mean over the epoch, while the weights moved
    train_accuracy: float
    val_loss: float | None  # None where there is no val split
    val_accuracy: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Report(Displayed):
    """Base of the reports: plain data."""

    _SHOWN: ClassVar[tuple[str, ...]] = ()  # fields that repr shows; none: all

    def _told(self) -> Told:
        hidden = {f.name for f in fields(self) if f.metadata.get("hidden")}
        for name in self._SHOWN or [f.name for f in fields(self)]:
            if name not in hidden and not name.endswith("_interval"):
                ends = getattr(self, f"{name}_interval", None)
                yield titled(name), worded(name, getattr(self, name), ends)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data, paths as text.

        Returns
        -------
        dict
            The fields in order.
        """
        return {
            f.name: _plain(getattr(self, f.name))
            for f in fields(self)
            if not f.metadata.get("hidden")
            and not (
                f.metadata.get("only_if_set") and getattr(self, f.name) in (None, ())
            )
        }


def _only_if_set(default: Any = None) -> Any:  # noqa: ANN401
    """Return a field that JSON does not have where it is None or empty."""
    return field(default=default, metadata={"only_if_set": True})


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


@dataclass(frozen=True, kw_only=True)
class ExtractReport(Report):
    """What `extract` did."""

    _SHOWN = (
        *("cache", "images", "computed", "reused", "skipped", "classes"),
        *("embed_dim", "map_shape", "views", "seconds", "bottleneck", "bad_images"),
    )

    cache: Path
    shard: str | None = _only_if_set()  # I/N, if this is one of several parts
    images: int  # rows of the cache
    computed: int  # images that went through the backbone in this run
    reused: int  # rows that were there before
    skipped: int  # images that could not be read; they have no feature
    duplicates: int = 0  # images whose bytes stand in an earlier row, too
    embed_dim: int
    map_shape: tuple[int, int, int] | None = _only_if_set()  # (c, h, w), if maps
    views: int | None = _only_if_set()  # of each training image, if more than one
    classes: int
    fingerprint: str
    seconds: float
    images_per_second: float  # computed, from the first image to the last
    pieces: Mapping[str, str] = field(default_factory=dict)  # implementations used
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds, all threads
    busy: tuple[float, ...] = ()  # share of a core's time, per thread
    bottleneck: str = ""  # what limited the speed, and what would help
    bad_images: tuple[BadImage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HeadRecord:
    """One of the heads that were compared: its settings, and its best epoch."""

    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    step_size: int
    gamma: float
    standardize: str
    best_epoch: int | None  # from 1; None where the head was given up
    accuracy: float | None  # on what the choice was made on
    loss: float | None  # nats, likewise
    diverged: int | None = None  # epoch in which the loss stopped being finite


@dataclass(frozen=True, kw_only=True)
class TrainReport(Report):
    """What `fit_head` or `finetune` reached."""

    _SHOWN = (
        *("model", "solver", "epochs", "best_epoch", "shots", "views", "chosen"),
        *("fitted_on", "train_accuracy", "val_accuracy", "val_loss", "val_ece"),
        *("test_accuracy", "test_loss", "skipped", "seconds"),
    )

    model: Path
    solver: str
    epochs: int
    best_epoch: int  # from 1; its weights are the ones kept
    train_accuracy: float  # of the kept weights; of knn by leaving each image out
    val_accuracy: float | None
    val_loss: float | None  # mean log loss, in nats
    val_accuracy_interval: tuple[float, float] | None = _only_if_set()  # 95 %, Wilson's
    val_mean_per_class_recall: float | None = _only_if_set()
    val_ece: float | None = _only_if_set()  # expected calibration error, 15 bins
    test_accuracy: float | None = None  # measured once, at the end
    test_loss: float | None = _only_if_set()
    test_accuracy_interval: tuple[float, float] | None = _only_if_set()
    test_mean_per_class_recall: float | None = _only_if_set()
    test_ece: float | None = _only_if_set()
    skipped: int = 0  # rows of the cache without a feature; they take no part
    shots: int | None = _only_if_set()  # training images per class, if not all
    views: int | None = _only_if_set()  # drawn from, where the cache has several
    # What a solver chose on training images, such as chosen_C.
    chosen: Mapping[str, float] | None = _only_if_set()
    # Where heads were compared: on val, or on a part of train.
    select_on: str | None = _only_if_set()
    # "train and val" after a refit: the val numbers are those of the head before it.
    fitted_on: str | None = _only_if_set()
    val_accuracies: tuple[float, ...] = _only_if_set(())  # one per seed
    val_accuracy_mean: float | None = _only_if_set()
    val_accuracy_std: float | None = _only_if_set()  # with n - 1, of one seed's
    heads: tuple[HeadRecord, ...] = _only_if_set(())  # best first
    batch_norm: str | None = _only_if_set()  # online: whose statistics moved
    images_per_second: float | None = _only_if_set()  # online: trained on, val left out
    seconds: float
    history: tuple[EpochRecord, ...] = field(default=(), metadata={"hidden": True})
