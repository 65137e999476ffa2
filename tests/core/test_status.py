"""Status: part of the format, each with words for people."""

import pytest

from featcache.core.errors import BadImage, ImageError, bad_images_error
from featcache.core.status import Status, UnusableImageError


def test_numbers_are_part_of_the_format():
    """A change here would give old caches another meaning."""
    names = "PENDING OK UNREADABLE NOT_AN_IMAGE DAMAGED TOO_LARGE UNSUPPORTED "
    names += "QUARANTINED"
    assert [s.name for s in sorted(Status)] == names.split()
    assert [int(s) for s in sorted(Status)] == list(range(8))


@pytest.mark.parametrize("status", Status, ids=lambda s: s.name)
def test_each_has_a_reason(status):
    """One line, no two alike."""
    assert status.reason.isprintable()
    assert [s.reason for s in Status].count(status.reason) == 1


def test_an_unusable_image_has_both():
    """Status for the cache, reason for people."""
    error = UnusableImageError(Status.DAMAGED, "cut off")
    assert isinstance(error, ImageError)
    assert (error.status, str(error)) == (Status.DAMAGED, "cut off")


@pytest.mark.parametrize(
    ("count", "message"),
    [
        pytest.param(1, r"^1 of 9 images cannot be used \(0.jpg: torn\);", id="one"),
        pytest.param(3, r"^3 of 9 .*\(0.jpg: torn and 2 more\);", id="several"),
    ],
)
def test_bad_images_are_told_in_one_line(count, message):
    """The first is named, all are kept for those who ask."""
    bad = [BadImage(f"{i}.jpg", "torn") for i in range(count)]
    error = bad_images_error(bad, 9)
    assert error.images == tuple(bad)
    with pytest.raises(type(error), match=message):
        raise error
