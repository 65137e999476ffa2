"""The images that several models were all given, and that these are the same."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from featcache.core.errors import CacheMismatchError, DataError
from featcache.core.text import plural, shown
from featcache.stages.matching import Named
from featcache.stages.plans import image_digest
from featcache.stages.scoring import Scored


def pair(models: Sequence[Named], scored: Sequence[Scored]) -> tuple[list[Scored], int]:
    """Return the images that all models were given, in one order.

    Parameters
    ----------
    models : sequence of Named
        For their classes.
    scored : sequence of Scored
        What each says.

    Returns
    -------
    list of Scored, int
        Rows of equal paths, and how many images not all models were given.

    Raises
    ------
    DataError
        When no path is in all of them.
    CacheMismatchError
        When a path has another class or another image in the other data.
    """
    paths = [s.paths for s in scored]
    common = reduce(np.intersect1d, paths)
    if not len(common):
        sources = dict.fromkeys(s.source for s in scored)
        raise DataError(
            f"{' and '.join(sources)} have no image in common, so the models cannot be "
            "compared; paths are compared relative to the data folder"
        )
    paired = [_taken(s, common) for s in scored]
    if any(s.digests is not None for s in paired):
        paired = [_with_digests(s) for s in paired]
    for named, other in zip(models[1:], paired[1:], strict=True):
        _require_same_images((models[0], named), (paired[0], other))
    return paired, len(reduce(np.union1d, paths)) - len(common)


def _taken(scored: Scored, paths: npt.NDArray[np.bytes_]) -> Scored:
    _, rows, _ = np.intersect1d(scored.paths, paths, return_indices=True)
    digests = None if scored.digests is None else scored.digests[rows]
    places = None if scored.places is None else [scored.places[row] for row in rows]
    return replace(
        scored,
        scores=scored.scores[rows],
        y=scored.y[rows],
        paths=scored.paths[rows],
        digests=digests,
        places=places,
    )


def _with_digests(scored: Scored) -> Scored:
    """Read the images again, so that they can be told from those of a cache."""
    if scored.places is None:
        return scored
    found = b"".join(map(image_digest, scored.places))
    return replace(scored, digests=np.frombuffer(found, np.uint8).reshape(-1, 32))


def _require_same_images(
    models: tuple[Named, Named], scored: tuple[Scored, Scored]
) -> None:
    a, b = scored
    class_a, class_b = (
        np.array(m.model.classes)[s.y] for m, s in zip(models, scored, strict=True)
    )
    differ = {"class": class_a != class_b}
    if a.digests is not None and b.digests is not None:
        differ["image"] = (a.digests != b.digests).any(axis=1)
    for what, wrong in differ.items():
        if wrong.any():
            path = shown(a.paths[int(wrong.argmax())])
            count = plural(int(wrong.sum()), "image")
            raise CacheMismatchError(
                f"{path} has another {what} in {b.source} than in {a.source} ({count} "
                "in all); bring both up to date with 'featcache extract'"
            )
