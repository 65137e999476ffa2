"""Downloads: whole and the published file, or not there."""

import hashlib
import socket
import threading
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import pytest

from featcache.core.errors import DownloadError, StorageError
from featcache.core.progress import SILENT, Silent
from featcache.stages import downloads
from featcache.stages.downloads import Checksum, RemoteFile, download

OTHERWISE = "use something else"


def sha256(body: bytes, digits: int = 64) -> Checksum:
    """Return the checksum of a body, cut to so many digits."""
    return Checksum("sha256", hashlib.sha256(body).hexdigest()[:digits])


@pytest.fixture
def file(site, body) -> RemoteFile:
    """Publish a file of 200,000 bytes on the local site."""
    return RemoteFile(site.publish("/some/file.zip", body), sha256(body))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the file belongs, in a folder that is not there yet."""
    return tmp_path / "data" / "file.zip"


def fetch(file: RemoteFile, target: Path) -> Path:
    """Download with nobody listening."""
    return download(file, target, progress=SILENT, otherwise=OTHERWISE)


def files_in(folder: Path) -> list[str]:
    """Return the names of all files below a folder, hidden ones too."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_a_file_arrives_whole_and_alone(file, target, body, heard):
    """The published bytes are at the target and nothing else is in its folder."""
    found = download(file, target, progress=heard, otherwise=OTHERWISE)
    assert found == target
    assert target.read_bytes() == body
    assert files_in(target.parent) == ["file.zip"]


def test_every_byte_is_reported(file, target, body, heard):
    """Progress counts bytes up to the length that the server states."""
    download(file, target, progress=heard, otherwise=OTHERWISE)
    assert heard.tasks == [("download file.zip", len(body), "B")]
    assert (heard.count, heard.ended) == (len(body), 1)


def test_a_file_that_is_there_is_not_fetched_again(file, target, site, body):
    """A right file on disk is enough, also where the network is forbidden."""
    target.parent.mkdir()
    target.write_bytes(body)
    assert fetch(file, target) == target
    assert site.requests == []


@pytest.mark.parametrize(
    ("digits", "told"),
    [
        pytest.param(64, r"its sha256 is [0-9a-f]{64}, expected", id="digest"),
        pytest.param(8, r"its sha256 begins with [0-9a-f]{8}, expected", id="prefix"),
    ],
)
def test_another_file_in_its_place_is_refused(file, target, body, digits, told):
    """A wrong file is named with both digests, and left for its owner to judge."""
    target.parent.mkdir()
    target.write_bytes(b"mine")
    wanted = replace(file, checksum=sha256(body, digits))
    with pytest.raises(DownloadError, match=told) as caught:
        fetch(wanted, target)
    message = str(caught.value)
    assert message.startswith(f"{target} is not the published file: ")
    assert wanted.checksum.digits in message
    assert message.endswith(
        f"; delete it, put {file.url} in its place, or use something else"
    )
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("body_sent", [b"", b"x" * 70_000, b"x" * 200_000])
def test_wrong_bytes_are_not_kept(file, target, site, body_sent):
    """What the server sends counts only if its digest is the expected one."""
    site.publish("/some/file.zip", body_sent)
    with pytest.raises(DownloadError, match="what came is not the published file"):
        fetch(file, target)
    assert files_in(target.parent) == []


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_both_algorithms_are_understood(file, target, body, algorithm):
    """A publisher's sha1 protects as its sha256 would."""
    digits = hashlib.new(algorithm, body).hexdigest()
    checksum = Checksum(algorithm, digits)
    assert checksum.complete
    assert fetch(replace(file, checksum=checksum), target).read_bytes() == body


def test_a_length_may_be_unknown(file, target, site, body, heard):
    """Without Content-Length the checksum alone decides."""
    site.replies["/some/file.zip"].headers.clear()
    download(file, target, progress=heard, otherwise=OTHERWISE)
    assert heard.tasks == [("download file.zip", 0, "B")]
    assert target.read_bytes() == body


def test_a_body_that_ends_early_is_refused(file, target, site):
    """Fewer bytes than Content-Length promises are a broken connection."""
    site.replies["/some/file.zip"].sized(300_000)
    with pytest.raises(DownloadError, match="ended after 200,000 of 300,000 bytes"):
        fetch(file, target)
    assert files_in(target.parent) == []


def test_a_body_without_end_is_refused(file, target, site):
    """No more than the known size is ever written."""
    site.replies["/some/file.zip"].headers.clear()
    with pytest.raises(DownloadError, match="more than 1,000 bytes came"):
        fetch(replace(file, size=1000), target)
    assert files_in(target.parent) == []


def test_a_wrong_length_is_refused_before_the_body(file, target):
    """A server that states another size has another file."""
    with pytest.raises(DownloadError, match="has 200,000 bytes, expected 1,000"):
        fetch(replace(file, size=1000), target)


