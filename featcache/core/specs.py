"""Settings. Each is one line: default, unit, when to change it.

The command line reads its defaults from here and the values are checked here, so
there is one place to look.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from featcache.core.catalog import PublishedWeights
from featcache.core.checks import (
    AT_LEAST_1,
    BELOW_1,
    COUNT,
    FINITE,
    NOT_NEGATIVE,
    POSITIVE,
    SHA256,
    SHARE,
    TEXT,
    Rule,
    each,
    one_of,
    require,
)
from featcache.core.errors import SpecError
from featcache.core.fingerprint import fingerprint
from featcache.core.text import shown

Precision = Literal["float32", "bfloat16"]
FeatureDtype = Literal["float32", "float16"]
OnError = Literal["stop", "skip"]
Exif = Literal["apply", "ignore"]

FORMAT_VERSION = 1  # of the cache file; part of its identity

_LARGEST = 4096  # pixels; a model from elsewhere must not ask for all memory
_PIXELS = Rule(
    f"a whole number from 1 to {_LARGEST}",
    lambda v: AT_LEAST_1.holds(v) and v <= _LARGEST,
)


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """One deterministic crop of an image: every field changes pixels.

    The defaults are torchvision's validation transform of the first ImageNet weights.
    """

    resize: int = 256  # pixels of the shorter side
    crop: int = 224  # pixels of the centre square
    interpolation: Literal["bilinear"] = "bilinear"
    antialias: Literal[True] = True
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    exif: Exif = "apply"  # ignore: torchvision's ImageFolder shows camera rotation
    alpha: Literal["drop"] = "drop"  # as Pillow's convert("RGB")
    sixteen_bit: Literal["scale"] = "scale"  # to 8 bits: round(v / 257)

    def __post_init__(self) -> None:
        require(
            self,
            resize=_PIXELS,
            crop=_PIXELS,
            interpolation=one_of("bilinear"),
            antialias=one_of(True),
            mean=each(FINITE, 3),
            std=each(POSITIVE, 3),
            exif=one_of("apply", "ignore"),
            alpha=one_of("drop"),
            sixteen_bit=one_of("scale"),
        )
        expected = f"at most resize ({self.resize})"
        require(self, crop=Rule(expected, lambda v: v <= self.resize))

    @classmethod
    def of(cls, weights: PublishedWeights, exif: Exif = "apply") -> "ViewSpec":
        """Return the validation view of published weights.

        Parameters
        ----------
        weights : PublishedWeights
            Row of the catalog.
        exif : {"apply", "ignore"}
            Whether an image is turned as its camera says.

        Returns
        -------
        ViewSpec
            What ``weights.transforms()`` does in torchvision.
        """
        return cls(resize=weights.resize, exif=exif)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "ViewSpec":
        """Return the view that `dataclasses.asdict` wrote.

        Parameters
        ----------
        fields : mapping
            Names and values as JSON has them.

        Returns
        -------
        ViewSpec
            Equal to the one written.

        Raises
        ------
        SpecError
            When the fields are not those of a view.
        """
        try:
            lists = {k: tuple(fields[k]) for k in ("mean", "std")}
            return cls(**{**fields, **lists})
        except (KeyError, TypeError) as error:
            raise SpecError(f"not a view: {_words(error)}") from None


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Everything that decides a feature's bits: the identity of a cache."""

    backbone: str  # name in the catalog
    weights_sha256: str  # of the backbone's tensors
    view: ViewSpec
    layer: Literal["avgpool"] = "avgpool"
    precision: Precision = "float32"  # of the forward pass
    dtype: FeatureDtype = "float32"  # of the stored features

    def __post_init__(self) -> None:
        require(
            self,
            backbone=TEXT,
            weights_sha256=SHA256,
            view=Rule("a ViewSpec", lambda v: isinstance(v, ViewSpec)),
            layer=one_of("avgpool"),
            precision=one_of("float32", "bfloat16"),
            dtype=one_of("float32", "float16"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain data, format version included.

        Returns
        -------
        dict
            What `fingerprint` is taken of.
        """
        fields = asdict(self)
        for name in ("mean", "std"):  # 0 and 0.0 are one number, but two JSON texts
            fields["view"][name] = [float(v) for v in fields["view"][name]]
        return {"format_version": FORMAT_VERSION, **fields}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "FeatureSpec":
        """Return the spec that `to_json` wrote.

        Parameters
        ----------
        fields : mapping
            Names and values as JSON has them.

        Returns
        -------
        FeatureSpec
            Equal to the one written.

        Raises
        ------
        SpecError
            When the fields are not those of a feature spec.
        """
        try:
            rest = {**fields}
            rest.pop("format_version", None)
            return cls(view=ViewSpec.from_json(rest.pop("view")), **rest)
        except (KeyError, TypeError) as error:
            raise SpecError(f"not a feature spec: {_words(error)}") from None

    @property
    def fingerprint(self) -> str:
        """The sha256 of the spec, 64 hex digits."""
        return fingerprint(self.to_json())


@dataclass(frozen=True, kw_only=True)
class ExtractSpec:
    """How features are computed; nothing here changes what they are."""

    device: str = "auto"  # auto: CUDA where there is one
    batch_size: int = 0  # images in one forward pass; 0: 8 on a CPU, 64 on a GPU
    workers: int = 0  # threads; 0: one per core
    on_error: OnError = "stop"  # skip: go on without the images that cannot be read
    rehash: bool = False  # read every file again instead of trusting size and mtime
    overwrite: bool = False  # replace a cache that was made with other settings
    wait: bool = False  # for another process that writes the same cache

    def __post_init__(self) -> None:
        require(self, batch_size=COUNT, workers=COUNT, on_error=one_of("stop", "skip"))


@dataclass(frozen=True, kw_only=True)
class SgdSpec:
    """SGD with momentum and StepLR, the classic tutorial's numbers as defaults."""

    lr: float = 0.001  # learning rate at the start
    momentum: float = 0.9
    weight_decay: float = 0.0  # L2 penalty, on weight and bias as torch has it
    epochs: int = 25
    batch_size: int = 4
    step_size: int = 7  # epochs between two drops of the learning rate
    gamma: float = 0.1  # factor of each drop
    seed: int = 0  # of the initial weights and the order of the samples

    def __post_init__(self) -> None:
        require(
            self,
            lr=POSITIVE,
            momentum=BELOW_1,
            weight_decay=NOT_NEGATIVE,
            epochs=AT_LEAST_1,
            batch_size=AT_LEAST_1,
            step_size=AT_LEAST_1,
            gamma=POSITIVE,
            seed=COUNT,
        )

    def lr_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch (StepLR).

        Parameters
        ----------
        epoch : int
            From 0.

        Returns
        -------
        float
            ``lr * gamma ** (epoch // step_size)``; infinite where that overflows.
        """
        try:
            return self.lr * self.gamma ** (epoch // self.step_size)
        except OverflowError:
            return math.inf


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec(SgdSpec):
    """The online path: augmented images through backbone and head."""

    full: bool = True  # False: only the head is trained, the backbone stays frozen
    from_scratch: bool = False  # random weights instead of pretrained ones
    head_lr_mult: float = 1.0  # the head's learning rate over the backbone's
    workers: int = 0  # threads that decode and augment; 0: one per core

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, head_lr_mult=POSITIVE, workers=COUNT)


@dataclass(frozen=True, kw_only=True)
class LogRegSpec:
    """scikit-learn's LogisticRegression, C chosen on held-out training data."""

    C: tuple[float, ...] = tuple(10.0**k for k in range(-6, 5))  # inverse penalties
    holdout: float = 0.2  # share of train on which C is chosen
    max_iter: int = 1000  # of L-BFGS, per C
    seed: int = 0  # of the held-out part

    def __post_init__(self) -> None:
        require(self, C=each(POSITIVE), holdout=SHARE, max_iter=AT_LEAST_1, seed=COUNT)


def _words(error: Exception) -> str:
    missing = isinstance(error, KeyError)
    return shown(f"there is no {error.args[0]}" if missing else str(error))
