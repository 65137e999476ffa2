"""Rules for settings: each holds for what it says and for nothing else."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core import checks
from featcache.core.checks import Rule, each, one_of, require
from featcache.core.errors import SpecError

NO_NUMBERS = ["1", None, True, [1], {}, 1j, math.nan, math.inf, -math.inf, 10**400]


@dataclass(frozen=True)
class Setting:
    """A spec of one field."""

    value: object


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        pytest.param(checks.FINITE, [-1, 0, 1.5], NO_NUMBERS, id="finite"),
        pytest.param(checks.POSITIVE, [1, 5e-324], [0, -1, *NO_NUMBERS], id="positive"),
        pytest.param(checks.NOT_NEGATIVE, [0, 0.0, 1], [-1, *NO_NUMBERS], id="not <0"),
        pytest.param(checks.BELOW_1, [0, 0.999], [1, -0.1, *NO_NUMBERS], id="below 1"),
        pytest.param(checks.SHARE, [0.1, 0.9], [0, 1, *NO_NUMBERS], id="share"),
        pytest.param(checks.COUNT, [0, 7], [-1, 1.0, *NO_NUMBERS], id="count"),
        pytest.param(checks.AT_LEAST_1, [1, 7], [0, 1.0, *NO_NUMBERS], id="at least 1"),
        pytest.param(checks.TEXT, ["", "a"], [b"a", 1, None], id="text"),
        pytest.param(
            checks.SHA256,
            ["0" * 64, "9f" * 32],
            ["0" * 63, "0" * 65, "0" * 64 + "\n", "F" * 64, b"0" * 64, 0, None],
            id="sha256",
        ),
        pytest.param(one_of(True), [True], [1, 1.0, "True"], id="no stand-in for True"),
        pytest.param(one_of("a", "b"), ["a", "b"], ["c", "", None, []], id="one of"),
        pytest.param(
            each(checks.FINITE, 3), [(1, 2, 3)], [(1, 2), [1, 2, 3], "123"], id="three"
        ),
        pytest.param(
            each(checks.POSITIVE), [(1,), (1, 2)], [(), (0,), [1], 1], id="some"
        ),
    ],
)
def test_rules(rule, good, bad):
    """A rule holds for the good values, and refuses the bad ones by name."""
    for value in good:
        require(Setting(value), value=rule)
    for value in bad:
        with pytest.raises(SpecError, match=f"^value must be {rule.expected}, got "):
            require(Setting(value), value=rule)


@given(value=st.integers(-(2**63), 2**63 - 1) | st.floats(width=32))
def test_numbers_of_numpy_become_plain(value):
    """What JSON cannot write is turned into what it can."""
    spec = Setting(np.asarray(value)[()])
    require(spec, value=Rule("anything", lambda _: True))
    assert type(spec.value) is type(value)
    assert spec.value == value or math.isnan(value)
