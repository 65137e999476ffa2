"""Rules for settings: what a value must be, in words and as a test."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featcache.core.errors import SpecError


@dataclass(frozen=True)
class Rule:
    """What a value must be."""

    expected: str  # ends the sentence "FIELD must be"
    holds: Callable[[Any], bool]  # takes a value of any type


def require(spec: object, **rules: Rule) -> None:
    """Refuse a spec in which a field is not as it must be.

    Parameters
    ----------
    spec : object
        A dataclass. Its numpy numbers become Python's, since specs are written as
        JSON.
    **rules : Rule
        By field.

    Raises
    ------
    SpecError
        Naming the first field that is not so, and its value.
    """
    for name, rule in rules.items():
        value = getattr(spec, name)
        if getattr(value, "ndim", None) == 0:
            value = value.item()
            object.__setattr__(spec, name, value)
        if not rule.holds(value):
            raise SpecError(f"{name} must be {rule.expected}, got {value!r}")


def one_of(*known: object) -> Rule:
    """Return the rule of a field with few values.

    Parameters
    ----------
    *known : object
        The values.

    Returns
    -------
    Rule
        Holds for values equal to one of them and of its type: 1 is not True.
    """
    expected = " or ".join(map(str, known))
    return Rule(expected, lambda v: any(type(v) is type(k) and v == k for k in known))


def each(rule: Rule, length: int | None = None) -> Rule:
    """Return the rule of a tuple whose members all follow a rule.

    Parameters
    ----------
    rule : Rule
        Of a member.
    length : int, optional
        How many members there are; at least one without it.

    Returns
    -------
    Rule
        Holds for such tuples.
    """

    def holds(value: object) -> bool:
        if not isinstance(value, tuple) or len(value) != (length or len(value) or 1):
            return False
        return all(map(rule.holds, value))

    return Rule(f"{length or 'some'} values, each {rule.expected}", holds)


def _finite(value: Any) -> bool:  # noqa: ANN401 - whatever a caller or a file says
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max  # false for nan, and for 10**400


def _whole(value: object) -> bool:
    return isinstance(value, int) and _finite(value)


FINITE = Rule("finite", _finite)
POSITIVE = Rule("positive and finite", lambda v: _finite(v) and v > 0)
NOT_NEGATIVE = Rule("at least 0 and finite", lambda v: _finite(v) and v >= 0)
BELOW_1 = Rule("at least 0 and below 1", lambda v: _finite(v) and 0 <= v < 1)
SHARE = Rule("above 0 and below 1", lambda v: _finite(v) and 0 < v < 1)
COUNT = Rule("a whole number, at least 0", lambda v: _whole(v) and v >= 0)
AT_LEAST_1 = Rule("a whole number, at least 1", lambda v: _whole(v) and v >= 1)
TEXT = Rule("a text", lambda v: isinstance(v, str))
SHA256 = Rule(
    "64 hex digits",
    lambda v: isinstance(v, str) and bool(re.fullmatch("[0-9a-f]{64}", v)),
)
