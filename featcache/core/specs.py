"""Settings. Each is one line: default, unit, when to change it.

The command line reads its defaults from here and the values are checked here, so
there is one place to look.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from featcache.core.catalog import PublishedWeights
from featcache.core.checks import (
    AT_LEAST_1,
    COUNT,
    FINITE,
    POSITIVE,
    SHA256,
    TEXT,
    Rule,
    each,
    one_of,
    require,
)
from featcache.core.errors import CacheMismatchError, SpecError
from featcache.core.finetune_spec import FinetuneSpec as FinetuneSpec  # noqa: PLC0414
from featcache.core.fingerprint import fingerprint
from featcache.core.layers import (
    LAYERS,
    POOLED,
    Layer,
    MapShape,
    map_shape,
    row_size,
    unfrozen_behind,
)
from featcache.core.solver_specs import LogRegSpec as LogRegSpec  # noqa: PLC0414
from featcache.core.text import shown, times
from featcache.core.training_specs import SgdSpec as SgdSpec  # noqa: PLC0414
from featcache.core.training_specs import SweepSpec as SweepSpec  # noqa: PLC0414
from featcache.core.view_specs import TUTORIAL, VIEWS, check_views
from featcache.core.view_specs import AugmentSpec as AugmentSpec  # noqa: PLC0414

Precision = Literal["float32", "bfloat16"]
FeatureDtype = Literal["float32", "float16"]
OnError = Literal["stop", "skip"]
EngineName = Literal["local", "ray"]
Exif = Literal["apply", "ignore"]
Decoder = Literal["pillow", "nvjpeg"]

FORMAT_VERSION = 1  # of the cache file; part of its identity

_CPUS = Rule("a number of at least 0", lambda v: FINITE.holds(v) and v >= 0)
_ALONE = Rule("auto, since the engine is not ray", lambda v: v == "auto")
_NONE = Rule("0, since the engine is not ray", lambda v: v == 0)
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
    decoder: Decoder = "pillow"  # nvjpeg: on a GPU, whose pixels differ by some levels

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
            decoder=one_of("pillow", "nvjpeg"),
        )
        expected = f"at most resize ({self.resize})"
        require(self, crop=Rule(expected, lambda v: v <= self.resize))

    @classmethod
    def of(
        cls,
        weights: PublishedWeights,
        exif: Exif = "apply",
        decoder: Decoder = "pillow",
    ) -> "ViewSpec":
        """Return the validation view of published weights.

        Parameters
        ----------
        weights : PublishedWeights
            Row of the catalog.
        exif : {"apply", "ignore"}
            Whether an image is turned as its camera says.
        decoder : {"pillow", "nvjpeg"}
            What makes pixels of JPEG files.

        Returns
        -------
        ViewSpec
            What ``weights.transforms()`` does in torchvision.
        """
        return cls(resize=weights.resize, exif=exif, decoder=decoder)

    def to_json(self) -> dict[str, Any]:
        """Return the view as plain data.

        Returns
        -------
        dict
            Without the default decoder: files from before it was a choice stay equal.
        """
        fields = asdict(self)
        for name in ("mean", "std"):  # 0 and 0.0 are one number, but two JSON texts
            fields[name] = [float(v) for v in fields[name]]
        if self.decoder == "pillow":
            del fields["decoder"]
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "ViewSpec":
        """Return the view that `to_json` wrote.

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
    layer: Layer = POOLED  # a stage: its maps, for training the stages behind it
    precision: Precision = "float32"  # of the forward pass
    dtype: FeatureDtype = "float32"  # of the stored features
    views: int = 1  # of each training image: the val view, then random ones
    augment: AugmentSpec = TUTORIAL  # how these are drawn; nothing with 1 view

    def __post_init__(self) -> None:
        require(
            self,
            backbone=TEXT,
            weights_sha256=SHA256,
            view=Rule("a ViewSpec", lambda v: isinstance(v, ViewSpec)),
            layer=one_of(*LAYERS),
            precision=one_of("float32", "bfloat16"),
            dtype=one_of("float32", "float16"),
            views=VIEWS,
            augment=Rule("an AugmentSpec", lambda v: isinstance(v, AugmentSpec)),
        )
        if self.views == 1:  # specs that mean the same are equal
            object.__setattr__(self, "augment", TUTORIAL)
        check_views(self.views, self.view.decoder)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain data, format version included.

        Returns
        -------
        dict
            What `fingerprint` is taken of. With one view it says nothing of views:
            files from before there were more stay equal.
        """
        fields = {**asdict(self), "view": self.view.to_json()}
        if self.views == 1:
            del fields["views"], fields["augment"]
        else:
            fields["augment"] = self.augment.to_json()
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
            if rest.get("views", 1) != 1:
                rest["augment"] = AugmentSpec.from_json(rest.pop("augment"))
            return cls(view=ViewSpec.from_json(rest.pop("view")), **rest)
        except (KeyError, TypeError) as error:
            raise SpecError(f"not a feature spec: {_words(error)}") from None

    def row_shape(self, embed_dim: int) -> tuple[int, ...]:
        """Return the shape of a row's features.

        Parameters
        ----------
        embed_dim : int
            D, as `embed_dim` has it.

        Returns
        -------
        tuple of int
            ``(D,)`` with one view, else ``(V, D)``.
        """
        return (embed_dim,) if self.views == 1 else (self.views, embed_dim)

    @property
    def map_shape(self) -> MapShape | None:
        """(c, h, w) of the maps that a row holds; None where it holds features."""
        return map_shape(self.backbone, self.layer, self.view.crop)

    @property
    def embed_dim(self) -> int:
        """D, the numbers of one view; of maps ``c * h * w``, in this order."""
        return row_size(self.backbone, self.layer, self.view.crop)

    def require_features(self, file: str) -> None:
        """Refuse maps where features are wanted.

        Parameters
        ----------
        file : str
            The cache, for the message.

        Raises
        ------
        CacheMismatchError
            Saying what takes them.
        """
        if self.layer == POOLED:
            return
        assert self.map_shape is not None
        raise CacheMismatchError(
            f"{file} holds maps of {self.layer} ({times(self.map_shape)} an image), "
            "where features are wanted; 'featcache finetune --unfreeze "
            f"{unfrozen_behind(self.layer)} --from-cache {file}' trains on them, and "
            "'featcache extract' without --layer makes features"
        )

    @property
    def fingerprint(self) -> str:
        """The sha256 of the spec, 64 hex digits."""
        return fingerprint(self.to_json())


@dataclass(frozen=True, kw_only=True)
class ExtractSpec:
    """How features are computed; nothing here changes what they are."""

    device: str = "auto"  # auto: one CUDA GPU or the CPU; or several: cuda:0,cuda:1
    batch_size: int = 0  # images in one forward pass; 0: 8 on a CPU, up to 128 on a GPU
    workers: int = 0  # threads; 0: one per core
    on_error: OnError = "stop"  # skip: go on without the images that cannot be read
    rehash: bool = False  # read every file again instead of trusting size and mtime
    overwrite: bool = False  # replace a cache that was made with other settings
    wait: bool = False  # for another process that writes the same cache
    engine: EngineName = "local"  # ray: on all machines of a Ray cluster
    address: str = "auto"  # of the cluster: HOST:PORT; local: of this machine alone
    actors: int = 0  # at most; more than there is room for wait; 0: as many as fit
    actor_cpus: float = 0.0  # of each, also a fraction; 0: what uses the cluster well

    def __post_init__(self) -> None:
        require(
            self,
            batch_size=COUNT,
            workers=COUNT,
            on_error=one_of("stop", "skip"),
            engine=one_of("local", "ray"),
            address=TEXT,
            actors=COUNT,
            actor_cpus=_CPUS,
        )
        if self.engine == "local":
            require(self, address=_ALONE, actors=_NONE, actor_cpus=_NONE)


def _words(error: Exception) -> str:
    missing = isinstance(error, KeyError)
    return shown(f"there is no {error.args[0]}" if missing else str(error))
