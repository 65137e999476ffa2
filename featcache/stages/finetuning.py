"""`finetune`: a network trained online on augmented images, and the best epoch kept."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.core.addresses import absolute
from featcache.core.catalog import DEFAULT_BACKBONE, architecture
from featcache.core.errors import SpecError
from featcache.core.finetune_spec import FinetuneSpec, Store
from featcache.core.machine import cores
from featcache.core.progress import SILENT, Progress
from featcache.core.specs import Exif, OnError
from featcache.stages.assembling import Surroundings, assemble
from featcache.stages.checkpointing import request_of
from featcache.stages.datasets import KNOWN, data_source
from featcache.stages.online_run import OnlineRun
from featcache.stages.probing import Trained
from featcache.stages.recipe import DEFAULT_DATA, Request
from featcache.stages.runs import run_folder
from featcache.store.files import storing

if TYPE_CHECKING:
    from featcache.train.ranks import Ranks

Place = str | os.PathLike[str]


def finetune(  # noqa: PLR0913 - the command's options
    data: Place = DEFAULT_DATA,
    spec: FinetuneSpec | None = None,
    *,
    backbone: str = DEFAULT_BACKBONE,
    weights: Place | None = None,
    init_head: Place | None = None,
    from_cache: Place | None = None,
    exif: Exif = "apply",
    on_error: OnError = "stop",
    device: str = "auto",
    out: Place | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Train a backbone and its head, or a part of it, on augmented images.

    Before the first epoch every image is decoded once, so that a damaged one is named
    at the start and not hours later. After each epoch a checkpoint is written. Where
    ``out`` holds that of an unfinished training of the same recipe, it is gone on with.

    Parameters
    ----------
    data : str or path
        A folder of class folders, with or without ``train``/``val``/``test``; or a
        known data set: ``hymenoptera``, ``hotdog``, ``digits``.
    spec : FinetuneSpec, optional
        What is trained and how; with ``from_scratch`` the weights are random.
    backbone : str
        A torchvision ResNet, such as ``resnet50``.
    weights : str or path
        Where training starts: ``imagenet``, an enum name such as ``IMAGENET1K_V2``,
        ``random:SEED``, or a ``.pth`` or ``.safetensors`` file. ``imagenet`` without
        it, or with ``from_cache`` those that the cache was made with.
    init_head : str or path, optional
        A model whose head training starts from, such as `fit_head` made; the head is
        drawn from the seed without it.
    from_cache : str or path, optional
        A cache of the last frozen stage's maps, as ``extract --layer`` makes it;
        ``data`` is not looked at then, and nothing is augmented.
    exif : {"apply", "ignore"}
        Whether images are turned as their camera says.
    on_error : {"stop", "skip"}
        Whether images that cannot be used end the run, or are left out of it.
    device : str
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    out : str or path, optional
        Folder for model, report and history; ``runs/...`` without it.
    progress : Progress
        Hears how far the work is, and one line per epoch.

    Returns
    -------
    Trained
        The weights of the epoch that was best on ``val``, and where its files are.

    Raises
    ------
    BadImagesError
        When images cannot be used; names all of them.
    TrainingError
        When the loss is no longer finite.
    CheckpointError
        When ``out`` holds an unfinished training of another recipe.
    DeviceError
        When the device is not there, or has too little memory.
    FeatcacheError
        For everything else that a user can mend.
    Interrupted
        After Ctrl-C; the epochs that are done are kept.
    """
    request = Request(
        data=data if isinstance(data, str) and data in KNOWN else _absolute(data),
        spec=spec or FinetuneSpec(),
        backbone=backbone,
        weights=_weights(weights),
        exif=exif,
        on_error=on_error,
        init_head=None if init_head is None else _absolute(init_head),
        from_cache=None if from_cache is None else _absolute(from_cache),
    )
    return _run(request, device=device, out=out, progress=progress)


