"""Headers at random: equal content or an error of ours, never anything else."""

import hashlib
import json

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.errors import CacheError, SpecError
from featcache.core.specs import FeatureSpec
from featcache.store.header import read_header
from featcache.store.reader import open_cache

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory, content):
    """A cache whose attributes the examples of a property change in turn."""
    return content.complete(tmp_path_factory.mktemp("fuzzed") / "cache.h5")


def describe(path, spec, provenance):
    """Write other JSON into a header, with the digests that belong to it."""
    try:
        fingerprint = FeatureSpec.from_json(spec).fingerprint
    except SpecError:
        fingerprint = ""
    made = json.dumps(provenance)
    texts = {
        "spec": json.dumps(spec),
        "fingerprint": fingerprint or "0" * 64,
        "provenance": made,
        "provenance_sha256": hashlib.sha256(made.encode()).hexdigest(),
    }
    with h5py.File(path, "r+") as file:
        file.attrs.update({name: np.bytes_(text) for name, text in texts.items()})


@given(value=JSON, data=st.data())
def test_no_json_breaks_a_header(content, fuzzed, value, data):
    """Whatever the JSON in it says, a header is read or refused as a cache's."""
    spec, provenance = content.spec.to_json(), {}
    places = [(spec, name) for name in spec] + [(spec["view"], n) for n in spec["view"]]
    where = data.draw(st.sampled_from(["field", "spec", "provenance", "began_ns"]))
    if where == "field":
        place, name = data.draw(st.sampled_from(places))
        place[name] = value
    elif where == "spec":
        spec = value
    else:
        provenance = value if where == "provenance" else {where: value}
    describe(fuzzed, spec, provenance)
    try:
        header = read_header(fuzzed)
    except CacheError as refused:
        line = str(refused)
    else:
        line = header.spec.fingerprint
    assert line.isprintable()


def mutated(data, places, seed):
    """Return a file with some bytes of these places changed."""
    random = np.random.default_rng(seed)
    data = bytearray(data)
    for place in random.choice(places, random.integers(1, 9)):
        data[place] = random.choice([data[place] ^ (1 << random.integers(8)), 0, 255])
    return data


@pytest.mark.timeout(60)
def test_no_mutation_of_the_headers_gives_wrong_content(contents, tmp_path):
    """Three hundred damaged files: equal content, or a `CacheError` in one line."""
    content = contents(2)
    path = content.complete(tmp_path / "cache.h5")
    whole, header = path.read_bytes(), read_header(path)
    spans = [range(c.offset, c.offset + c.nbytes) for c in header.columns.values()]
    places = sorted(set(range(len(whole))).difference(*spans))
    wanted = {**content.manifest.columns(), **content.rows}
    refused = 0
    for seed in range(300):
        path.write_bytes(mutated(whole, places, seed))
        try:
            with open_cache(path) as cache:
                for name, values in wanted.items():
                    assert np.array_equal(cache.columns[name], values)
                assert cache.spec == content.spec
                assert cache.header.provenance == header.provenance
        except CacheError as error:
            refused += 1
            line = str(error)
            assert line.isprintable(), line
    assert refused > 100
