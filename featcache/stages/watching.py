"""Watching a folder that fills up: which of its images are there whole."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from featcache.core.errors import DataError
from featcache.core.predictions import ImageFile
from featcache.core.progress import Progress
from featcache.core.text import shown
from featcache.stages.image_files import list_folder


class Watcher:
    """Looks at a folder again and again.

    Parameters
    ----------
    folder : Path
        Watched with all folders below it.
    is_done : callable
        Tells whether an image needs no more work as it is now.
    progress : Progress
        Hears once of each thing in the way.

    Raises
    ------
    DataError
        When there is no such folder.
    """

    def __init__(
        self, folder: Path, is_done: Callable[[ImageFile], bool], progress: Progress
    ) -> None:
        if not folder.is_dir():
            raise DataError(
                f"no folder {shown(folder)} to watch; make it first, or name another"
            )
        self._folder, self._is_done, self._progress = folder, is_done, progress
        self._seen: set[ImageFile] = set()
        self._told: set[str] = set()

    def look(self) -> list[ImageFile]:
        """Return the images that are not done and have not changed since last time.

        Returns
        -------
        list of ImageFile
            In the order of their paths; of the first look none. Who looks too often
            takes a file for whole that is still being written.
        """
        try:
            now = list(list_folder(self._folder, Counter()))
        except DataError as error:  # a folder that vanished meanwhile, for example
            if str(error) not in self._told:
                self._progress.say(f"warning: {error}")
                self._told.add(str(error))
            return []
        open_ = [file for file in now if not self._is_done(file)]
        ready = [file for file in open_ if file in self._seen]
        self._seen = set(open_)
        return ready
