"""Locations: where an image's bytes lie, a file of its own or a part of another."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.core.addresses import absolute, is_url, joined, of_file_url


@dataclass(frozen=True, slots=True)
class Member:
    """An image inside a larger file, as a run of its bytes.

    Parameters
    ----------
    shard : str
        The file, a tar for example.
    path : str
        Of the image within the shard, for people.
    start : int
        Its first byte in the shard.
    size : int
        Its bytes.
    length : int
        Bytes of the shard; 0 where nobody has to know.
    """

    shard: str
    path: str
    start: int
    size: int
    length: int = 0

    def __fspath__(self) -> str:
        # What `shown` and error messages need; nothing lies on the disk under it.
        return f"{self.shard}/{self.path}"

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Cell:
    """An image in a table, as a value of a column.

    Parameters
    ----------
    file : str
        Parquet or Arrow.
    column : str
        The column's name.
    group : int
        The group of rows that are stored together.
    row : int
        The image's row in the group.
    path : str
        The row within the file, for people.
    """

    file: str
    column: str
    group: int
    row: int
    path: str

    def __fspath__(self) -> str:
        return f"{self.file}/{self.path}"

    @property
    def name(self) -> str:
        """For people."""
        return self.path


@dataclass(frozen=True, slots=True)
class Object:
    """An image that is an object of a store.

    Parameters
    ----------
    url : str
        Where it lies.
    size : int
        Its bytes when it was listed; 0 where nobody knows.
    """

    url: str
    size: int = 0

    def __fspath__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its URL."""
        return self.url.rpartition("/")[2]


Location = Path | Member | Cell | Object


def located(root: Path | str, path: str, size: int) -> Location:
    """Return where an image lies that is no part of another file.

    Parameters
    ----------
    root : Path or str
        A folder, or the URL of one.
    path : str
        Relative to it, absolute, or a URL itself.
    size : int
        Of the image, bytes.

    Returns
    -------
    Path or Object
        Not looked at yet.
    """
    path = of_file_url(path)
    if is_url(path):
        return Object(path, size)
    if isinstance(root, str):
        return Object(joined(root, path), size)
    return root / path


def location_to_json(location: Location) -> Any:  # noqa: ANN401 - JSON data
    """Return a location as JSON data, for another process of this machine.

    Parameters
    ----------
    location : Path, Member, Cell or Object
        Where an image lies.

    Returns
    -------
    str or list
        An absolute path, or the fields of a part.
    """
    if isinstance(location, Member):
        where = [location.start, location.size, location.length]
        return ["member", absolute(location.shard), location.path, *where]
    if isinstance(location, Cell):
        row = [location.column, location.group, location.row, location.path]
        return ["cell", absolute(location.file), *row]
    if isinstance(location, Object):
        return ["object", location.url, location.size]
    return os.path.abspath(location)  # noqa: PTH100 - bytes stay


def location_from_json(data: Any) -> Location:  # noqa: ANN401 - JSON data
    """Return the location that `location_to_json` wrote down.

    Parameters
    ----------
    data : str or list
        As JSON carried it.

    Returns
    -------
    Path, Member, Cell or Object
        Where an image lies.
    """
    if isinstance(data, str):
        return Path(data)
    kind, *fields = data
    if kind == "object":
        return Object(*fields)
    return Member(*fields) if kind == "member" else Cell(*fields)
