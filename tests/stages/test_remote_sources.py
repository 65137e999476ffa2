"""Sources at URLs: the bytes of the local ones, whatever the object store does."""

import shutil
import threading
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.addresses import absolute, is_url, require_no_secret
from featcache.core.errors import (
    BadImagesError,
    DataError,
    DependencyError,
    UnreachableError,
)
from featcache.stages.changes import status
from featcache.stages.plans import image_digest
from featcache.vision import reading
from featcache.vision.reading import read_bytes
from featcache.vision.sources import pieces, remote, statuses, trying
from featcache.vision.sources.opening import open_source
from featcache.vision.sources.statuses import remote_statuses
from tests.conftest import picture
from tests.shards import make_tar, shard
from tests.stages.test_extraction import Listener, contents, sampled_pixels
from tests.tables import write_parquet

fsspec = pytest.importorskip("fsspec")
SECRET = "hunter2-the-secret-key"


@pytest.fixture
def quick(monkeypatch):
    """Put sampled pixels in the network's place: what is tested is around it."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)


@pytest.fixture
def hasty(monkeypatch):
    """Wait no half second between two tries."""
    monkeypatch.setattr(trying, "_PAUSE", 0.001)


def extract(data, name, spec=None, **how):
    return featcache.extract(data, spec, weights="random:0", cache=name, **how)


def upload(folder: Path, url: str) -> None:
    system, root = fsspec.url_to_fs(url)
    for path in folder.rglob("*.*"):
        system.pipe_file(
            f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes()
        )


@pytest.fixture
def files(shared_photos, tmp_path, monkeypatch):
    """Shards and Parquet on the disk."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        shard(shared_photos, tmp_path / "d", split)
    if pytest.importorskip("pyarrow"):
        write_parquet(shared_photos / "train", tmp_path / "d" / "train.parquet")
        write_parquet(shared_photos / "val", tmp_path / "d" / "val.parquet")
    return tmp_path / "d"


@pytest.fixture
def memory(files):
    """The same in fsspec's own store."""
    upload(files, "memory://bucket/d")
    yield "memory://bucket/d"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


PATTERNS = ["{train,val}-{000..001}.tar", "*.tar", "{train,val}.parquet"]


@pytest.mark.parametrize(
    "pattern",
    [PATTERNS[0], *(pytest.param(p, marks=pytest.mark.slow) for p in PATTERNS[1:])],
)
def test_a_cache_of_urls_is_that_of_the_files(files, memory, quick, pattern):
    """Byte for byte but for the times; status and a second run know the place."""
    local = contents(extract(f"{files}/{pattern}", "local.h5"))
    made = extract(f"{memory}/{pattern}", "remote.h5")
    assert contents(made) == local
    assert made.provenance["data"] == f"{memory}/{pattern}"
    assert status("remote.h5").unchanged == 20
    assert extract(f"{memory}/{pattern}", "remote.h5").report.computed == 0
    assert featcache.verify("remote.h5", sample=5).largest_error == 0


@pytest.mark.slow
@pytest.mark.parametrize("where", ["memory", "files"])
def test_a_run_is_measured_where_it_was_trained(where, request):
    """A report without data looks there, for pictures too; a URL stays a URL."""
    data = f"{request.getfixturevalue(where)}/{{train,val}}-*.tar"
    spec = featcache.FinetuneSpec(epochs=1, batch_size=8)
    featcache.finetune(data, spec, weights="random:0", out="run")
    made = featcache.report("run")
    assert (made.images, made.pictures) == (8, 8)


def test_a_file_url_is_the_file(files, quick):
    made = extract(f"file://{files}/*.tar", "it.h5")
    assert made.provenance["data"] == f"{files}/*.tar"


@pytest.mark.slow
def test_new_bytes_at_a_url_are_seen(files, memory, quick, tmp_path):
    """One image more: one is computed, though pieces of the old shard were kept."""
    assert len(extract(f"{memory}/*.tar", "it.h5")) == 20
    picture(5, (1, 2, 3)).save(tmp_path / "new.png")
    more = (tmp_path / "new.png").read_bytes()
    tar = make_tar(tmp_path / "val-002.tar", [("n.png", more), ("n.cls", b"ants")])
    fsspec.filesystem("memory").pipe_file("/bucket/d/val-002.tar", tar.read_bytes())
    assert status("it.h5").to_compute == 1
    assert extract(f"{memory}/*.tar", "it.h5").report.computed == 1


