"""Archives: a zip becomes a folder and nothing outside of it is touched."""

import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import pytest

from featcache.core.errors import DataError, StorageError
from featcache.core.progress import SILENT
from featcache.stages import archives
from featcache.stages.archives import made_whole, unpack

Pack = Callable[..., Path]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Give a maker of real zip files, hostile ones too."""

    def pack(*members: tuple[ZipInfo | str, bytes], packing: int = ZIP_STORED) -> Path:
        path = tmp_path / "given.zip"
        with warnings.catch_warnings(), ZipFile(path, "w", packing) as packed:
            warnings.simplefilter("ignore")  # zipfile warns of a name given twice
            for member, content in members:
                packed.writestr(member, content)
        return path

    return pack


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Make an empty folder, two below the one that must not change."""
    target = tmp_path / "inner" / "target"
    target.mkdir(parents=True)
    return target


def info(name: str, **fields: int) -> ZipInfo:
    """Return a member whose name and fields nobody mended."""
    member = ZipInfo("x")
    member.filename = name
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder by relative name."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize("packing", [ZIP_STORED, ZIP_DEFLATED])
def test_an_archive_becomes_a_folder(pack, target, body, heard, packing):
    """Files, nested folders and empty ones arrive as they were packed."""
    files = {"top/a.txt": b"a", "top/deep/er/ca\u00f1on.bin": body}
    unpack(
        pack(("top/empty/", b""), *files.items(), packing=packing),
        target,
        progress=heard,
    )
    assert contents(target) == files
    assert (target / "top/empty").is_dir()
    assert heard.tasks == [("unpack given.zip", 3, "file")]
    assert (heard.count, heard.ended) == (3, 1)


@pytest.mark.parametrize(
    ("member", "complaint"),
    [
        pytest.param(info("/etc/x"), "is absolute", id="absolute"),
        pytest.param(info("../x"), "leaves the folder", id="parent"),
        pytest.param(info("a/../../x"), "leaves the folder", id="parent inside"),
        pytest.param(info("a/.. /x"), "leaves the folder", id="parent on Windows"),
        pytest.param(info("a//x"), "leaves the folder", id="empty part"),
        pytest.param(info(""), "leaves the folder", id="no name"),
        pytest.param(info("C:x"), "a backslash, a colon or NUL", id="drive"),
        pytest.param(info("a\\..\\x"), "a backslash, a colon or NUL", id="backslash"),
        pytest.param(info("a\0b"), "a backslash, a colon or NUL", id="NUL"),
        pytest.param(info("a/" * 16 + "x"), "lies too deep", id="deep"),
        pytest.param(
            info("x", external_attr=(stat.S_IFLNK | 0o777) << 16),
            "is a link or a device",
            id="link",
        ),
        pytest.param(
            info("x", external_attr=(stat.S_IFIFO | 0o600) << 16),
            "is a link or a device",
            id="pipe",
        ),
        pytest.param(
            info("x", compress_type=ZIP_BZIP2), "in an unusual way", id="bzip2"
        ),
    ],
)
def test_a_hostile_member_is_refused_before_anything_is_written(
    pack, target, member, complaint
):
    """One bad name is enough for the whole archive to be left alone."""
    archive = pack(("fine.txt", b"fine"), (member, b"content"))
    with pytest.raises(DataError, match=rf"given\.zip cannot .* member .*{complaint}"):
        unpack(archive, target, progress=SILENT)
    assert contents(target.parent) == {}


def test_an_encrypted_member_is_refused(pack, target):
    """There is no password to ask for."""
    archive = pack(("x", b"content"))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flags of the central directory
    archive.write_bytes(data)
    with pytest.raises(DataError, match="member 'x' is encrypted"):
        unpack(archive, target, progress=SILENT)


@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("a", "a/b"), ("a/b", "a")],
    ids=["file twice", "file, folder", "folder, file"],
)
def test_a_name_given_twice_is_refused(pack, target, names):
    """No member replaces another."""
    archive = pack(*((name, b"content") for name in names))
    with pytest.raises(DataError, match="' twice"):
        unpack(archive, target, progress=SILENT)


