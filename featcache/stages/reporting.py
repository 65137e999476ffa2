"""`report`: runs as one HTML file that opens anywhere."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featcache.core.errors import BadImage, FeatcacheError, ModelError, SpecError
from featcache.core.intervals import Interval
from featcache.core.pages import AuditPart, ComparisonPart, Duel, MapPart, Page
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.sources import Source as ImageSource
from featcache.core.text import listed, plural, shown
from featcache.stages.comparing import compare_scored, letter, named_models
from featcache.stages.datasets import data_source
from featcache.stages.matching import (
    Named,
    Source,
    Sources,
    find_sources,
    score,
    tell_apart,
)
from featcache.stages.provenance import describe_run
from featcache.stages.report_maps import audit_part, find_cache, map_part
from featcache.stages.report_pictures import Album, draw
from featcache.stages.report_runs import add_mistakes, add_some, run_part
from featcache.stages.scoring import Place, Scored, require_split, warn_of_fitted_on
from featcache.stages.tiles import TileSource
from featcache.store.files import replacing, require_file_name
from featcache.store.table import FeatureTable

MOST_BYTES = 4_900_000
"""Of a page, as far as pictures can be left out."""

_FILE = "report.html"
_PLACES = 30  # bytes that the place of a picture takes, about
_SOME = 600  # images of a run that no cache holds: there is no map to show them
_NO_CACHE = (
    "No cache in the folder 'cache' holds the images of these runs; 'featcache "
    "extract' makes one, and --data names it."
)


@dataclass(frozen=True, kw_only=True)
class PageReport(Report):
    """What `report` wrote."""

    report: Path
    bytes: int
    runs: int
    images: int  # that the first run was measured on
    pictures: int  # drawn
    accuracy: float  # of the first run
    accuracy_interval: Interval  # 95 %, Wilson's
    seconds: float
    bad_images: tuple[BadImage, ...] = ()


def report(
    *runs: Place,
    data: Source | Iterable[Source] = (),
    split: str = "val",
    out: str | os.PathLike[str] | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> PageReport:
    """Write one HTML file that shows runs: numbers, curves, mistakes, map, audit.

    Parameters
    ----------
    *runs : str or path
        Folders of runs, or model files.
    data : str, path, FeatureCache, or several of them
        Caches, patterns of caches, folders, known data sets; see `featcache.compare`.
        Without any, the caches that heads were fitted on, or the newest fitting ones in
        ``cache/``; for other models the folder of their run.
    split : {"train", "val", "test"}
        Which part the runs are measured on.
    out : str or path, optional
        The file, replaced if it is there; ``report.html`` without it, of one run in
        its folder, of several in this one.
    device : str
        ``auto``, ``cpu``, ``cuda``; for folders.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    PageReport
        The file, its size, and how many images it shows.

    Raises
    ------
    CacheMismatchError
        When no data belongs to a run, or an image is not the same in all data.
    DataError
        When the split is empty, its classes are not a run's, or images are missing.
    ModelError
        Without a run, or when one is damaged.
    SpecError
        When the file's name has another ending than ``.html``.
    StorageError
        When the file cannot be written.
    """
    began = time.perf_counter()
    require_split(split)
    places, found = tell_apart(runs)
    models = named_models(_required(places, found))
    file = _file(models, out)
    for named in models:
        warn_of_fitted_on(named.model, split, progress)
    given = [data] if isinstance(data, str | os.PathLike | FeatureTable) else data
    sources = find_sources([*found, *given], models, progress)
    scored = [
        score(m, sources, split, device=device, progress=progress) for m in models
    ]
    for named, said in zip(models, scored, strict=True):
        progress.say(f"{named.name}: measured on {said.source}")
    page = _page(models, scored, split, sources, progress)
    if not page.drawn:
        progress.say(
            "no pictures: the images are not where they were; --data FOLDER says where "
            "they are now"
        )
    text = _render(page).encode()
    with replacing(file) as temporary:
        temporary.write_bytes(text)
    return PageReport(
        report=file,
        bytes=len(text),
        runs=len(models),
        images=page.runs[0].images,
        pictures=page.drawn,
        accuracy=page.runs[0].accuracy,
        accuracy_interval=page.runs[0].accuracy_interval,
        seconds=round(time.perf_counter() - began, 3),
        bad_images=tuple(
            {bad.path: bad for s in scored for bad in s.bad_images}.values()
        ),
    )


def _required(places: Sequence[object], found: Sequence[Source]) -> list[Place]:
    named = [place for place in places if isinstance(place, str | os.PathLike)]
    if named:
        return named
    others = listed(shown(d) for d in found if not isinstance(d, FeatureTable))
    raise ModelError(
        "a report is about one run or more, got none"
        f"{f' but {others}' if others else ''}; name the folder of a run, as "
        "'featcache fit-head' and 'featcache finetune' make them"
    )


def _file(models: Sequence[Named], out: str | os.PathLike[str] | None) -> Path:
    if out is not None:
        file = Path(out)
    elif len(models) == 1 and models[0].file is not None:
        file = models[0].file.parent / _FILE
    else:
        file = Path(_FILE)
    require_file_name(file, _FILE)
    if file.suffix.lower() not in {".html", ".htm"}:
        raise SpecError(f"a report is an .html file, got {shown(file)}")
    return file


def _page(
    models: Sequence[Named],
    scored: Sequence[Scored],
    split: str,
    sources: Sources,
    progress: Progress,
) -> Page:
    """Gather what is shown; what comes first into the album is drawn first."""
    album = Album(list(dict.fromkeys(c for m in models for c in m.model.classes)))
    for named, said in zip(models, scored, strict=True):
        add_mistakes(album, named, said, split)
    cache = find_cache(sources.caches, scored)
    map_: MapPart | str = _NO_CACHE
    audit: AuditPart | str = _NO_CACHE
    if cache is None:
        add_some(album, models[0], scored[0], split, _SOME)
    else:
        audit = audit_part(cache, album, progress)
        map_ = map_part(cache, album, progress)
    parts = [
        run_part(letter(at), named, said, split, album)
        for at, (named, said) in enumerate(zip(models, scored, strict=True))
    ]
    page = Page(
        title=models[0].name if len(models) == 1 else plural(len(models), "run"),
        made=_made(),
        classes=tuple(map(shown, album.classes)),
        pictures=tuple(album.pictures),
        sheets=(),
        runs=tuple(parts),
        comparison=_comparison(models, scored, split) if len(models) > 1 else None,
        map=map_,
        audit=audit,
    )
    return _with_pictures(
        page, album, _tile_sources(models, scored, cache, sources, progress), progress
    )


def _made() -> str:
    now = describe_run("made")
    moment = now["made"][:16].replace("T", " ")
    return f"Made {moment} UTC by featcache {now['versions'].get('featcache')}."


def _with_pictures(
    page: Page, album: Album, sources: Sequence[TileSource], progress: Progress
) -> Page:
    """Return a page with as many pictures as its size has room for."""
    words = len(_render(page).encode()) + _PLACES * len(page.pictures)
    room = max(0, (MOST_BYTES - words) * 3 // 4)  # base64: 4 characters for 3 bytes
    pictures, sheets = draw(album, sources, room, progress)
    return replace(page, pictures=pictures, sheets=sheets)


def _render(page: Page) -> str:
    from featcache.viz.page import render

    return render(page)


def _tile_sources(
    models: Sequence[Named],
    scored: Sequence[Scored],
    cache: FeatureTable | None,
    sources: Sources,
    progress: Progress,
) -> list[TileSource]:
    """Return where images may be, first as the cache knows them."""
    now = [data_source(f, progress=progress) for f in sources.folders[:1]]
    found = [] if cache is None else _of_cache(cache, now, progress)
    found += [
        TileSource(None, named.model.view, {"paths": said.paths}, places.__getitem__)
        for named, said in zip(models, scored, strict=True)
        if (places := said.places) is not None
    ]
    for table in sources.caches:
        if table is not cache:
            found += _of_cache(table, now, progress)
    return found


def _of_cache(
    cache: FeatureTable, now: list[ImageSource], progress: Progress
) -> list[TileSource]:
    """Return where a cache's images are; numbers are shown without them, too."""
    try:
        return [TileSource.of_cache(cache, *now)]
    except FeatcacheError as error:
        progress.say(f"no pictures of the images of {shown(cache.path)}: {error}")
        return []


def _comparison(
    models: Sequence[Named], scored: Sequence[Scored], split: str
) -> ComparisonPart:
    found = compare_scored(models, scored, split)
    return ComparisonPart(
        images=found.images,
        unpaired=found.unpaired,
        rivals=tuple(
            (letter(at), shown(m.model), m.accuracy, m.accuracy_interval)
            for at, m in enumerate(found.models)
        ),
        duels=tuple(
            Duel(
                a=pair.a,
                b=pair.b,
                difference=pair.difference,
                interval=pair.difference_interval,
                p=""
                if pair.adjusted_p_value is None
                else f"{pair.adjusted_p_value:.2g}",
                verdict=pair.verdict,
            )
            for pair in found.pairs
        ),
        worth=found.worth or "",
    )