def test_an_http_error_says_what_to_do(file, target, site):
    """One line: what was wanted, why not, where to put it, what works without."""
    missing = replace(file, url=site.url + "/missing.zip")
    expected = (
        f"cannot download {site.url}/missing.zip: HTTP 404 Not Found; "
        f"put the file at {target} by hand, or use something else"
    )
    with pytest.raises(DownloadError) as caught:
        fetch(missing, target)
    assert str(caught.value) == expected


def test_a_refused_connection_says_so(file, target, site):
    """A server that does not run is the reason given."""
    site.close()
    with pytest.raises(DownloadError, match=r": Connection refused; put the file at"):
        fetch(file, target)


def test_a_silent_server_is_given_up(file, target, site, monkeypatch):
    """The wait for a byte has an end."""
    monkeypatch.setattr(downloads, "_TIMEOUT", 0.1)
    site.replies["/some/file.zip"].silent_until = threading.Event()
    with pytest.raises(DownloadError, match=r"no answer for 0\.1 seconds"):
        fetch(file, target)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(
            URLError(socket.gaierror(-2, "Name or service not known")),
            "host not found, is there a network? (Name or service not known)",
            id="no such host",
        ),
        pytest.param(URLError("no type"), "<urlopen error no type>", id="words"),
        pytest.param(HTTPException(), "HTTPException", id="no words"),
        pytest.param(OSError("two\nlines"), "two lines", id="one line"),
    ],
)
def test_a_reason_is_short(error, expected):
    """The innermost reason is told, on one line."""
    assert downloads._reason(error) == expected


def test_the_network_can_be_forbidden(file, target, site, monkeypatch):
    """FEATCACHE_OFFLINE=1 stops before the first connection."""
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
    with pytest.raises(DownloadError, match="FEATCACHE_OFFLINE is set; put the file"):
        fetch(file, target)
    assert site.requests == []


@pytest.mark.parametrize("value", ["", "0"])
def test_offline_can_be_switched_off(file, target, monkeypatch, value):
    """Empty and 0 mean that the network may be used."""
    monkeypatch.setenv("FEATCACHE_OFFLINE", value)
    assert fetch(file, target).is_file()


@pytest.mark.parametrize(
    ("url", "digits", "trusted"),
    [
        pytest.param("https://example.org/f", 8, True, id="https"),
        pytest.param("http://example.org/f", 64, True, id="http, whole digest"),
        pytest.param("http://example.org/f", 8, False, id="http, a few digits"),
        pytest.param("http://localhost:80/f", 8, True, id="this machine"),
        pytest.param("http://127.0.0.1.example.org/f", 8, False, id="looks local"),
        pytest.param("ftp://example.org/f", 64, False, id="ftp"),
        pytest.param("file:///etc/passwd", 64, False, id="file"),
    ],
)
def test_trust_needs_https_or_a_whole_digest(url, digits, trusted):
    """Eight digits can be forged, so they need a connection that cannot."""
    assert downloads._trusted(url, sha256(b"", digits)) is trusted


def test_an_untrusted_address_is_never_asked(file, target):
    """The refusal comes before the connection."""
    ftp = replace(file, url="ftp://127.0.0.1/file.zip")
    with pytest.raises(DownloadError, match="only https is trusted"):
        fetch(ftp, target)


def test_a_redirect_is_followed(file, target, site, body):
    """A file that moved is found."""
    moved = {"Location": file.url, "Content-Length": "0"}
    site.replies["/old"] = replace(site.replies["/some/file.zip"], body=b"")
    site.replies["/old"].status, site.replies["/old"].headers = 302, moved
    assert fetch(replace(file, url=site.url + "/old"), target).read_bytes() == body


def test_a_redirect_away_from_https_is_refused(file, target, site, body):
    """Nobody on the way can lead a weakly checked download to another server."""
    reply = site.replies["/some/file.zip"]
    reply.status, reply.headers = 302, {"Location": "http://example.invalid/file"}
    with pytest.raises(
        DownloadError,
        match=r"redirect to http://example\.invalid/file, which is not https",
    ):
        fetch(replace(file, checksum=sha256(body, 8)), target)


class Impatient(Silent):
    """A listener who presses Ctrl-C at the first bytes."""

    def advance(self, count: int) -> None:
        """Interrupt."""
        raise KeyboardInterrupt


def test_nothing_stays_after_ctrl_c(file, target):
    """An interrupted download leaves no partial file."""
    with pytest.raises(KeyboardInterrupt):
        download(file, target, progress=Impatient(), otherwise=OTHERWISE)
    assert files_in(target.parent) == []


def test_a_full_disk_is_no_download_error(file, target):
    """When the system takes no more bytes, the disk is named and nothing stays."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*file\.zip"):
            fetch(file, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_in(target.parent) == []


def test_a_folder_that_cannot_be_made_is_named(file, target):
    """A file where the folder should be is the disk's business, not the network's."""
    target.parent.write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write .*file\.zip"):
        fetch(file, target)


def test_a_folder_in_the_files_place_cannot_be_read(file, target):
    """What is there but no file is told as the system tells it."""
    target.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot read .*file\.zip"):
        fetch(file, target)