def test_a_bomb_is_stopped(pack, target):
    """Content that grows far beyond the archive's size is not written out."""
    archive = pack(("zeros", bytes(3_000_000)), packing=ZIP_DEFLATED)
    with pytest.raises(DataError, match="far more than its size lets expect"):
        unpack(archive, target, progress=SILENT)
    assert sum(map(len, contents(target).values())) <= 20 * archive.stat().st_size


def test_the_limit_counts_all_files(pack, target):
    """The limit is exact, and for the archive as a whole."""
    archive = pack(("a", b"12345"), ("b", b"12345"))
    with pytest.raises(DataError, match="far more"):
        unpack(archive, target, progress=SILENT, limit=9)
    (target / "a").unlink()
    (target / "b").unlink()
    unpack(archive, target, progress=SILENT, limit=10)


def test_too_many_members_are_refused(pack, target, monkeypatch):
    """A million empty files are a bomb too."""
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 1)
    with pytest.raises(DataError, match="more than 1 members"):
        unpack(pack(("a", b""), ("b", b"")), target, progress=SILENT)


def test_a_damaged_file_is_found_by_its_crc(pack, target):
    """A changed byte of content does not pass."""
    archive = pack(("a", b"content"))
    archive.write_bytes(archive.read_bytes().replace(b"content", b"contenu"))
    with pytest.raises(DataError, match="Bad CRC-32"):
        unpack(archive, target, progress=SILENT)


def test_what_is_no_zip_is_refused(tmp_path, target):
    """An error page under a zip's name is told as that."""
    archive = tmp_path / "page.zip"
    archive.write_text("<html>")
    with pytest.raises(DataError, match=r"page\.zip cannot be unpacked: File is not"):
        unpack(archive, target, progress=SILENT)


def test_no_changed_byte_gets_past(pack, target):
    """With any one byte flipped: an error of ours, or the packed contents."""
    packed = {"top/a": b"hello " * 20, "top/b/c\u00e9": bytes(range(200))}
    archive = pack(*packed.items(), packing=ZIP_DEFLATED)
    data, around = archive.read_bytes(), set(target.parent.parent.rglob("*"))
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        archive.write_bytes(changed)
        with made_whole(target.parent / "made") as folder:
            (folder / "made").mkdir()
            try:
                unpack(archive, folder / "made", progress=SILENT)
            except DataError:
                continue
            assert set(contents(folder).values()) <= set(packed.values())
        break_down(target.parent / "made")
        assert set(target.parent.parent.rglob("*")) == around


def break_down(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_a_folder_appears_whole(tmp_path):
    """Until the work is done the target is not there; afterwards nothing else is."""
    target = tmp_path / "data" / "set"
    with made_whole(target) as partial:
        (partial / "set").mkdir()
        (partial / "set" / "a").write_bytes(b"a")
        (partial / "other").write_bytes(b"b")
        assert not target.exists()
    assert contents(tmp_path) == {"data/set/a": b"a"}
    assert [p.name for p in target.parent.iterdir()] == ["set"]


def test_a_folder_half_made_goes_away(tmp_path):
    """An interrupt leaves nothing."""

    def interrupted() -> None:
        with made_whole(tmp_path / "set") as partial:
            (partial / "set").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_the_faster_of_two_makers_wins(tmp_path):
    """A folder that another process finished meanwhile is kept."""
    target = tmp_path / "set"
    with made_whole(target) as partial:
        (partial / "set").mkdir()
        target.mkdir()
        (target / "theirs").write_bytes(b"")
    assert contents(tmp_path) == {"set/theirs": b""}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A file where a folder should be is a storage error."""
    (tmp_path / "data").write_bytes(b"")
    with (
        pytest.raises(StorageError, match="cannot write"),
        made_whole(tmp_path / "data" / "set"),
    ):
        pass
