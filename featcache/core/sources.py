"""Sources: where labelled images come from, whatever holds them."""

from typing import Protocol

from featcache.core.manifest import Manifest


class Source(Protocol):
    """Labelled images: a folder, a list of files, shards.

    Its manifest says how many there are and of which classes, in the order in which
    they are read fastest; `Manifest.file` says where the bytes of each one lie.
    """

    @property
    def address(self) -> str:
        """What finds the same source again, from anywhere on this machine."""

    @property
    def name(self) -> str:
        """What files made of it are called by default."""

    def scan(self) -> Manifest:
        """Return the manifest of the source as it is now; no image is decoded."""
