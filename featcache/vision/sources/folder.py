"""A folder of class folders as a source."""

from dataclasses import dataclass
from pathlib import Path

from featcache.core.manifest import Manifest
from featcache.vision.scan import scan


@dataclass(frozen=True)
class Folder:
    """Image files sorted into folders by class.

    Parameters
    ----------
    root : Path
        The data folder.
    """

    root: Path

    @property
    def address(self) -> str:
        """The absolute path."""
        return str(self.root.absolute())

    @property
    def name(self) -> str:
        """Of the folder itself."""
        return self.root.resolve().name

    def scan(self) -> Manifest:
        """Return the manifest, see `featcache.vision.scan.scan`.

        Returns
        -------
        Manifest
            Ordered by split, class and path bytes.

        Raises
        ------
        DataError
            When the folder is not what a data set looks like.
        """
        return scan(self.root)
