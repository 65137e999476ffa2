"""Several files as one cache: order, classes, and what does not belong together."""

import dataclasses

import numpy as np
import pytest

from featcache.core.errors import (
    CacheCorruptError,
    CacheError,
    CacheMismatchError,
    CacheNotFoundError,
    SpecError,
)
from featcache.core.features import Features
from featcache.core.status import Status
from featcache.store.opening import open_cache
from featcache.store.parts import PartedCache
from featcache.store.reader import FeatureCache
from featcache.store.writer import partial_path


@pytest.fixture
def split_up(contents, tmp_path):
    """Cut twenty rows into two files; the second lacks the last class but one."""

    def cut(content=None, at=9, **changes):
        whole = content or contents(20, bad=3)
        paths = []
        for name, rows in (("a", slice(0, at)), ("b", slice(at, 20))):
            part = part_of(whole, rows)
            for field, change in changes.get(name, {}).items():
                part = change_field(part, field, change)
            paths.append(part.complete(tmp_path / f"part-{name}.h5"))
        return whole, paths

    return cut


def part_of(content, rows):
    manifest = content.manifest
    columns = ("paths", "labels", "splits", "sizes", "mtimes_ns")
    chosen = {name: getattr(manifest, name)[rows].copy() for name in columns}
    return dataclasses.replace(
        content,
        manifest=dataclasses.replace(manifest, **chosen),
        rows={name: values[rows].copy() for name, values in content.rows.items()},
    )


def change_field(content, field, change):
    if field in content.rows:
        change(content.rows[field])
    elif field == "classes":
        manifest = dataclasses.replace(content.manifest, classes=change)
        content = dataclasses.replace(content, manifest=manifest)
    else:
        change(getattr(content.manifest, field))
    return content


def by_path(table, split=None):
    """Return what each path's feature and class are."""
    found = table.features(split)
    return {
        bytes(table.paths[row]): (found.X[at].tobytes(), table.classes[found.y[at]])
        for at, row in enumerate(found.sample_index)
    }


def test_parts_are_read_as_the_whole(split_up, tmp_path):
    """Same rows, classes, splits and identity as one file of all."""
    whole, paths = split_up()
    with (
        FeatureCache(whole.complete(tmp_path / "whole.h5")) as one,
        open_cache(paths) as many,
    ):
        assert isinstance(many, PartedCache)
        assert (len(many), many.skipped, many.repeated) == (20, 1, 0)
        assert (many.spec, many.embed_dim) == (one.spec, one.embed_dim)
        assert many.fingerprint == one.fingerprint
        assert many.classes == one.classes
        for split in (None, "train", "val", "test"):
            assert by_path(many, split) == by_path(one, split)
            assert isinstance(many.features(split), Features)
        assert many.provenance["weights"] == one.provenance["weights"]
        assert many.name == "part-a-and-1-more"
        many.check()


def test_rows_are_in_the_order_of_a_manifest(split_up):
    """Split, label, path: whichever file is named first."""
    _, paths = split_up()
    with open_cache(paths) as many, open_cache(paths[::-1]) as turned:
        keys = list(zip(many.splits, many.labels, many.paths, strict=True))
        assert keys == sorted(keys)
        assert turned.paths.tolist() == many.paths.tolist()
        assert (turned.features().X == many.features().X).all()


def test_labels_go_by_the_name_of_the_class(split_up):
    """Parts that know other classes are united, sorted by bytes."""
    _, paths = split_up(b={"classes": ("bees", "caf\udce9", "wasps")})
    with open_cache(paths) as many:
        assert many.classes == ("ants", "bees", "caf\udce9", "wasps")
        names = {}
        for path in paths:
            with FeatureCache(path) as part:
                names |= {k: v[1] for k, v in by_path(part).items()}
        assert {k: v[1] for k, v in by_path(many).items()} == names


