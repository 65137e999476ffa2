"""Headers from elsewhere: hostile until checked, refused in one line."""

import hashlib
import json
import os
import shutil

import h5py
import numpy as np
import pytest

from featcache.core.errors import (
    CacheCorruptError,
    CacheMismatchError,
    CacheNotFoundError,
    StorageError,
)
from featcache.core.fingerprint import canonical_json, fingerprint
from featcache.store import reader
from featcache.store.header import read_header
from featcache.store.reader import open_cache


def text(value):
    """Return a text as HDF5 stores it in place."""
    return np.bytes_(value)


def rebuilt(source, target, **how):
    """Copy a cache with h5py alone, as somebody else's program would."""
    with h5py.File(source) as old, h5py.File(target, "w", **how) as new:
        for name, dataset in old.items():
            new.create_dataset(name, data=dataset[()])
        for name, value in old.attrs.items():
            new.attrs[name] = value
    return target


@pytest.fixture
def foreign(path, tmp_path):
    """A cache that h5py wrote: plain datasets, ready to be made hostile."""
    return rebuilt(path, tmp_path / "foreign.h5")


def test_a_cache_that_another_program_wrote_is_read(foreign, cache):
    """What counts is what the file holds; so the refusals below are of the change."""
    with open_cache(foreign) as opened:
        assert np.array_equal(opened.columns["features"], cache.columns["features"])
        assert opened.classes == cache.classes


def replace(name, make):
    """Return a change that removes a dataset and lets ``make`` put another there."""

    def change(file):
        values = file[name][()]
        del file[name]
        make(file, values)

    return change


def features(**how):
    """Return a change that stores the features in another way."""
    return replace("features", lambda f, v: f.create_dataset("features", data=v, **how))


def link(make):
    """Return a change that puts a link in the place of the features."""
    return replace("features", lambda f, _: f.__setitem__("features", make(f)))


