"""`compare`: whether one model is really better than others, and what each cost."""

import os
import string
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from featcache.core.displays import Told, percent
from featcache.core.errors import BadImage, ModelError
from featcache.core.intervals import (
    LEVEL,
    bootstrap_difference,
    discordant,
    holm,
    mcnemar_exact,
    smallest_visible,
    wilson,
)
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.text import listed, plural, shown
from featcache.stages.matching import (
    Named,
    Source,
    find_sources,
    score,
    tell_apart,
)
from featcache.stages.pairing import pair
from featcache.stages.runs import MODEL_FILE
from featcache.stages.scoring import (
    Place,
    Scored,
    require_split,
    warn_of_fitted_on,
)
from featcache.stages.worth import (
    ModelResult,
    PairResult,
    kind_of,
    number,
    unseen,
    worth,
)
from featcache.store.artifacts import Model, open_model
from featcache.store.table import FeatureTable


@dataclass(frozen=True, kw_only=True)
class ComparisonReport(Report):
    """Models on the same images; the first is A, the second B, and so on."""

    models: tuple[ModelResult, ...]
    pairs: tuple[PairResult, ...]  # of all models: A and B, A and C, B and C
    split: str
    images: int  # that all models were given
    unpaired: int  # that only some of them were given; left out
    worth: str | None  # whether fine-tuning was, where that can be said
    bad_images: tuple[BadImage, ...] = ()

    def _told(self) -> Told:
        yield self.split, plural(self.images, "image")
        for at, result in enumerate(self.models):
            accuracy = percent(result.accuracy, result.accuracy_interval)
            yield letter(at), f"{accuracy}, {result.kind}: {result.model}"
        for two in self.pairs:
            yield f"{two.a} and {two.b}", two.verdict
        yield "fine-tuning", self.worth

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data.

        Returns
        -------
        dict
            The fields; of two models also ``a``, ``b`` and the fields of their pair.
        """
        fields = super().to_json()
        if len(self.models) > 2:
            return fields
        a, b = fields["models"]
        return {**fields, **asdict(self.pairs[0]), "a": a, "b": b}


def compare(
    *given: Place | Model | FeatureTable,
    data: Source | Iterable[Source] = (),
    split: str = "val",
    device: str = "auto",
    progress: Progress = SILENT,
) -> ComparisonReport:
    """Tell whether one model is really better than others, and what each cost.

    Parameters
    ----------
    *given : str, path, Model or FeatureCache
        Two models or more: model files, folders of runs, opened models. What is no
        model is taken as data.
    data : str, path, FeatureCache, or several of them
        Caches, patterns of caches, folders, known data sets. Each model takes the
        first cache that its backbone made, else the first folder, whose features are
        then computed. Without any, the caches that heads were fitted on, or the newest
        fitting ones in ``cache/``; for other models the folder of their run.
    split : {"train", "val", "test"}
        Which part.
    device : str
        ``auto``, ``cpu``, ``cuda``; for folders.
    progress : Progress
        Hears how far the work is, and of images that only some models were given.

    Returns
    -------
    ComparisonReport
        Accuracies, differences with intervals, McNemar's exact test of each pair
        with Holm's correction, and whether fine-tuning was worth it.

    Raises
    ------
    CacheMismatchError
        When no data belongs to a model, or an image is not the same in all data.
    DataError
        When the split is empty, its classes are not a model's, the data have no image
        in common, or runs were trained on a folder that is not there.
    ModelError
        With fewer than two models, or when a fine-tuned one has no folder of images.
    """
    require_split(split)
    places, found = tell_apart(given)
    _require_two(places, found)
    models = named_models(places)
    for named in models:
        warn_of_fitted_on(named.model, split, progress)
    sources = find_sources([*found, *_listed(data)], models, progress)
    scored = [
        score(m, sources, split, device=device, progress=progress) for m in models
    ]
    compared = compare_scored(models, scored, split)
    if compared.unpaired:
        progress.say(
            f"{plural(compared.unpaired, 'image')} that only some of the models were "
            "given left out"
        )
    return compared


def compare_scored(
    models: Sequence[Named], scored: Sequence[Scored], split: str
) -> ComparisonReport:
    """Compare models of which it is known what they say.

    Parameters
    ----------
    models : sequence of Named
        Two or more.
    scored : sequence of Scored
        What each says.
    split : {"train", "val", "test"}
        Of which part.

    Returns
    -------
    ComparisonReport
        See `compare`.

    Raises
    ------
    DataError
        When the data have no image in common.
    CacheMismatchError
        When an image is not the same in all data.
    """
    paired, unpaired = pair(models, scored)
    return _report(models, paired, split, unpaired)


def named_models(places: Sequence[Place | Model]) -> list[Named]:
    """Open models, and say what messages call them.

    Parameters
    ----------
    places : sequence of str, path or Model
        Model files, folders of runs, opened models.

    Returns
    -------
    list of Named
        In order.

    Raises
    ------
    ModelError
        When one is missing or damaged.
    """
    return [_named(place, f"model {letter(at)}") for at, place in enumerate(places)]


def letter(at: int) -> str:
    """Return what a model is called: A to Z, then A1.

    Parameters
    ----------
    at : int
        Its number, from 0.

    Returns
    -------
    str
        One letter for the first 26.
    """
    again, at = divmod(at, 26)
    return string.ascii_uppercase[at] + (str(again) if again else "")


def _require_two(models: Sequence[Place | Model], data: Sequence[Source]) -> None:
    if len(models) >= 2:
        return
    named = [place for place in models if not isinstance(place, Model)]
    which = f" ({shown(named[0])})" if named else ""
    others = listed(shown(d) for d in data if not isinstance(d, FeatureTable))
    taken = (
        f"; {others} taken as data, since no {MODEL_FILE} is in it" if others else ""
    )
    raise ModelError(
        f"two models or more are compared, got {len(models)}{which}{taken}; a model is "
        "the folder of a run, or a .safetensors file"
    )


def _listed(data: Source | Iterable[Source]) -> list[Source]:
    if isinstance(data, str | os.PathLike | FeatureTable):
        return [data]
    return list(data)


def _named(model: Place | Model, name: str) -> Named:
    if isinstance(model, Model):
        return Named(model, name)
    path = Path(model)
    file = path / MODEL_FILE if path.is_dir() else path
    return Named(open_model(file), shown(model), file)


def _report(
    models: Sequence[Named], scored: Sequence[Scored], split: str, unpaired: int
) -> ComparisonReport:
    results = {
        letter(at): _result(m, s)
        for at, (m, s) in enumerate(zip(models, scored, strict=True))
    }
    pairs = _pairs(models, scored)
    bad = {image.path: image for s in scored for image in s.bad_images}
    return ComparisonReport(
        models=tuple(results.values()),
        pairs=pairs,
        split=split,
        images=len(scored[0].y),
        unpaired=unpaired,
        # Whoever trained longer knows the training images better: that says nothing.
        worth=None if split == "train" else worth(results, pairs),
        bad_images=tuple(bad.values()),
    )


def _result(named: Named, scored: Scored) -> ModelResult:
    right = int(scored.right.sum())
    report = named.model.report
    return ModelResult(
        model=named.name,
        data=scored.source,
        accuracy=right / len(scored.y),
        accuracy_interval=wilson(right, len(scored.y)),
        skipped=scored.skipped,
        kind=kind_of(named.model),
        backbone=named.model.backbone,
        seconds=number(report, "seconds"),
        images_per_second=number(report, "images_per_second"),
    )


def _pairs(models: Sequence[Named], scored: Sequence[Scored]) -> tuple[PairResult, ...]:
    """Test every two models; a file with itself is no test."""
    which = list(combinations(range(len(models)), 2))
    tested = [(a, b) for a, b in which if not _same(models[a], models[b])]
    p_values = [mcnemar_exact(scored[a].right, scored[b].right) for a, b in tested]
    adjusted = holm(p_values)
    of = dict(zip(tested, zip(p_values, adjusted, strict=True), strict=True))
    return tuple(
        _pair((a, b), (scored[a], scored[b]), of.get((a, b)), max(1, len(tested)))
        for a, b in which
    )


def _same(a: Named, b: Named) -> bool:
    if a.file is None or b.file is None:
        return a.model is b.model
    return a.file.samefile(b.file)


def _pair(
    which: tuple[int, int],
    scored: tuple[Scored, Scored],
    p: tuple[float, float] | None,  # and adjusted; None for one file with itself
    tests: int,
) -> PairResult:
    right_a, right_b = (s.right for s in scored)
    only_a, only_b = discordant(right_a, right_b)
    n = len(right_a)
    result = PairResult(
        a=letter(which[0]),
        b=letter(which[1]),
        both_right=int((right_a & right_b).sum()),
        only_a_right=only_a,
        only_b_right=only_b,
        both_wrong=n - int((right_a | right_b).sum()),
        difference=(only_a - only_b) / n,
        difference_interval=bootstrap_difference(right_a, right_b),
        p_value=p and p[0],
        adjusted_p_value=p and p[1],
        distinguishable=p is not None and p[1] < 1 - LEVEL,
        smallest_visible=smallest_visible(only_a + only_b, n, tests=tests),
        verdict="",
    )
    return replace(result, verdict=verdict(result))


def verdict(pair: PairResult) -> str:
    """Say in a sentence what a comparison of two models has shown.

    Parameters
    ----------
    pair : PairResult
        All but its verdict.

    Returns
    -------
    str
        Which model is better, or what difference could have been seen.
    """
    if pair.p_value is None:
        return f"{pair.a} and {pair.b} are the same file: there is nothing to compare"
    if not pair.distinguishable:
        return f"not distinguishable: {unseen(pair)}"
    better, worse = (pair.a, pair.b) if pair.difference > 0 else (pair.b, pair.a)
    return f"{better} is better than {worse}"