def test_shards_are_read_in_large_pieces(files, memory, monkeypatch):
    """In the order of the rows each byte is asked for once, and no piece is small."""
    asked, plain = [], pieces.remote_bytes

    def counted(url, start, size):
        asked.append((url, start, size))
        return plain(url, start, size)

    monkeypatch.setattr(pieces, "remote_bytes", counted)
    monkeypatch.setattr(pieces, "PIECE", 4096)
    manifest = open_source(f"{memory}/*.tar").scan()
    assert len(asked) == len(set(asked))
    total = sum(path.stat().st_size for path in files.glob("*.tar"))
    assert sum(size for _, _, size in asked) <= total
    pieces.forget_pieces()
    asked.clear()
    for row in range(len(manifest)):
        read_bytes(manifest.file(row))
    assert len(asked) == len(set(asked))
    assert sum(size for _, _, size in asked) <= total


def test_an_image_above_a_piece_is_read_at_once(memory, monkeypatch):
    manifest = open_source(f"{memory}/*.tar").scan()
    expected = read_bytes(manifest.file(3))
    monkeypatch.setattr(pieces, "PIECE", 100)
    assert read_bytes(manifest.file(3)) == expected


def test_urls_and_paths_are_told_apart(tmp_path):
    assert is_url("s3://b/k")
    assert not is_url("C://b/k")
    assert not is_url(tmp_path)
    assert not is_url("a/b://c")
    assert absolute("s3://b/k") == "s3://b/k"
    assert absolute("k") == str(Path.cwd() / "k")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"s3://me:{SECRET}@b/x.tar", "holds credentials or a query"),
        (f"https://h/x.tar?X-Amz-Signature={SECRET}", "holds credentials or a query"),
        ("https://h/*/x.tar?a=1", "holds credentials or a query"),
        ("memory://b/split=a/x.tar", "no file matches"),
        (f"s3://KEY:{SECRET}/part2@b/x.tar", "holds credentials or a query"),
        (f"zip://x.tar::s3://me:{SECRET}@b/x.tar", "holds credentials or a query"),
        ("memory://b/folder", "is no source of images: at a URL these are tar"),
        ("memory://b/x.arrow", "is no source of images: at a URL these are tar"),
        ("memory://b/list.csv", r"memory://b/list\.csv: there is no such file"),
        ("memory://b/none.tar", r"no file matches memory://b/none\.tar"),
        ("memory://b/*.tar", "no file matches"),
        ("nosuch://b/x.tar", "fsspec knows no nosuch:// addresses"),
    ],
)
def test_a_wrong_url_is_refused(url, reason):
    """And no secret is repeated."""
    with pytest.raises(DataError, match=reason) as caught:
        open_source(url).scan()
    assert SECRET not in str(caught.value)


def test_without_its_library_a_scheme_is_refused(monkeypatch):
    def missing(url):
        raise ImportError(f"Install s3fs to access {url}")

    monkeypatch.setattr("fsspec.url_to_fs", missing)
    with pytest.raises(
        DependencyError, match=r"lacks s3fs, the library for s3://; pip"
    ):
        open_source("s3://b/x.tar").scan()


def test_without_fsspec_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(DependencyError, match=r"pip install 'featcache\[remote\]'"):
        open_source("s3://b/x.tar").scan()


