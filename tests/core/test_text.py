"""Words for people: whatever a name holds, what is shown is one printable line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.text import closest, listed, plural, shown, size, without_secrets

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(b"ants/1.jpg", "ants/1.jpg", id="plain"),
        pytest.param("größe/蜂.jpg", "größe/蜂.jpg", id="letters of the world"),
        pytest.param(Path("a/b.jpg"), "a/b.jpg", id="path"),
        pytest.param(b"caf\xe9.jpg", r"caf\xe9.jpg", id="bytes that are no UTF-8"),
        pytest.param("caf\udce9.jpg", r"caf\xe9.jpg", id="the same, decoded"),
        pytest.param("a\nb\tc", r"a\nb\tc", id="line end and tab"),
        pytest.param("\x1b[31mred", r"\x1b[31mred", id="terminal escape"),
        pytest.param("gpj.\u202eexe", r"gpj.\u202eexe", id="right-to-left override"),
        pytest.param("\ud800", r"\ud800", id="half a character, from JSON"),
    ],
)
def test_shown(path, expected):
    """What a terminal cannot show is spelled out."""
    assert shown(path) == expected


@given(path=st.binary(max_size=30) | ANY_TEXT)
def test_what_is_shown_is_one_line_of_utf8(path):
    """No name can break a line, a terminal, a log file or a JSON parser."""
    text = shown(path)
    assert text.isprintable()
    assert text.encode("utf-8").decode("utf-8") == text


@given(text=st.text().filter(str.isprintable))
def test_printable_text_is_shown_as_it_is(text):
    """Nothing is escaped that need not be."""
    assert shown(text) == text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param([], "", id="none"),
        pytest.param(["a"], "a", id="one"),
        pytest.param(["a", "b", "c"], "a, b, c", id="as many as fit"),
        pytest.param("abcde", "a, b, c and 2 more", id="more than fit"),
    ],
)
def test_listed(names, expected):
    """Beyond the limit it is said how many more there are."""
    assert listed(iter(names), limit=3) == expected


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (12_345, "image", "12,345 images"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
    ],
)
def test_plural(count, noun, expected):
    """Count and noun agree."""
    assert plural(count, noun) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("resnet5", "; did you mean 'resnet50'?", id="a slip"),
        pytest.param("vgg", "", id="nothing near"),
    ],
)
def test_closest(name, expected):
    """A likely slip of the keys is answered with a question, nothing else is."""
    assert closest(name, ("resnet50", "alexnet")) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (10**9, "1 GB"),
        (10**16, "1e+04 TB"),
    ],
)
def test_size(count, expected):
    """Three digits and the unit that makes them readable."""
    assert size(count) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://KEY:SEC/RET@b/x", "s3://***@b/x"),
        ("s3:/KEY:SECRET@b/x", "s3:/***@b/x"),  # as a path has it
        ("https://TOKEN@h/x", "https://***@h/x"),
        ("https://h/x?X-Amz-Credential=a/b&s=1", "https://h/x?***"),
        ("zip://x.tar::s3://me:pw@b/x", "zip://***@b/x"),
        ("no s3://u:p@h/x, nor s3://h/y", "no s3://***@h/x, nor s3://h/y"),
        *(
            (plain, plain)
            for plain in (
                "s3://host:9000/me@here/x.tar",
                "s3://b/what?.jpg",
                "s3://b/split=a/x?.tar",
                "C:/a@b",
                "me@here.jpg",
            )
        ),
    ],
)
def test_no_secret_of_a_url_is_shown(text, expected):
    """Credentials and queries; other signs stay what they are."""
    assert shown(text) == without_secrets(text) == expected