def external(file, values):
    shape = values.shape
    parts = [("outside.bin", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("features", shape, "f4", external=parts)


def virtual(file, values):
    layout = h5py.VirtualLayout(values.shape, "f4")
    layout[:] = h5py.VirtualSource("outside.h5", "x", values.shape)
    file.create_virtual_dataset("features", layout)


def compact(file, values):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape)
    h5py.h5d.create(file.id, b"status", h5py.h5t.STD_U8LE, space, dcpl=plist)


def null(file, _):
    file["labels"] = h5py.Empty("i4")


def other(name, values):
    """Return a change that gives a dataset other values."""
    return replace(name, lambda f, _: f.create_dataset(name, data=values))


def absurd(name, shape, dtype):
    """Return a change that declares more than was ever stored."""
    return replace(name, lambda f, _: f.create_dataset(name, shape, dtype))


def attribute(name, value):
    """Return a change of one attribute; None removes it."""

    def change(file):
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return change


def provenance(value):
    """Return a change of the provenance, with the digest that belongs to it."""

    def change(file):
        file.attrs["provenance"] = text(value)
        digest = hashlib.sha256(value.encode()).hexdigest()
        file.attrs["provenance_sha256"] = text(digest)

    return change


def fields(**changes):
    """Return a change of the spec, with the fingerprint that belongs to it."""

    def change(file):
        spec = {**json.loads(file.attrs["spec"]), **changes}
        file.attrs["spec"] = text(canonical_json(spec).encode())
        file.attrs["fingerprint"] = text(fingerprint(spec).encode())

    return change


HUGE = 2**40
PLACES = {
    "external link": (
        link(lambda _: h5py.ExternalLink("outside.h5", "/x")),
        "features is a ExternalLink, not a dataset",
    ),
    "soft link": (
        link(lambda _: h5py.SoftLink("/status")),
        "features is a SoftLink, not a dataset",
    ),
    "hard link to another": (link(lambda f: f["status"]), r"features is uint8 \(20,\)"),
    "external storage": (replace("features", external), "not lie in the file"),
    "virtual": (replace("features", virtual), "not lie in the file"),
    "compact": (replace("status", compact), "status does not lie in the file"),
    "chunked": (features(chunks=(5, 512)), "not lie in the file"),
    "compressed": (features(compression="gzip"), "not lie in the file"),
    "checksummed": (features(fletcher32=True), "not lie in the file"),
    "nothing stored": (absurd("features", (20, 512), "f4"), "not lie in the file"),
    "no space": (replace("labels", null), "labels does not lie in the file"),
    "no rows": (other("labels", np.zeros(0, "i4")), "labels does not lie in"),
    "absurd features": (absurd("features", (HUGE, HUGE), "f4"), "not lie in the file"),
    "absurd labels": (absurd("labels", (HUGE,), "i4"), "labels does not lie in"),
    "missing": (replace("journal", lambda *_: None), "there is no journal"),
    "group": (replace("paths", lambda f, _: f.create_group("paths")), "not a dataset"),
    "named type": (
        replace("paths", lambda f, _: f.__setitem__("paths", np.dtype("f8"))),
        "paths is not a dataset",
    ),
    "texts of any length": (
        replace("paths", lambda f, v: f.create_dataset("paths", data=v.astype(object))),
        "paths holds values of variable length",
    ),
    "paths are numbers": (other("paths", np.zeros(20, "f4")), "paths is float32"),
    "labels are wide": (other("labels", np.zeros(20, "i8")), "labels is int64"),
    "labels are big-endian": (other("labels", np.zeros(20, ">i4")), "labels is >i4"),
    "labels are one number": (other("labels", np.int32(1)), r"labels is int32 \(\)"),
    "labels are a table": (other("labels", np.zeros((20, 1), "i4")), "labels is int32"),
    "fewer sizes": (other("sizes", np.zeros(19, "i8")), r"sizes is int64 \(19,\)"),
    "fewer labels": (other("labels", np.zeros(19, "i4")), r"paths is \|S9 \(20,\)"),
    "double features": (other("features", np.zeros((20, 512))), "is float64"),
    "half features": (other("features", np.zeros((20, 512), "f2")), "is float16"),
    "other D": (other("features", np.zeros((20, 9), "f4")), r"float32 \(20, 9\), exp"),
    "short journal": (other("journal", np.zeros((2, 32), "u1")), r"journal is uint8"),
    "no format version": (attribute("format_version", None), "format_version"),
    "version is a text": (attribute("format_version", text("1")), "not a whole number"),
    "version is a list": (attribute("format_version", [1]), "not a whole number"),
    "version is a fraction": (attribute("format_version", 1.5), "not a whole number"),
    "version 0": (attribute("format_version", 0), "attribute format_version is 0"),
    "no rows in a block": (attribute("block_rows", 0), "attribute block_rows is 0"),
    "fewer rows in a block": (attribute("block_rows", 4), r"expected u1 \(5, 32\)"),
    "spec of any length": (attribute("spec", "{}"), "attribute spec is not a text"),
    "spec is no JSON": (attribute("spec", text("{")), r"damaged \(Expecting property"),
    "spec is a list": (attribute("spec", text("[]")), "not a feature spec"),
    "spec is deep": (attribute("spec", text("[" * 60_000)), r"damaged \(.*recursion"),
    "spec is no UTF-8": (attribute("spec", text(b"\xff")), "'utf-8' codec"),
    "spec of nan": (attribute("spec", text('{"view": NaN}')), "not a view"),
    "no fingerprint": (attribute("fingerprint", None), "fingerprint"),
    "other fingerprint": (attribute("fingerprint", text("0")), "match its fingerprint"),
    "other spec": (
        fields(view={"crop": 10**400}),
        "not a view",
    ),
    "unknown layer": (
        fields(layer="layer4"),
        r"layer must be avgpool or .*, got 'layer4'",
    ),
    "provenance is a list": (provenance("[]"), "no JSON object"),
    "other provenance": (
        attribute("provenance", text("{}")),
        "its provenance does not match its digest",
    ),
    "time is a text": (
        provenance('{"began_ns": "x"}'),
        "began_ns of its provenance is 'x'",
    ),
    "weights are a text": (
        provenance('{"weights": "x"}'),
        "weights of its provenance is 'x'",
    ),
    "no digest": (attribute("manifest_sha256", None), "manifest_sha256"),
    "digest is long": (attribute("manifest_sha256", text("0" * 63_000)), "damaged"),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [pytest.param(*case, id=name) for name, case in PLACES.items()],
)
def test_hostile_files_are_refused(foreign, change, message):
    """Nothing outside the file is opened, nothing beyond its end is touched."""
    with h5py.File(foreign, "r+") as file:
        change(file)
    with pytest.raises(CacheCorruptError, match=message) as refused:
        open_cache(foreign)
    line = str(refused.value)
    assert line.startswith(str(foreign))
    assert line.isprintable()
    assert len(line) < len(str(foreign)) + 300


def test_attributes_without_bounds_are_not_read(path, tmp_path):
    """Newer HDF5 files may hold attributes of any size."""
    foreign = rebuilt(path, tmp_path / "foreign.h5", libver="latest")
    open_cache(foreign).close()
    with h5py.File(foreign, "r+", libver="latest") as file:
        attribute("spec", text("[" * 70_000))(file)
    with pytest.raises(CacheCorruptError, match="attribute spec is too long"):
        read_header(foreign)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            attribute("format_version", 2),
            "has format version 2, this featcache reads up to 1; upgrade featcache",
            id="newer format",
        ),
        pytest.param(
            fields(backbone="resnet1\n000"),
            r"was made with backbone 'resnet1\\n000', which this featcache does not",
            id="newer backbone",
        ),
    ],
)
def test_files_of_a_newer_version_are_told_apart(foreign, change, message):
    """They are not damaged: the remedy is another one."""
    with h5py.File(foreign, "r+") as file:
        change(file)
    with pytest.raises(CacheMismatchError, match=message):
        read_header(foreign)


