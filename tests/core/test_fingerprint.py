"""Identity: equal data has equal fingerprints, different data has not."""

import copy
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, integer_dtypes

from featcache.core.digests import array_digest
from featcache.core.fingerprint import canonical_json, differences, fingerprint

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, width=32)
    # Infinities have no JSON.
    .filter(lambda x: abs(x) < 1e38)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.text(), VALUES, max_size=5)


@given(mapping=MAPPINGS, order=st.randoms(use_true_random=False))
def test_key_order_does_not_matter(mapping, order):
    """A mapping in another order is the same mapping."""
    items = list(mapping.items())
    order.shuffle(items)
    assert fingerprint(dict(items)) == fingerprint(mapping)


@given(one=MAPPINGS, two=MAPPINGS)
def test_fingerprints_are_equal_only_for_equal_text(one, two):
    """The fingerprint is the sha256 of the one JSON text."""
    same = canonical_json(one) == canonical_json(two)
    assert (fingerprint(one) == fingerprint(two)) == same
    assert len(bytes.fromhex(fingerprint(one))) == 32


def test_the_text_is_compact_sorted_ascii():
    """Known text: a change here would make every cache a stranger."""
    text = canonical_json({"b": [1, 0.5, None], "a": {"é": True}})
    assert text == r'{"a":{"\u00e9":true},"b":[1,0.5,null]}'
    assert fingerprint({}) == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        pytest.param(float("nan"), ValueError, id="nan"),
        pytest.param(float("inf"), ValueError, id="infinity"),
        pytest.param({1, 2}, TypeError, id="set"),
        pytest.param(b"bytes", TypeError, id="bytes"),
        pytest.param(np.float32(1), TypeError, id="number of numpy"),
    ],
)
def test_what_cannot_be_written_down_has_no_identity(value, error):
    """It is refused instead of being named by chance."""
    with pytest.raises(error, match="JSON"):
        fingerprint({"x": value})


@given(mapping=MAPPINGS)
def test_equal_mappings_do_not_differ(mapping):
    """No difference, no line."""
    assert differences(mapping, copy.deepcopy(mapping)) == []


def test_differences_are_named_by_their_place():
    """Nested fields have dotted names; what is missing is None."""
    found = {"a": 1, "view": {"crop": 224, "exif": "apply"}, "old": 0, "c": {}}
    wanted = {"a": 1, "view": {"crop": 448, "exif": "apply"}, "new": "x", "c": 3}
    assert differences(found, wanted) == [
        ("view.crop", 224, 448),
        ("new", None, "x"),
        ("c", {}, 3),
        ("old", 0, None),
    ]


@given(
    array=arrays(integer_dtypes(), array_shapes(min_side=0)),
    cut=st.integers(0, 20),
)
def test_digests_are_of_bytes_in_order(array, cut):
    """However the bytes are cut into arrays, and however they lie in memory."""
    flat = array.ravel()
    expected = hashlib.sha256(array.tobytes()).digest()
    assert array_digest(array) == expected
    assert array_digest(flat[:cut], flat[cut:]) == expected
    assert array_digest(np.repeat(flat, 2)[::2]) == expected
