"""Pictures on the disk: where they go, checked before they are made."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.core.errors import SpecError
from featcache.core.libraries import optional
from featcache.core.text import shown
from featcache.stages.runs import RUNS_FOLDER
from featcache.store.files import replacing

if TYPE_CHECKING:
    from featcache.viz.picture import Picture


def picture_file(name: str, out: str | os.PathLike[str] | None) -> Path:
    """Return the file that a picture goes to; refuse at once what cannot be.

    Parameters
    ----------
    name : str
        What is shown; a pattern's signs become ``_``.
    out : str or path, optional
        The user's choice; ``runs/NAME.png`` without it.

    Returns
    -------
    Path
        Not made yet.

    Raises
    ------
    DependencyError
        When matplotlib is not installed.
    SpecError
        When its ending is neither .png nor .svg, or it is a folder.
    """
    from featcache.viz.style import picture_kind

    plain = re.sub(r"[*?\[\]]", "_", name)
    file = RUNS_FOLDER / f"{plain}.png" if out is None else Path(out)
    picture_kind(file)
    if file.is_dir():
        raise SpecError(f"{shown(file)} is a folder; name a file for the picture")
    optional("matplotlib", "drawing", extra="plot")
    return file


def save_picture(picture: "Picture", file: Path) -> None:
    """Write a picture, whole or not at all; its folder is made.

    Parameters
    ----------
    picture : Picture
        Drawn.
    file : Path
        From `picture_file`.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    from featcache.viz.style import picture_kind, save_figure

    with replacing(file) as temporary:
        save_figure(picture, temporary, picture_kind(file))