def fails(error, times, monkeypatch):
    """Let every read of the memory store fail some times."""
    kind = type(fsspec.filesystem("memory"))
    plain, left = kind.cat_file, [times]

    def cat_file(self, path, start=None, end=None):
        left[0] -= 1
        if left[0] >= 0:
            if error == "cut":
                return plain(self, path, start, (start + end) // 2)
            raise error
        return plain(self, path, start, end)

    monkeypatch.setattr(kind, "cat_file", cat_file)


class NoCredentialsError(Exception):
    """Called as botocore's."""


class ClientError(Exception):
    """Called as botocore's, whose text may hold anything."""

    def __init__(self, code: str) -> None:
        super().__init__(f"signed with {SECRET}")
        self.response = {"Error": {"Code": code}}


def http_error(status: int) -> FileNotFoundError:
    """Return what fsspec's HTTP makes of any answer but a good one."""
    aiohttp = pytest.importorskip("aiohttp")
    error = FileNotFoundError(SECRET)
    error.__cause__ = aiohttp.ClientResponseError(None, (), status=status)
    return error


@pytest.mark.parametrize("error", ["cut", TimeoutError(), ClientError("InternalError")])
def test_what_passes_is_tried_again(memory, monkeypatch, hasty, error):
    expected = open_source(f"{memory}/*.tar").scan()
    fails(error, 3, monkeypatch)
    assert (
        open_source(f"{memory}/*.tar").scan().paths.tolist() == expected.paths.tolist()
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("cut", "it gives [0-9,]+ of [0-9,]+ bytes"),
        (TimeoutError(), "no answer in time, 6 times"),
        (ConnectionRefusedError(), "no connection, 6 times"),
        (FileNotFoundError(), "there is no such file"),
        (http_error(404), "there is no such file"),
        (http_error(503), r"cannot be read \(ClientResponseError 503\), 6 times"),
        (http_error(403), "access is refused; check the credentials"),
        (PermissionError(SECRET), "access is refused; check the credentials"),
        (ClientError("AccessDenied"), "access is refused; check the credentials"),
        (ClientError("InvalidAccessKeyId"), "access is refused; check the cred"),
        (NoCredentialsError(SECRET), "no credentials were found"),
        (ClientError("InternalError"), r"cannot be read \(ClientError InternalError\)"),
    ],
)
def test_what_does_not_pass_is_told_without_secrets(
    memory, monkeypatch, hasty, error, reason
):
    """By the shard and the kind of failure."""
    fails(error, 99, monkeypatch)
    with pytest.raises(DataError, match=rf"d/.*\.tar: .*{reason}") as caught:
        open_source(f"{memory}/*.tar").scan()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["s3://host:9000/me@here/x.tar", "memory://a@b/x"])
def test_a_sign_alone_is_no_secret(url):
    """A colon before a port, a user's name in a key; but in the host's place it is."""
    if url.startswith("memory"):
        with pytest.raises(DataError, match="holds credentials"):
            require_no_secret(url)
    else:
        require_no_secret(url)


def test_a_store_that_fails_in_the_middle_ends_the_run(memory, monkeypatch, quick):
    """Not one image is taken for a bad one; the next run goes on and is right."""
    data, one = f"{memory}/*.tar", featcache.ExtractSpec(workers=1, batch_size=2)
    whole = contents(extract(data, "whole.h5"))
    read_whole = reading.remote_member

    def refuse(place):
        if "val-" in place.shard:
            raise UnreachableError(f"{place.shard}: access is refused")
        return read_whole(place)

    monkeypatch.setattr(reading, "remote_member", refuse)
    skip = replace(one, on_error="skip")
    with pytest.raises(UnreachableError, match=r"val-000\.tar: access is refused"):
        extract(data, "it.h5", skip)
    assert not Path("it.h5").exists()
    with pytest.raises(UnreachableError, match="access is refused"):
        image_digest(open_source(data).scan().file(19))
    monkeypatch.setattr(reading, "remote_member", read_whole)
    assert contents(extract(data, "it.h5", one)) == whole


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("files", "tar"),
        pytest.param("memory", "tar", marks=pytest.mark.slow),
        pytest.param("memory", "parquet", marks=pytest.mark.slow),
        pytest.param("files", "parquet", marks=pytest.mark.slow),
    ],
)
def test_a_file_that_changes_under_the_run_is_told(request, quick, kind, ending):
    """Labels were read before, images after: no cache is made of that."""
    where = request.getfixturevalue(kind)
    data = f"{where}/train*.{ending}"
    system, path = fsspec.url_to_fs(
        f"{where}/train{'-001' * (ending == 'tar')}.{ending}"
    )

    class Replacing(Listener):
        def begin(self, *args, **kwargs):
            super().begin(*args, **kwargs)
            old = system.cat_file(path)
            # Another size, too: times of stores are compared in whole seconds.
            new = old + bytes(512) if ending == "tar" else old[::-1] + bytes(1)
            system.pipe_file(path, new)

    if ending == "parquet":
        skip = featcache.ExtractSpec(on_error="skip")
        extract(data, "before.h5", skip)  # to read it takes longer than to replace it
    with pytest.raises(DataError, match=rf"train.*{ending} changed while images were"):
        extract(data, "it.h5", progress=Replacing())
    assert not Path("it.h5").exists()
    if ending == "tar":
        assert len(extract(data, "it.h5")) == 12


