"""Sources in a real S3 store on this machine, which fails in every way they know."""

import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import featcache
from featcache.core.errors import DataError, UnreachableError
from featcache.core.specs import SgdSpec
from featcache.stages.changes import status
from featcache.vision.reading import read_bytes
from featcache.vision.sources import trying
from featcache.vision.sources.opening import open_source
from tests.object_store import Store
from tests.shards import shard
from tests.stages.test_extraction import Listener, contents, sampled_pixels
from tests.tables import write_parquet

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SECRET = "hunter2-the-secret-key"
TOKEN = "the-session-token"
TARS, TABLES, LIST = "{train,val}-*.tar", "{train,val}.parquet", "all.csv"
ROOT = Path(featcache.__file__).parents[1]


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def files(shared_photos, tmp_path, monkeypatch):
    """Tars, Parquet, and a list of the photos beside it."""
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("pyarrow")
    folder, lines = tmp_path / "d", ["path,label,split"]
    for split in ("train", "val"):
        shard(shared_photos, folder, split)
        write_parquet(shared_photos / split, folder / f"{split}.parquet")
    for path in sorted(shared_photos.rglob("*.*")):
        name = path.relative_to(shared_photos)
        lines.append(f"photos/{name.as_posix()},{name.parts[1]},{name.parts[0]}")
        target = folder / "photos" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (folder / LIST).write_text("\n".join(lines))
    return folder


