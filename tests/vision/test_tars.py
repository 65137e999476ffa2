"""Tars from front to back: what `tarfile` reads, and a refusal where it is silent."""

import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.vision.sources.tars import (
    BrokenTarError,
    TarMember,
    Windows,
    tar_members,
)

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
PARTS = st.text("abc.é 0", min_size=1, max_size=60).filter(lambda s: s.strip(". "))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


def made(members, kind=tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read(data: bytes) -> list[TarMember]:
    return list(tar_members(Windows(io.BytesIO(data))))


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=5),
    st.sampled_from(FORMATS),
)
def test_members_are_those_of_tarfile(members, kind):
    """Names, places and sizes, in each of the three formats, long names included."""
    try:
        data = made(members, kind)
    except ValueError:  # a name too long for ustar
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [
            TarMember(m.name.encode(), m.offset_data, m.size) for m in tar.getmembers()
        ]
    assert [
        TarMember(m.name.rstrip(b"/"), m.start, m.size) for m in read(data)
    ] == expected


def test_links_and_folders_are_passed_over():
    """Their headers do not end the walk."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in [
            ("d", tarfile.DIRTYPE),
            ("l", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("p", tarfile.FIFOTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a"
            tar.addfile(info)
        info = tarfile.TarInfo("a")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    (member,) = read(out.getvalue())
    assert member.name == b"a"
    assert out.getvalue()[member.start :][: member.size] == b"abc"


def test_a_size_of_nine_gigabytes_is_read():
    """GNU's and PAX' ways to say it; the bytes themselves need not be there."""
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("large")
        info.size = 9 << 30
        windows = Windows(io.BytesIO(info.tobuf(kind)))
        windows.length = 10 << 30  # as if the rest were there
        assert next(tar_members(windows)).size == 9 << 30


@given(st.data())
def test_no_cut_goes_unseen(data):
    """Wherever a tar is cut off, the members before it come, and then the error."""
    members = [("a.jpg", b"x" * 700), ("a.cls", b"1"), ("b.jpg", b"y" * 512)]
    whole = made(members)
    last = read(whole)[-1]
    length = data.draw(st.integers(1, last.start + last.size))
    found = []
    with pytest.raises(BrokenTarError, match="ends w") as caught:
        found.extend(tar_members(Windows(io.BytesIO(whole[:length]))))
    assert caught.value.cut
    assert found == [m for m in read(whole) if m.start + m.size <= length]
    assert caught.value.offset <= length + 511


@given(st.integers(0, 511), st.integers(1, 255))
def test_no_changed_header_goes_unseen(at, change):
    """Any byte of a header, changed in any way, is an error or changes nothing."""
    whole = bytearray(made([("a.jpg", b"x" * 700), ("b.jpg", b"y")]))
    second = read(bytes(whole))[1].start - 512
    whole[second + at] = (whole[second + at] + change) % 256
    if 148 <= at < 156:  # in the sum's own field, spaces and zeros mean the same
        with suppress(BrokenTarError):
            assert read(bytes(whole))[1].name == b"b.jpg"
        return
    with pytest.raises(BrokenTarError) as caught:
        read(bytes(whole))
    assert caught.value.offset == second


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b" + bytes(600), "compressed with gzip"),
        (b"(\xb5/\xfd" + bytes(600), "compressed with zstd"),
        (b"no tar at all" + bytes(600), "is no tar archive"),
        (made([("a", b"1")]) + made([("b", b"2")]), "joined by cat"),
    ],
)
def test_what_is_no_tar_is_refused(data, reason):
    with pytest.raises(BrokenTarError, match=reason) as caught:
        read(data)
    assert not caught.value.cut


def test_sparse_members_are_refused():
    """Their bytes do not lie in one run."""
    for header in (_sparse_gnu(), _sparse_pax()):
        with pytest.raises(BrokenTarError, match="sparse file"):
            read(header + bytes(4096))


def _sparse_gnu() -> bytes:
    info = tarfile.TarInfo("a")
    info.type = tarfile.GNUTYPE_SPARSE
    return info.tobuf(tarfile.GNU_FORMAT)


def _sparse_pax() -> bytes:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"GNU.sparse.major": "1"}
    return info.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize("record", [b"x path=a\n", b"99 path=a\n", b"1 path=a\n"])
def test_damaged_pax_records_are_refused(record):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    data = info.tobuf() + record.ljust(512, b"\0") + made([("a", b"1")])
    with pytest.raises(BrokenTarError, match="is damaged"):
        read(data)


def test_a_pax_size_that_is_no_number_is_refused():
    record = b"11 size=9x\n"
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    data = info.tobuf() + record.ljust(512, b"\0") + made([("a", b"1")])
    with pytest.raises(BrokenTarError, match="is damaged"):
        read(data)


def test_an_extension_of_gigabytes_is_refused():
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 << 20
    with pytest.raises(BrokenTarError, match="is damaged"):
        read(info.tobuf() + bytes(3 << 20))