@pytest.fixture
def photo_list(shared_photos, tmp_path, monkeypatch):
    """The photos in fsspec's own store, and lists of them there and here."""
    monkeypatch.chdir(tmp_path)
    upload(shared_photos, "memory://bucket/photos")
    rows = []
    for path in sorted(shared_photos.rglob("*.*")):
        name = path.relative_to(shared_photos).as_posix()
        split, label, _ = name.split("/")
        rows.append((name, label, split))
    for root, target in (
        ("../photos/", "memory://bucket/lists/all.csv"),
        ("memory://bucket/photos/", str(tmp_path / "all.csv")),
    ):
        text = ["path,label,split", *(f"{root}{n},{c},{s}" for n, c, s in rows)]
        system, path = fsspec.url_to_fs(target)
        system.pipe_file(path, "\n".join(text).encode())
    yield "memory://bucket/lists/all.csv"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    "where", ["there", pytest.param("here", marks=pytest.mark.slow)]
)
def test_a_list_of_urls_gives_the_cache_of_the_folder(
    photo_list, shared_photos, quick, where
):
    """The list at a URL, with paths relative to it; or URLs in a list on the disk."""
    data = photo_list if where == "there" else "all.csv"
    made = extract(data, "it.h5")
    folder = extract(shared_photos, "folder.h5")
    for name in ("features", "labels", "splits", "digests", "sizes", "classes"):
        assert made.columns[name].tobytes() == folder.columns[name].tobytes(), name
    assert status("it.h5").unchanged == 20
    assert extract(data, "it.h5").report.computed == 0
    assert featcache.verify("it.h5", sample=5).largest_error == 0
    assert featcache.show("it.h5", per_class=1).figure is not None


@pytest.mark.slow
def test_an_object_that_is_missing_is_a_bad_image(photo_list, quick):
    """One is named; where none is there the list is refused."""
    system = fsspec.filesystem("memory")
    gone = "/bucket/photos/train/ants/00.jpg"
    kept = system.cat_file(gone)
    system.rm(gone)
    with pytest.raises(BadImagesError) as caught:
        extract(photo_list, "it.h5")
    (bad,) = caught.value.images
    assert bad.path == "../photos/train/ants/00.jpg"
    assert bad.reason == f"cannot be read: memory:/{gone}: there is no such file"
    system.pipe_file(gone, kept)
    assert extract(photo_list, "it.h5").report.computed == 1
    system.rm("/bucket/photos", recursive=True)
    at = r"memory://bucket/photos/train/ants/00\.jpg"
    with pytest.raises(DataError, match=rf"none of the 20 files .* looked for at {at}"):
        extract(photo_list, "it.h5")


@pytest.mark.slow
def test_a_replaced_object_is_computed_anew(photo_list, quick, tmp_path):
    extract(photo_list, "it.h5")
    picture(5, (1, 2, 3)).save(tmp_path / "new.jpg")
    data = (tmp_path / "new.jpg").read_bytes()
    fsspec.filesystem("memory").pipe_file("/bucket/photos/val/bees/00.jpg", data)
    assert status("it.h5").to_compute == 1
    assert extract(photo_list, "it.h5").report.computed == 1