@pytest.fixture
def s3(server, files, monkeypatch):
    """The files in a bucket, behind a proxy that can fail."""
    store = Store(server)
    settings = {
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
        "AWS_ENDPOINT_URL": server,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    # For the client library has patience of its own: the tests cannot wait so long.
    quick = {"read_timeout": 2, "retries": {"max_attempts": 0}}
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": quick})
    monkeypatch.setattr(trying, "_PAUSE", 0.01)
    system = fsspec.filesystem("s3")
    system.clear_instance_cache()
    system = fsspec.filesystem("s3")
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.makedirs("bucket")
    for path in files.rglob("*.*"):
        key = path.relative_to(files).as_posix()
        system.pipe_file(f"bucket/d/{key}", path.read_bytes())
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    system.clear_instance_cache()
    yield store
    store.close()
    system.clear_instance_cache()


@pytest.fixture
def quick(monkeypatch):
    """Put sampled pixels in the network's place: what is tested is around it."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)


def extract(data, name, spec=None, **how):
    return featcache.extract(data, spec, weights="random:0", cache=name, **how)


@pytest.mark.parametrize("data", [TARS, "{train,val}-{000..001}.tar", TABLES, LIST])
def test_a_bucket_gives_the_cache_of_the_files(s3, files, quick, data):
    """Real requests; nothing is read the second time, however often it is asked."""
    local = contents(extract(f"{files}/{data}", "local.h5"))
    made = extract(f"s3://bucket/d/{data}", "s3.h5")
    assert contents(made) == local
    assert made.provenance["data"] == f"s3://bucket/d/{data}"
    assert extract(f"s3://bucket/d/{data}", "s3.h5").report.computed == 0
    assert status("s3.h5").unchanged == 20
    assert featcache.verify("s3.h5", sample=4).largest_error == 0


FAULTS = ["500", "503", "cut", "reset", "hang"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("data", [TARS, TABLES, LIST])
def test_a_failing_bucket_gives_the_same_cache(s3, files, quick, fault, data):
    """Errors, half bodies, lost connections and silence pass; every byte is right."""
    local = contents(extract(f"{files}/{data}", "local.h5"))
    s3.faults = [fault, "ok", fault, fault, "ok", fault]
    assert contents(extract(f"s3://bucket/d/{data}", "s3.h5")) == local
    assert s3.faults == []


ENDS = [
    ("500", r"cannot be read \(OSError InternalError\), \d times"),
    ("503", r"cannot be read \(OSError SlowDown\), \d times"),
    ("403", "access is refused; check the credentials and their rights"),
    ("400", "access is refused; check the credentials and their rights"),
    ("cut", "cannot be read|gives [0-9,]+ of"),
    ("hang", "no answer in time"),
]


@pytest.mark.parametrize(
    ("data", "fault", "reason"),
    [
        *((TARS, *each) for each in ENDS),
        *((data, *each) for data in (TABLES, LIST) for each in ENDS[2::3]),
    ],
)
def test_a_store_that_fails_in_the_middle_ends_the_run(
    s3, files, quick, monkeypatch, fault, reason, data
):
    """With the reason, and soon; no image is taken for a bad one, none is lost."""
    monkeypatch.setattr(trying, "_PATIENCE", 5.0)
    one = featcache.ExtractSpec(workers=1, batch_size=2, on_error="skip")
    local = contents(extract(f"{files}/{data}", "local.h5"))

    class Failing(Listener):
        def begin(self, *args, **kwargs):
            super().begin(*args, **kwargs)
            s3.always = fault

    began = time.monotonic()
    with pytest.raises(UnreachableError, match=rf"s3://bucket/d/.*{reason}") as caught:
        extract(f"s3://bucket/d/{data}", "s3.h5", one, progress=Failing())
    assert time.monotonic() - began < 30
    assert SECRET not in str(caught.value)
    s3.always = ""
    assert contents(extract(f"s3://bucket/d/{data}", "s3.h5", one)) == local


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("403", "access is refused; check the credentials and their rights"),
        ("503", r"it cannot be read \(OSError (SlowDown|503)\), \d times"),
        ("hang", "no answer in time"),
    ],
)
@pytest.mark.parametrize("data", [TARS, "train-000.tar", "val.parquet", LIST])
def test_a_store_that_fails_from_the_first_is_named(
    s3, monkeypatch, fault, reason, data
):
    monkeypatch.setattr(trying, "_PATIENCE", 9.0 if fault == "503" else 3.0)
    s3.always = fault
    with pytest.raises(UnreachableError, match=rf"s3://bucket/d/.*: {reason}"):
        open_source(f"s3://bucket/d/{data}").scan()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://nosuch/x.tar", r"no file matches s3://nosuch/x\.tar"),
        ("s3://nosuch/*.tar", r"no file matches s3://nosuch/\*\.tar"),
        ("s3://bucket/d/{1..2}.tar", "2 cannot be found: s3://bucket/d/1.tar"),
        ("s3://bucket/d/no.parquet", "no file matches"),
        ("s3://bucket/d/no.csv", r"s3://bucket/d/no\.csv: there is no such file"),
        ("s3://nosuch/no.csv", r"s3://nosuch/no\.csv: there is no such file"),
    ],
)
def test_what_is_not_there_is_named(s3, url, reason):
    with pytest.raises(DataError, match=reason):
        open_source(url).scan()


def test_a_shard_that_is_deleted_under_the_run_is_told(s3, quick):
    system = fsspec.filesystem("s3")

    class Deleting(Listener):
        def begin(self, *args, **kwargs):
            super().begin(*args, **kwargs)
            system.rm_file("bucket/d/val-001.tar")

    skip = featcache.ExtractSpec(on_error="skip")
    with pytest.raises(DataError, match=r"val-001\.tar changed while images were read"):
        extract(f"s3://bucket/d/{TARS}", "it.h5", skip, progress=Deleting())


def test_a_server_that_is_gone_is_an_error_within_a_minute(s3):
    """Never a silent wait."""
    s3.close()
    began = time.monotonic()
    with pytest.raises(DataError, match="no connection, 6 times"):
        open_source("s3://bucket/d/*.tar").scan()
    assert time.monotonic() - began < 60


def test_small_objects_are_read_ahead(s3, quick):
    """A far store: its answers take long, and come many at a time."""
    s3.delay = 0.3
    one = featcache.ExtractSpec(workers=1)
    manifest = open_source(f"s3://bucket/d/{LIST}").scan()
    began = time.monotonic()
    for row in range(5):
        read_bytes(manifest.file(row))
    each = (time.monotonic() - began) / 5
    began = time.monotonic()
    made = extract(f"s3://bucket/d/{LIST}", "it.h5", one)
    assert made.report.computed == 20
    assert time.monotonic() - began < 20 * each


@pytest.fixture
def away(s3, quick):
    """A cache and a run of a bucket that nobody reaches any more."""
    extract(f"s3://bucket/d/{TARS}", "it.h5").close()
    featcache.fit_head("it.h5", SgdSpec(epochs=1, lr=1e-6), out="run")
    s3.always = "403"


def test_numbers_are_there_without_the_store(away):
    """What needs no image asks for none; a report says that it has no pictures."""
    listener = Listener()
    made = featcache.report("run", data="it.h5", progress=listener)
    assert (made.pictures, made.images) == (0, 8)
    (said,) = [line for line in listener.lines if "no pictures of the images" in line]
    assert re.search(r"it\.h5: s3://bucket/d/.*: access is refused", said)
    assert featcache.evaluate("run", "it.h5").accuracy == made.accuracy
    assert featcache.verify("it.h5").largest_error is None
    assert featcache.audit("it.h5").images == 20


@pytest.mark.parametrize(
    "action",
    [
        lambda: status("it.h5"),
        lambda: featcache.show("it.h5"),
        lambda: featcache.verify("it.h5", sample=3),
        lambda: featcache.evaluate("run", "s3://bucket/d/val-*.tar"),
    ],
)
def test_what_needs_the_store_says_that_it_refuses(away, action):
    with pytest.raises(UnreachableError, match=r"s3://bucket/d/.*: access is refused"):
        action()


def test_damaged_rows_stay_as_they_are_without_the_store(away):
    with featcache.open_cache("it.h5") as cache:
        start = cache.header.columns["features"].row_offset(3)
    with Path("it.h5").open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 8)
    before = Path("it.h5").read_bytes()
    with pytest.raises(UnreachableError, match="access is refused"):
        featcache.repair("it.h5")
    assert Path("it.h5").read_bytes() == before


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "featcache", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        line, capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("data", [TARS, LIST])
def test_a_secret_is_in_nothing_that_is_said_or_written(s3, data):
    """Not in output, logs, JSON, caches, models or reports; of no kind of secret."""
    url = f"s3://bucket/d/{data}"
    options = ["--weights", "random:0", "--cache", "it.h5", "--json", "-v"]
    done = command("extract", url, *options)
    assert json.loads(done.stdout)["images"] == 20, done.stderr
    said = done.stdout + done.stderr
    for line in (
        ["fit-head", "it.h5", "--out", "run", "--epochs", "1", "--json"],
        ["report", "run", "it.h5", "--out", "r.html"],
        ["info", "it.h5", "--json"],
        ["status", "it.h5"],
    ):
        done = command(*line)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    s3.always = "403"
    for line in (["status", "it.h5"], ["extract", url, *options], ["show", "it.h5"]):
        done = command(*line)
        assert done.returncode == 1
        assert "access is refused" in done.stderr
        said += done.stdout + done.stderr
    written = b"".join(p.read_bytes() for p in Path().rglob("*") if p.is_file())
    for secret in (SECRET, TOKEN, "a-key", "Signature="):
        assert secret not in said
        assert secret.encode() not in written


@pytest.mark.parametrize(
    "address",
    [
        f"s3://a-key:{SECRET}@bucket/d/x.tar",
        f"s3://a-key:{SECRET}/x@bucket/d/x.csv",
        f"https://h/d/x.tar?X-Amz-Credential=a/b&X-Amz-Signature={SECRET}",
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        "extract URL",
        "status it.h5 URL",
        "show URL",
        "evaluate run URL",
        "predict run URL",
        "finetune URL --full",
        "report run --data URL",
        "verify it.h5 --sample 2 --data URL",
        "repair it.h5 --data URL",
        "compare run URL",
    ],
)
def test_an_address_with_a_secret_is_never_repeated(
    files, quick, monkeypatch, address, words
):
    """Whichever command it is given to."""
    from click.testing import CliRunner

    from featcache.cli.main import main

    extract(f"{files}/*.tar", "it.h5").close()
    featcache.fit_head("it.h5", SgdSpec(epochs=1), out="run")
    arguments = [address if word == "URL" else word for word in words.split()]
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
    done = CliRunner().invoke(main, arguments)
    text = done.output + done.stderr + str(done.exception)
    assert SECRET not in text
    assert done.exit_code != 0


def test_logs_hold_no_secret(s3, quick, caplog):
    caplog.set_level(logging.INFO)
    extract(f"s3://bucket/d/{TARS}", "it.h5")
    assert SECRET not in caplog.text


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
