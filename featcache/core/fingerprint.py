"""Identity: the fingerprint of a spec, and what differs between two."""

import hashlib
import json
from collections.abc import Mapping


def canonical_json(value: Mapping[str, object]) -> str:
    """Return the one JSON text of a mapping: sorted keys, no spaces, ASCII.

    Parameters
    ----------
    value : mapping
        Strings, numbers, booleans, None, lists and mappings only.

    Returns
    -------
    str
        Equal for equal mappings, whatever the order of their keys.

    Raises
    ------
    TypeError
        For any other type: what cannot be written down has no identity.
    ValueError
        For NaN and infinities.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(spec: Mapping[str, object]) -> str:
    """Return the sha256 of a mapping's canonical JSON, in hex.

    Parameters
    ----------
    spec : mapping
        See `canonical_json`.

    Returns
    -------
    str
        64 hex digits.
    """
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()


def differences(
    found: Mapping[str, object], wanted: Mapping[str, object], prefix: str = ""
) -> list[tuple[str, object, object]]:
    """Return the fields in which two nested mappings differ.

    Parameters
    ----------
    found, wanted : mapping
        Specs as plain data.
    prefix : str
        Put before each name.

    Returns
    -------
    list of (str, object, object)
        Dotted name, found value, wanted value; None stands for a missing field.
    """
    result: list[tuple[str, object, object]] = []
    for key in [*wanted, *(k for k in found if k not in wanted)]:
        a, b = found.get(key), wanted.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            result += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            result.append((f"{prefix}{key}", a, b))
    return result