@pytest.mark.parametrize(
    "value",
    [None, text("other"), "featcache", 1, [1, 2], h5py.Empty("f4"), text("x" * 60_000)],
    ids=["none", "other", "vlen", "number", "list", "empty", "long"],
)
def test_other_hdf5_files_are_told_apart(foreign, value):
    """Nobody is told to delete a file that is none of ours."""
    with h5py.File(foreign, "r+") as file:
        attribute("format", value)(file)
    message = r"foreign.h5 is an HDF5 file, but not a featcache cache$"
    with pytest.raises(CacheCorruptError, match=message):
        read_header(foreign)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\x89PNG\r\n\x1a\n" + bytes(5000), b"\x89HDF\r\n\x1a"],
    ids=["empty", "short", "image", "cut"],
)
def test_other_files_are_told_apart(tmp_path, data):
    """A file that is no HDF5 is told so."""
    path = tmp_path / "x.h5"
    path.write_bytes(data)
    with pytest.raises(CacheCorruptError, match=r"x.h5 is not an HDF5 file$"):
        read_header(path)


@pytest.mark.parametrize("length", [8, 47, 48, 500, 4096])
def test_the_beginning_of_a_cache_is_damaged(path, length):
    """A download that stopped early."""
    os.truncate(path, length)
    with pytest.raises(CacheCorruptError, match=r"is damaged \(.*\); delete it and"):
        read_header(path)


def test_columns_beyond_the_end_are_refused(path, monkeypatch):
    """Should HDF5 itself not notice, the bounds are checked again."""
    real = os.fstat

    class Shorter:
        st_size = path.stat().st_size - 1

    monkeypatch.setattr(os, "fstat", lambda fd: (real(fd), Shorter)[1])
    with pytest.raises(CacheCorruptError, match=r"features ends at byte .*cut off"):
        read_header(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("none.h5", "no cache .*none.h5; make one with", id="missing"),
        pytest.param("cache.h5/x", "no cache .*; make one with", id="below a file"),
        pytest.param(".", "is a folder; a cache is one file in it", id="folder"),
    ],
)
def test_a_cache_that_is_not_there(path, name, message):
    """It is said what is there instead, and what makes one."""
    with pytest.raises(CacheNotFoundError, match=message):
        read_header(path.parent / name)


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        pytest.param(
            "open", PermissionError(13, "Permission denied"), "denied$", id="rights"
        ),
        pytest.param("is_dir", OSError(36, "File name too long"), "long$", id="name"),
    ],
)
def test_a_file_that_cannot_be_read_is_no_damage(
    path, monkeypatch, method, error, message
):
    """What the system says is passed on."""

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(type(path), method, refuse)
    with pytest.raises(StorageError, match=f"^cannot read .*cache.h5: .*{message}"):
        read_header(path)


def test_a_header_belongs_to_the_file_that_is_mapped(contents, tmp_path, monkeypatch):
    """Even when the name goes to another cache between the two."""
    old, new = contents(20, seed=1), contents(20, seed=2, weights_sha256="6" * 64)
    path = old.complete(tmp_path / "cache.h5")
    real = reader.header_of

    def replaced_meanwhile(file, name):
        new.complete(path)
        return real(file, name)

    monkeypatch.setattr(reader, "header_of", replaced_meanwhile)
    with open_cache(path) as cache:
        assert cache.spec == old.spec
        assert np.array_equal(cache.features().X, old.rows["features"])


def test_a_copied_cache_is_the_same(path, tmp_path):
    """Name and place are no part of it; any bytes may be in the name."""
    copy = tmp_path / "caf\udce9 蜂.h5"
    shutil.copy(path, copy)
    assert read_header(copy).spec == read_header(path).spec
