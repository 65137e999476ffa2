"""Settings of the views beyond the first: how many there are, and of what kind."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from featcache.core.checks import AT_LEAST_1, COUNT, Rule, require
from featcache.core.errors import SpecError

_MOST_VIEWS = 256  # their pixels, 38 MB a thread, are in memory together

VIEWS = Rule(
    f"a whole number from 1 to {_MOST_VIEWS}",
    lambda v: AT_LEAST_1.holds(v) and v <= _MOST_VIEWS,
)


def check_views(views: object, decoder: str) -> None:
    """Refuse a number of views that cannot be.

    Parameters
    ----------
    views : int
        V; whatever was asked for.
    decoder : {"pillow", "nvjpeg"}
        What makes pixels of JPEG files.

    Raises
    ------
    SpecError
        When it is none, or above 1 on a decoder that makes the first view alone.
    """
    if not VIEWS.holds(views):
        raise SpecError(f"views must be {VIEWS.expected}, got {views!r}")
    if views != 1 and decoder != "pillow":
        raise SpecError(
            f"views must be 1 with the decoder {decoder}, got {views}: a GPU "
            "decodes for the val view alone; decode on the CPU for more"
        )


def _rising(most: float) -> Rule:
    def holds(value: object) -> bool:
        if not isinstance(value, tuple) or len(value) != 2:
            return False
        numbers = all(isinstance(v, float) for v in value)
        return bool(numbers and 0 < value[0] <= value[1] <= most)

    return Rule(f"two rising numbers above 0, at most {most:g}", holds)


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """How random views are drawn; the classic tutorial's numbers as defaults.

    The draw follows from seed, the sha256 of the image file and the view's number
    alone: neither row nor name count, nor machine.
    """

    scale: tuple[float, float] = (0.08, 1.0)  # share of the image's area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of the crop
    flip: float = 0.5  # probability that a view is mirrored
    seed: int = 0

    def __post_init__(self) -> None:
        share = Rule("from 0 to 1", lambda v: isinstance(v, float) and 0 <= v <= 1)
        for name in ("scale", "ratio"):  # 1 and 1.0 are one number, but two JSON texts
            object.__setattr__(self, name, _floats(getattr(self, name)))
        object.__setattr__(self, "flip", _float(self.flip))
        require(self, scale=_rising(1.0), ratio=_rising(100.0), flip=share, seed=COUNT)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain data.

        Returns
        -------
        dict
            Lists for tuples.
        """
        fields = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "AugmentSpec":
        """Return the settings that `to_json` wrote.

        Parameters
        ----------
        fields : mapping
            Names and values as JSON has them.

        Returns
        -------
        AugmentSpec
            Equal to the one written.

        Raises
        ------
        SpecError
            When a value is none of an augmentation.
        TypeError, KeyError
            When the fields are others.
        """
        if set(fields) != {"scale", "ratio", "flip", "seed"}:
            raise SpecError("augment has other fields than scale, ratio, flip and seed")
        pairs = {k: tuple(fields[k]) for k in ("scale", "ratio")}
        return cls(**{**fields, **pairs})


def _float(value: Any) -> Any:  # noqa: ANN401 - the rules refuse what is no number
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole else value


def _floats(values: Any) -> Any:  # noqa: ANN401
    return tuple(map(_float, values)) if isinstance(values, tuple) else values


TUTORIAL = AugmentSpec()
