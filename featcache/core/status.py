"""Status of a row: what became of its image."""

from enum import IntEnum

from featcache.core.errors import ImageError


class Status(IntEnum):
    """What the ``status`` dataset of a cache says of a row; part of the format."""

    PENDING = 0  # not computed yet
    OK = 1
    UNREADABLE = 2
    NOT_AN_IMAGE = 3
    DAMAGED = 4
    TOO_LARGE = 5
    UNSUPPORTED = 6
    QUARANTINED = 7  # crashes or hangs the decoder; not tried again

    @property
    def reason(self) -> str:
        """The status in words, for a row whose exact error is not at hand."""
        return _REASONS[self]


_REASONS = {
    Status.PENDING: "not computed yet",
    Status.OK: "fine",
    Status.UNREADABLE: "the file cannot be read",
    Status.NOT_AN_IMAGE: "not an image",
    Status.DAMAGED: "damaged or truncated image",
    Status.TOO_LARGE: "too many pixels",
    Status.UNSUPPORTED: "pixel format without a safe way to 8-bit RGB",
    Status.QUARANTINED: "crashes or hangs the decoder",
}


class UnusableImageError(ImageError):
    """One image cannot be used; the message is the reason, without its path.

    Parameters
    ----------
    status : Status
        What a cache writes down for it.
    reason : str
        One line for people.
    """

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
