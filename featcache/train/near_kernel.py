"""The compiled comparison of codes: which pairs of rows may be near.

Compiled by llvmlite in 0.05 s at each start, as the window of the images is.
"""

import ctypes
from functools import cache

import numpy as np
import numpy.typing as npt

from featcache.train.near_code import LANES, LONG, SHORT, WIDTHS, Shape, code

Bytes = npt.NDArray[np.int8]
Numbers = npt.NDArray[np.int32]

GROUP = 64  # keys: rows of a table of codes are filled up to a multiple of it
_NEVER = -(1 << 30)  # what a sum begins with that reaches no limit


class Table:
    """Codes of some rows, as queries and as keys.

    With codes a, b a pair is kept if ``a'b - |b|**2 / 2`` is above the limit of a, by
    the short ones and then by the long ones.

    Parameters
    ----------
    n : int
        Number of rows.
    """

    def __init__(self, n: int) -> None:
        padded = n + -n % GROUP
        self._keys = np.zeros((padded // LANES, SHORT // 4, LANES, 4), np.uint8)
        self._long = np.zeros((padded, LONG), np.int8)
        self._starts = np.full((2, padded), _NEVER, np.int32)
        self._limits = np.zeros((2, padded), np.int32)

    def __len__(self) -> int:
        return self._long.shape[0]

    def put(self, start: int, codes: list[Bytes]) -> None:
        """Take up codes of successive rows.

        Parameters
        ----------
        start : int
            The first of them, a multiple of 16.
        codes : list of ndarray of int8
            Short (m, 64) and long (m, 256).
        """
        short, long = codes
        rows = slice(start, start + len(short))
        groups = slice(start // LANES, -(-rows.stop // LANES))
        filled = np.zeros((groups.stop - groups.start) * LANES * SHORT, np.uint8)
        filled[: short.size] = short.view(np.uint8).ravel() ^ 128
        self._keys[groups] = filled.reshape(-1, LANES, SHORT // 4, 4).swapaxes(1, 2)
        self._long[rows] = long
        for k, own in enumerate(codes):
            wide = own.astype(np.int32)
            self._starts[k, rows] = -(np.einsum("ij,ij->i", wide, wide) // 2)
            # The limits' part: a key is 128 more than its code.
            self._limits[k, rows] = 128 * wide.sum(axis=1)

    def limit(self, limits: Numbers) -> None:
        """Take up what pairs must pass, when all codes are there.

        Parameters
        ----------
        limits : ndarray of int32, shape (2, n)
            Of ``a'b - |b|**2 / 2``, of each row's short and long code a.
        """
        self._limits[:, : limits.shape[1]] += limits

    def queries(self, rows: slice) -> Bytes:
        """Return short codes one after the other.

        Parameters
        ----------
        rows : slice
            Which, from a multiple of 16 on to another.

        Returns
        -------
        ndarray of int8, shape (m, 64)
            A copy.
        """
        groups = self._keys[rows.start // LANES : rows.stop // LANES]
        together = groups.swapaxes(1, 2).reshape(-1, SHORT)
        return (together ^ 128).view(np.int8)

    def addresses(self, of: str, rows: slice) -> tuple[int, int, int, int]:
        """Return where codes of rows lie, for the compiled code.

        Parameters
        ----------
        of : str
            ``queries`` or ``keys``.
        rows : slice
            From a multiple of 16 on.

        Returns
        -------
        (int, int, int, int)
            Short codes of keys, long codes, and either's limits or starts.
        """
        numbers = self._limits if of == "queries" else self._starts
        return (
            self._keys[rows.start // LANES :].ctypes.data,
            self._long[rows.start :].ctypes.data,
            numbers[0, rows.start :].ctypes.data,
            numbers[1, rows.start :].ctypes.data,
        )


class Comparison:
    """The comparison, compiled for a processor; threads may share it.

    Parameters
    ----------
    shape : Shape, optional
        What to compile; the processor's own without it.

    Raises
    ------
    ImportError
        Without llvmlite.
    """

    def __init__(self, shape: Shape | None = None) -> None:
        self._shape = shape or _own_shape()
        bound, sift = _addresses(self._shape)
        # Called by ctypes, which lets go of the interpreter meanwhile.
        self._bound = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(bound)
        self._sift = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 10)(sift)

    def __call__(
        self, table: Table, rows: slice, keys: slice, room: int
    ) -> Numbers | None:
        """Return the pairs that may be near.

        Parameters
        ----------
        table : Table
            Codes.
        rows, keys : slice
            What is compared with what; all four ends multiples of 64.
        room : int
            Pairs at most.

        Returns
        -------
        ndarray of int32, shape (m, 2), or None
            Numbers i < j of the table; None where they are more than ``room``.
        """
        count, width = rows.stop - rows.start, keys.stop - keys.start
        bits = np.empty((count, width // GROUP), np.uint64)
        queries = table.queries(rows)
        _, long, short_limits, long_limits = table.addresses("queries", rows)
        short_keys, long_keys, short_starts, long_starts = table.addresses("keys", keys)
        self._bound(
            queries.ctypes.data,
            short_limits,
            count,
            short_keys,
            short_starts,
            width // self._shape.keys,
            bits.ctypes.data,
            width // 8,
        )
        pairs = np.empty((room, 2), np.int32)
        found = self._sift(
            bits.ctypes.data,
            count,
            bits.shape[1],
            long,
            long_limits,
            long_keys,
            long_starts,
            keys.start - rows.start,
            pairs.ctypes.data,
            room,
        )
        if found > room:
            return None
        kept: Numbers = pairs[:found] + np.array([rows.start, keys.start], np.int32)
        return kept


@cache
def comparison_here() -> tuple[Comparison | None, str]:
    """Return the compiled comparison, where it works.

    Returns
    -------
    (Comparison or None, str)
        Made and tried once in a process; without one, the reason.
    """
    try:
        compare = Comparison()
    except ModuleNotFoundError:
        return None, "llvmlite is not installed (pip install 'featcache[fast]')"
    except Exception as error:
        return None, f"llvmlite does not work here: {' '.join(str(error).split())}"
    if not agrees(compare):
        return None, "the compiled comparison of rows is wrong on this processor"
    return compare, ""


def agrees(compare: Comparison) -> bool:
    """Tell whether a comparison finds what numpy finds, for random codes.

    Parameters
    ----------
    compare : Comparison
        To be tried.

    Returns
    -------
    bool
        Whether all pairs are the same.
    """
    n, random = 4 * GROUP, np.random.default_rng(0)
    codes = [random.integers(-127, 128, (n, w)).astype(np.int8) for w in WIDTHS]
    table, wide = Table(n), [own.astype(np.int64) for own in codes]
    table.put(0, codes)
    squares = np.stack([(own**2).sum(axis=1) for own in wide])
    limits = -squares // 2 + random.integers(-(10**5), 10**5, squares.shape)
    table.limit(limits.astype(np.int32))
    near = np.triu(np.ones((n, n), bool), 1)
    for own, square, limit in zip(wide, squares, limits, strict=True):
        near &= own @ own.T - square // 2 > limit[:, None]
    rows, keys = slice(0, n // 2), slice(n // 4, n)
    near[rows.stop :] = near[:, : keys.start] = False
    found = compare(table, rows, keys, n * n)
    return found is not None and bool(np.array_equal(found, np.argwhere(near)))


def _own_shape() -> Shape:
    import llvmlite.binding as llvm

    # 16 sums and 8 operands in 32 registers; or 4 sums, each of two registers of 16.
    if llvm.get_host_cpu_features().get("avx512vnni"):
        return Shape(queries=4, vectors=4, vnni=True)
    return Shape(queries=2, vectors=2, vnni=False)


@cache
def _addresses(shape: Shape) -> tuple[int, int]:
    """Compile the code; it stays in memory until the process ends."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
    )
    module = llvm.parse_assembly(code(shape))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    found = tuple(engine.get_function_address(name) for name in ("bound", "sift"))
    engine.detach()  # a thread left behind at exit may still be in there
    return found[0], found[1]
