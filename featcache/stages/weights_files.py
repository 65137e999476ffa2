"""Where published weights lie: the same files that torch itself downloads."""

import os
from pathlib import Path

from featcache.core.catalog import PublishedWeights
from featcache.core.progress import Progress
from featcache.stages.downloads import Checksum, RemoteFile, download

_OTHERWISE = "use --weights FILE.pth, --weights FILE.safetensors or --weights random"


def checkpoints_folder() -> Path:
    """Return the folder in which torch keeps downloaded weights.

    Returns
    -------
    Path
        What ``torch.hub`` uses, found without importing torch: ``hub/checkpoints`` in
        ``$TORCH_HOME``, else in ``$XDG_CACHE_HOME/torch``, else in ``~/.cache/torch``.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("TORCH_HOME") or Path(caches, "torch"))
    return home.expanduser() / "hub" / "checkpoints"


def published_file(weights: PublishedWeights, *, progress: Progress) -> Path:
    """Return the file of published weights; fetch it when it is not there.

    Parameters
    ----------
    weights : PublishedWeights
        Row of the catalog.
    progress : Progress
        Hears of the bytes that arrived.

    Returns
    -------
    Path
        A file whose sha256 begins as its name states, checked at every call: torch
        itself checks a file only while downloading it.

    Raises
    ------
    DownloadError
        When the file cannot be had, or is another one.
    StorageError
        When it cannot be written.
    """
    checksum = Checksum("sha256", weights.sha256_prefix)
    file = RemoteFile(weights.url, checksum)
    target = checkpoints_folder() / weights.file
    return download(file, target, progress=progress, otherwise=_OTHERWISE)