def resume_finetuning(
    run: Place,
    *,
    device: str = "auto",
    workers: int = 0,
    store: Store = FinetuneSpec.store,
    progress: Progress = SILENT,
) -> Trained:
    """Go on with an interrupted training, as it was begun.

    On the same machine the weights are those of a run that was never interrupted.

    Parameters
    ----------
    run : str or path
        The folder of the run, with its checkpoint.
    device : str
        As for `finetune`.
    workers : int
        Threads that decode and augment; 0: one per core.
    store : {"auto", "ram", "disk", "off"}
        Where decoded images wait for the next epoch.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    Trained
        As from `finetune`.

    Raises
    ------
    CheckpointError
        When there is no checkpoint, it is damaged, or images or weights have changed
        since.
    FeatcacheError
        As `finetune`.
    """
    request = Request.from_json(request_of(Path(run)))
    spec = replace(request.spec, workers=workers, store=store)
    request = replace(request, spec=spec)
    return _run(request, device=device, out=run, progress=progress)


def _absolute(place: Place) -> str:
    """Return a place as it is called from everywhere: a run may be resumed there."""
    return absolute(os.fspath(place))


def _weights(weights: Place | None) -> str | None:
    if weights is None or not Path(weights).is_file():
        return None if weights is None else os.fspath(weights)
    return _absolute(weights)


def _run(
    request: Request, *, device: str, out: Place | None, progress: Progress
) -> Trained:
    """Gather what a training needs, cheap mistakes first, and let it run."""
    from featcache.train.ranks import Ranks
    from featcache.vision.forward import keep_float32_exact, pick_device
    from featcache.vision.threads import Threads

    began = time.perf_counter()
    architecture(request.backbone)  # slips of the keys show before any download
    _check(request)
    with ExitStack() as until_done:
        ranks = until_done.enter_context(Ranks.joined(device))
        where = ranks.device or pick_device(device)
        if where.type == "cuda":
            keep_float32_exact()
        _check_ranks(request.spec, ranks)
        if request.spec.precision == "float16" and where.type != "cuda":
            raise SpecError(
                f"float16 needs a CUDA device, got {where}; bfloat16 or float32 train "
                "on every device"
            )
        workers = request.spec.workers or max(1, cores() // ranks.local_count)
        threads = until_done.enter_context(Threads(workers))
        folder = until_done.enter_context(_folder(request, out, ranks))
        here = Surroundings(
            where, threads, ranks, folder, progress if ranks.main else SILENT
        )
        parts = until_done.enter_context(assemble(request, here))
        return OnlineRun(parts, folder, began).finish()


def _check(request: Request) -> None:
    spec, cache = request.spec, request.from_cache
    if cache is None:
        return
    if not spec.unfreeze.startswith("layer"):
        raise SpecError(
            f"from_cache trains the stages behind a cached one, from layer2 on, and "
            f"unfreeze is {spec.unfreeze}; for the head alone use 'featcache fit-head'"
        )
    for name, useless in (
        ("mixup", spec.mixup),
        ("bn drift", spec.bn == "drift"),
        ("store_size", spec.store_size),
    ):
        if useless:
            raise SpecError(
                f"{name} is about images, and from_cache gives the frozen stages' "
                "output; leave one of them out"
            )


def _check_ranks(spec: FinetuneSpec, ranks: "Ranks") -> None:
    if spec.mixup and ranks.count > 1:
        raise SpecError(
            "mixup mixes the images of a whole batch, of which each of "
            f"{ranks.count} processes has a part; train in one, or without mixup"
        )


@contextmanager
def _folder(request: Request, out: Place | None, ranks: "Ranks") -> Iterator[Path]:
    """Make the run's folder and try it now, not hours later; leave no empty one."""
    existed = out is not None and Path(out).is_dir()
    if ranks.main:
        folder = run_folder(_name(request), out)
        with storing(folder), tempfile.TemporaryFile(dir=folder):
            pass
    folder = Path(ranks.told(os.fspath(folder) if ranks.main else None))
    try:
        yield folder
    finally:
        if not existed and ranks.main:
            with suppress(OSError):  # it is not empty: the run is kept
                folder.rmdir()


def _name(request: Request) -> str:
    if request.from_cache is not None:  # whose name may say more than one backbone
        return f"finetune-{Path(request.from_cache).stem}"
    known = request.data in KNOWN
    name = request.data if known else data_source(request.data).name
    return f"finetune-{name}-{request.backbone}"