def test_an_image_in_two_parts_is_taken_once(contents, tmp_path):
    """And the usable row, where the other file could not read it."""
    first, second = contents(20), contents(20)
    first.rows["status"][5] = Status.UNREADABLE
    first.rows["digests"][5] = 0
    paths = [first.complete(tmp_path / "a.h5"), second.complete(tmp_path / "b.h5")]
    with open_cache(paths) as many:
        assert (len(many), many.repeated, many.skipped) == (20, 20, 0)
        row = many.paths.tolist().index(b"00005.jpg")
        assert (many.take(np.array([row])) == second.rows["features"][5]).all()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("digests", 1, r"00007.jpg has different images in .*a.h5 and in .*b.h5"),
        ("labels", 2, "00007.jpg has different labels"),
        ("splits", 1, "00007.jpg has different splits"),
    ],
)
def test_two_parts_must_not_disagree(contents, tmp_path, field, value, message):
    """About the image of a path, its class or its split."""
    first, second = contents(20), contents(20)
    columns = {**second.manifest.columns(), **second.rows}
    columns[field][7] = value
    paths = [first.complete(tmp_path / "a.h5"), second.complete(tmp_path / "b.h5")]
    with pytest.raises(CacheMismatchError, match=message):
        open_cache(paths)


def test_other_settings_are_refused_by_field(contents, tmp_path):
    """With both values and both files."""
    a = contents(20).complete(tmp_path / "a.h5")
    b = contents(20, dtype="float16").complete(tmp_path / "b.h5")
    message = r"dtype is 'float16' in .*b.h5, 'float32' in .*a.h5"
    with pytest.raises(CacheMismatchError, match=message):
        open_cache([a, b])


def test_a_pattern_opens_the_files_it_matches(split_up, tmp_path):
    """Sorted by name; what lies beside a cache is none of them."""
    _, paths = split_up()
    (tmp_path / "part-a.h5.lock").touch()
    with open_cache(tmp_path / "part-*") as many:
        assert [part.path for part in many.parts] == paths
        assert many.path == tmp_path / "part-*"
    with open_cache(str(tmp_path / "part-a.h5")) as one:
        assert isinstance(one, FeatureCache)


def test_a_pattern_is_a_file_where_such_a_file_is(content, tmp_path):
    """A name with brackets stays a name."""
    path = content.complete(tmp_path / "odd[1].h5")
    with open_cache(path) as one:
        assert one.path == path


def test_missing_parts_are_errors(split_up, content, tmp_path):
    """One that is named, one that is unfinished, or all of them."""
    _, paths = split_up()
    with pytest.raises(CacheNotFoundError, match=r"no cache .*none-\*.h5"):
        open_cache(tmp_path / "none-*.h5")
    with pytest.raises(CacheNotFoundError, match=r"part-c\.h5"):
        open_cache([*paths, tmp_path / "part-c.h5"])
    with pytest.raises(CacheNotFoundError, match="no cache was named"):
        open_cache([])
    content.begin(tmp_path / "part-c.h5")
    with pytest.raises(CacheNotFoundError, match=r"part-c\.h5 is not finished"):
        open_cache(tmp_path / "part-*.h5")
    partial_path(tmp_path / "part-c.h5").unlink()
    open_cache(tmp_path / "part-*.h5").close()


def test_closed_parts_say_so(split_up):
    """As one file does, naming the first."""
    _, paths = split_up()
    whole = open_cache(paths)
    whole.close()
    with pytest.raises(CacheError, match=r"\.h5 is closed; featcache.open_cache opens"):
        whole.features("val")


def test_a_damaged_part_is_named(split_up):
    """The others do not make up for it."""
    _, paths = split_up()
    data = bytearray(paths[1].read_bytes())
    data[-1] ^= 1
    paths[1].write_bytes(data)
    with pytest.raises(CacheCorruptError, match=r"part-b\.h5 is damaged"):
        open_cache(paths)


def test_an_unknown_split_is_refused(split_up):
    """As of one file."""
    with open_cache(split_up()[1]) as many, pytest.raises(SpecError, match="unknown"):
        many.features("dev")