@pytest.mark.slow
def test_parts_of_a_list_of_urls_are_the_whole(photo_list, quick):
    for part in ("1/2", "2/2"):
        featcache.extract(photo_list, weights="random:0", cache="it.h5", shard=part)
    assert len(featcache.open_cache("it-part-*-of-2.h5")) == 20


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/data/a.jpg,ants", r"line 22: /data/a\.jpg is a path of one machine"),
        (
            f"https://h/a.jpg?sig={SECRET},ants",
            r"line 22: its path .* holds credential",
        ),
        (f"s3://me:{SECRET}@b/a.jpg,ants", r"line 22: its path .* holds credentials"),
    ],
)
def test_a_wrong_line_of_a_list_at_a_url_is_refused(photo_list, line, reason):
    system, path = fsspec.url_to_fs(photo_list)
    system.pipe_file(path, system.cat_file(path) + f"\n{line},train".encode())
    with pytest.raises(DataError, match=reason) as caught:
        open_source(photo_list).scan()
    assert SECRET not in str(caught.value)


def test_files_of_one_folder_are_asked_for_together(photo_list, monkeypatch):
    """A listing for each folder; where that is forbidden, each file."""
    system = fsspec.filesystem("memory")
    urls = [f"memory:/{path}" for path in system.find("/bucket/photos")]
    urls.append("memory://bucket/photos/none.jpg")
    asked, info = [], type(system).info
    monkeypatch.setattr(
        type(system), "info", lambda *a, **k: asked.append(a) or info(*a, **k)
    )
    monkeypatch.setattr(statuses, "_FEW", 2)
    expected = remote_statuses(urls)
    few, asked[:] = len(asked), []

    def forbid(*_, **__):
        raise PermissionError

    monkeypatch.setattr(type(system), "ls", forbid)
    found = remote_statuses(urls)
    assert np.array_equal(found, expected)
    assert (few, len(asked)) == (1, 21)
    assert (found[0][:-1] > 0).all()
    assert [each[-1] for each in found] == [0, 0]


def test_what_a_store_calls_the_time_of_change():
    """None where it does not say; an object without a size cannot be read."""
    at = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    seconds = int(at.timestamp())
    for said in (
        {"LastModified": at},
        {"updated": at.isoformat()},
        {"mtime": seconds + 0.5},
        {"Last-Modified": format_datetime(at)},
    ):
        assert remote.status_of("s3://b/k", {"size": 3, **said}) == (3, seconds * 10**9)
    for said in ({}, {"LastModified": None}, {"updated": "a while ago"}):
        assert remote.status_of("s3://b/k", {"size": 3, **said}) == (3, None)
    with pytest.raises(remote.RemoteError, match="does not say how large it is"):
        remote.status_of("s3://b/k", {"size": None})


def test_a_server_that_is_silent_is_an_error_in_time(memory, monkeypatch):
    """Whatever its library thinks of that: it is left behind."""
    monkeypatch.setattr(trying, "_PATIENCE", 0.2)
    kind = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(kind, "cat_file", lambda *_, **__: time.sleep(3))
    began = time.monotonic()
    with pytest.raises(
        UnreachableError, match="no answer in time; what is done is kept"
    ):
        open_source(f"{memory}/train-000.tar").scan()
    assert time.monotonic() - began < 2


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A server that knows no ranges, as Python's own."""
    pytest.importorskip("aiohttp")
    folder = tmp_path_factory.mktemp("web")
    serve = partial(QuietHandler, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), serve)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_):
        pass


def test_images_come_from_a_web_server(web, shared_photos, monkeypatch):
    """One by one; parts of files, which it does not give, are not taken for others."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder, url = web
    names = [path.name for path in (shared_photos / "train/ants").iterdir()]
    lines = [f"{name},{at % 2}" for at, name in enumerate(names)]
    (folder / "l.csv").write_text("\n".join(["path,label", *lines]))
    for name in names:
        shutil.copy(shared_photos / "train/ants" / name, folder)
    manifest = open_source(f"{url}/l.csv").scan()
    for row, path in enumerate(manifest.paths.tolist()):
        data = (folder / path.decode()).read_bytes()
        assert read_bytes(manifest.file(row)) == data
        assert manifest.sizes[row] == len(data)
    make_tar(folder / "x.tar", [("a.jpg", b"x" * 9999), ("a.cls", b"a")])
    monkeypatch.setattr(pieces, "PIECE", 4096)
    monkeypatch.setattr(trying, "_PAUSE", 0.001)
    with pytest.raises(DataError, match=r"x\.tar: its server gives whole files"):
        open_source(f"{url}/x.tar").scan()
