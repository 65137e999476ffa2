"""Sources at URLs: the bytes of the local ones, whatever the object store does."""

import logging
import os
import time
from pathlib import Path

import pytest

import featcache
from featcache.core.addresses import absolute, is_url
from featcache.core.errors import BadImagesError, DataError, DependencyError
from featcache.stages.changes import status
from featcache.vision.reading import read_bytes
from featcache.vision.sources import pieces, remote
from featcache.vision.sources.opening import open_source
from tests.conftest import picture
from tests.object_store import Store
from tests.shards import make_tar, shard
from tests.stages.test_extraction import contents, sampled_pixels
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
    monkeypatch.setattr(remote, "_PAUSE", 0.01)


def extract(data, name, spec=None):
    return featcache.extract(data, spec, weights="random:0", cache=name)


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
        ("memory://b/list.csv", "is no source of images: at a URL these are tar"),
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
    with pytest.raises(DependencyError, match=r"lacks the library for s3://; pip inst"):
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
        (TimeoutError(), "no answer in time, 4 times"),
        (ConnectionRefusedError(), "no connection, 4 times"),
        (FileNotFoundError(), "there is no such file"),
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
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_tried_by_the_next_run(
    memory, monkeypatch, hasty, quick
):
    """A store that fails in the middle costs its images, by name, until it is back."""
    data = f"{memory}/*.tar"
    scanned = open_source(data).scan()

    def refuse(place):
        if place.path.startswith("ants"):
            raise remote.RemoteError(f"{place.shard}: no answer in time, 4 times")
        return read_whole(place)

    read_whole = pieces.remote_member
    monkeypatch.setattr("featcache.vision.reading.remote_member", refuse)
    with pytest.raises(BadImagesError, match="no answer in time") as caught:
        extract(data, "it.h5")
    assert len(caught.value.images) == 10
    monkeypatch.setattr("featcache.vision.reading.remote_member", read_whole)
    made = extract(data, "it.h5")
    assert made.report.computed == 10
    assert len(made) == len(scanned)


# From here on a real S3 server, and the client library that people have.


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server, files, monkeypatch):
    """The files in a bucket, behind a proxy that can fail."""
    store = Store(server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    fsspec.filesystem("s3").clear_instance_cache()
    fsspec.filesystem("s3").makedirs("bucket", exist_ok=True)
    upload(files, "s3://bucket/d")
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    fsspec.filesystem("s3").clear_instance_cache()
    yield store
    store.close()
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_bucket_gives_the_cache_of_the_files(s3, files, quick, pattern):
    """Real requests; nothing is computed the second time."""
    local = contents(extract(f"{files}/{pattern}", "local.h5"))
    made = extract(f"s3://bucket/d/{pattern}", "s3.h5")
    assert contents(made) == local
    again = extract(f"s3://bucket/d/{pattern}", "s3.h5")
    assert again.report.computed == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", ["500", "cut", "hang"])
def test_a_failing_bucket_gives_the_same_cache(
    s3, files, quick, hasty, monkeypatch, fault
):
    """Errors, half bodies and silence pass; every byte is right in the end."""
    monkeypatch.setitem(
        fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 2}}
    )
    fsspec.filesystem("s3").clear_instance_cache()
    local = contents(extract(f"{files}/*.tar", "local.h5"))
    s3.faults = [fault, "ok", fault, fault, "ok", fault]
    assert contents(extract("s3://bucket/d/*.tar", "s3.h5")) == local
    assert s3.faults == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_that_is_gone_is_an_error_within_a_minute(s3, hasty):
    """Never a silent wait."""
    s3.close()
    began = time.monotonic()
    with pytest.raises(DataError, match="no connection, 4 times"):
        open_source("s3://bucket/d/*.tar").scan()
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_credentials_are_in_no_message_log_or_cache(s3, quick, caplog):
    """Whatever is asked, recorded or logged."""
    caplog.set_level(logging.INFO)
    extract("s3://bucket/d/*.tar", "it.h5")
    assert SECRET.encode() not in Path("it.h5").read_bytes()
    assert SECRET not in caplog.text


@pytest.mark.slow
def test_without_credentials_it_is_said(s3, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(DataError, match=r"no credentials were found|access is refused"):
        open_source("s3://bucket/d/train-000.tar").scan()
