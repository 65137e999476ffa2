"""Short products of codes, in LLVM's language: the code of the compiled comparison.

A code is one byte a direction. Queries are signed, keys 128 more than that and so
unsigned, since the processor's instruction for four such products at a time, vpdpbusd
(AVX-512 VNNI), wants one of each. Where it is missing the same sums are written with
16-bit products, which every processor has as vectors.
"""

from dataclasses import dataclass

LANES = 16  # keys in a vector: each four bytes wide, the same four directions of each
SHORT = 64  # bytes of a short code
LONG = 256  # bytes of a long one
WIDTHS = (SHORT, LONG)
_TURNS = SHORT // 4  # four bytes of a code are multiplied at once

_TOP_BITS = -0x7F7F7F80  # of four bytes: 128 more of a signed one is an unsigned one

_SUMS = f"<{LANES} x i32>"
_VNNI = "@llvm.x86.avx512.vpdpbusd.512"
_DECLARED = f"declare {_SUMS} {_VNNI}({_SUMS}, {_SUMS}, {_SUMS})\n"


@dataclass(frozen=True)
class Shape:
    """How many sums are in registers at once.

    Parameters
    ----------
    queries, vectors : int
        Each query meets each vector of 16 keys.
    vnni : bool
        Whether the processor multiplies four pairs of bytes at once.
    """

    queries: int
    vectors: int
    vnni: bool

    @property
    def keys(self) -> int:
        """Number of keys that are met at once."""
        return self.vectors * LANES


def code(shape: Shape) -> str:
    """Return the two functions for a processor.

    ``bound`` compares short codes and writes a bit for each pair of a query and a key;
    ``sift`` looks at the long codes of the pairs whose bit is set and writes the
    numbers of those that are left.

    Parameters
    ----------
    shape : Shape
        Of ``bound``.

    Returns
    -------
    str
        LLVM's assembly.
    """
    return _DECLARED * shape.vnni + _bound(shape) + _sift(vnni=shape.vnni)


def _splat(name: str, value: str) -> str:
    return f"""
  {name}.0 = insertelement {_SUMS} poison, i32 {value}, i64 0
  {name} = shufflevector {_SUMS} {name}.0, {_SUMS} poison, {_SUMS} zeroinitializer"""


def _repeated(kind: str, value: int) -> str:
    """Return a constant vector of 64 bytes."""
    count = {"i16": 32, "i32": 16}[kind]
    return "<" + ", ".join([f"{kind} {value}"] * count) + ">"


def _dot(name: str, sums: str, keys: str, query: str, *, vnni: bool) -> str:
    """Add the products of four unsigned bytes of each key with four signed ones."""
    if vnni:
        return f"""
  {name} = call {_SUMS} {_VNNI}({_SUMS} {sums}, {_SUMS} {keys}, {_SUMS} {query})"""
    eight, mask = _repeated("i16", 8), _repeated("i32", 0x00FF00FF)
    return f"""
  {name}.k.even = and {_SUMS} {keys}, {mask}
  {name}.k.upper = lshr {_SUMS} {keys}, {_repeated("i32", 8)}
  {name}.k.odd = and {_SUMS} {name}.k.upper, {mask}
  {name}.q.pairs = bitcast {_SUMS} {query} to <32 x i16>
  {name}.q.high = shl <32 x i16> {name}.q.pairs, {eight}
  {name}.q.even = ashr <32 x i16> {name}.q.high, {eight}
  {name}.q.odd = ashr <32 x i16> {name}.q.pairs, {eight}
{_pairs(name, "even")}
{_pairs(name, "odd")}
  {name}.first = add {_SUMS} {sums}, {name}.even
  {name} = add {_SUMS} {name}.first, {name}.odd"""


def _pairs(name: str, half: str) -> str:
    """Return sums of two products of 16 bits, in the words of pmaddwd."""
    k, q, own = f"{name}.k.{half}", f"{name}.q.{half}", f"{name}.{half}"
    return f"""
  {own}.k16 = bitcast {_SUMS} {k} to <32 x i16>
  {own}.k32 = sext <32 x i16> {own}.k16 to <32 x i32>
  {own}.q32 = sext <32 x i16> {q} to <32 x i32>
  {own}.p = mul <32 x i32> {own}.k32, {own}.q32
  {own}.0 = shufflevector <32 x i32> {own}.p, <32 x i32> poison, {_every_second(0)}
  {own}.1 = shufflevector <32 x i32> {own}.p, <32 x i32> poison, {_every_second(1)}
  {own} = add {_SUMS} {own}.0, {own}.1"""


def _every_second(start: int) -> str:
    lanes = ", ".join(f"i32 {start + 2 * k}" for k in range(LANES))
    return f"<16 x i32> <{lanes}>"


def _bound(shape: Shape) -> str:
    """Return @bound: some queries and some keys a step, four bytes of each a turn.

    Queries lie one after the other; of the keys, the same four bytes of 16 of them.
    """
    queries, vectors = range(shape.queries), range(shape.vectors)
    return f"""
define void @bound(ptr %queries, ptr %limits, i64 %count, ptr %keys, ptr %starts,
                   i64 %groups, ptr %bits, i64 %line) {{
entry:
  br label %group
group:
  %g = phi i64 [ 0, %entry ], [ %g.next, %group.end ]
  %g.keys = mul i64 %g, {SHORT * shape.keys}
  %keys.g = getelementptr i8, ptr %keys, i64 %g.keys
  %g.starts = mul i64 %g, {4 * shape.keys}
  %starts.g = getelementptr i8, ptr %starts, i64 %g.starts
  %g.bits = mul i64 %g, {shape.keys // 8}
  %bits.g = getelementptr i8, ptr %bits, i64 %g.bits
{"".join(_load("start", v, "<16 x i32>", "%starts.g", str(v)) for v in vectors)}
  br label %query
query:
  %i = phi i64 [ 0, %group ], [ %i.next, %query.end ]
  %i.bytes = mul i64 %i, {SHORT}
  %queries.i = getelementptr i8, ptr %queries, i64 %i.bytes
  br label %step
step:
  %d = phi i64 [ 0, %query ], [ %d.next, %step ]
{"".join(_begun(q, v) for q in queries for v in vectors)}
{"".join(_turn("k", v, "<16 x i32>", "%keys.g") for v in vectors)}
{"".join(_turn("q.four", q, "i32", "%queries.i") for q in queries)}
{"".join(_splat(f"%q.{q}", f"%q.four.{q}") for q in queries)}
{"".join(_added(q, v, vnni=shape.vnni) for q in queries for v in vectors)}
  %d.next = add i64 %d, 1
  %d.more = icmp ult i64 %d.next, {_TURNS}
  br i1 %d.more, label %step, label %query.end
query.end:
{"".join(_judged(q, shape) for q in queries)}
  %i.next = add i64 %i, {shape.queries}
  %i.more = icmp ult i64 %i.next, %count
  br i1 %i.more, label %query, label %group.end
group.end:
  %g.next = add i64 %g, 1
  %g.more = icmp ult i64 %g.next, %groups
  br i1 %g.more, label %group, label %end
end:
  ret void
}}
"""


def _load(name: str, number: int, kind: str, base: str, index: str) -> str:
    own = f"%{name}.{number}"
    return f"""
  {own}.at = getelementptr {kind}, ptr {base}, i64 {index}
  {own} = load {kind}, ptr {own}.at, align 4"""


def _turn(name: str, number: int, kind: str, base: str) -> str:
    """Load this turn's four bytes of a query, or of each key of a vector."""
    own = f"%{name}.{number}"
    return f"""
  {own}.d = add i64 %d, {number * _TURNS}
{_load(name, number, kind, base, f"{own}.d")}"""


def _begun(q: int, v: int) -> str:
    return f"""
  %s.{q}.{v} = phi {_SUMS} [ %start.{v}, %query ], [ %s.{q}.{v}.next, %step ]"""


def _added(q: int, v: int, *, vnni: bool) -> str:
    sums = f"%s.{q}.{v}"
    return _dot(f"{sums}.next", sums, f"%k.{v}", f"%q.{q}", vnni=vnni)


def _judged(q: int, shape: Shape) -> str:
    """Write a bit for each key: whether its sum is above the query's limit."""
    word = f"i{shape.keys}"
    text = f"""
  %i.{q} = add i64 %i, {q}{_load("one", q, "i32", "%limits", f"%i.{q}")}
{_splat(f"%limit.{q}", f"%one.{q}")}"""
    before = "0"
    for v in range(shape.vectors):
        own = f"{q}.{v}"
        text += f"""
  %above.{own} = icmp sgt {_SUMS} %s.{own}.next, %limit.{q}
  %mask.{own} = bitcast <16 x i1> %above.{own} to i16
  %wide.{own} = zext i16 %mask.{own} to {word}
  %put.{own} = shl {word} %wide.{own}, {LANES * v}
  %word.{own} = or {word} {before}, %put.{own}"""
        before = f"%word.{own}"
    return f"""{text}
  %line.{q} = mul i64 %i.{q}, %line
  %bits.{q} = getelementptr i8, ptr %bits.g, i64 %line.{q}
  store {word} {before}, ptr %bits.{q}, align 1"""


def _sift(*, vnni: bool) -> str:
    """Return @sift: bit by bit, a long code of 256 bytes with another.

    Only keys that come after the query count: both are rows of one table, and the
    first of the keys is %ahead of the first of the queries.
    """
    chunks = range(LONG // (4 * LANES))
    return f"""
declare i64 @llvm.cttz.i64(i64, i1)
declare i32 @llvm.vector.reduce.add.v16i32(<16 x i32>)
define i64 @sift(ptr %bits, i64 %count, i64 %words, ptr %queries, ptr %limits,
                 ptr %keys, ptr %starts, i64 %ahead, ptr %found, i64 %room) {{
entry:
  br label %row
row:
  %i = phi i64 [ 0, %entry ], [ %i.next, %row.end ]
  %n.row = phi i64 [ 0, %entry ], [ %n.end, %row.end ]
  %i.bytes = mul i64 %i, {LONG}
  %query = getelementptr i8, ptr %queries, i64 %i.bytes
  %limit.at = getelementptr i32, ptr %limits, i64 %i
  %limit = load i32, ptr %limit.at, align 4
  %line = mul i64 %i, %words
  br label %next
next:
  %w = phi i64 [ 0, %row ], [ %w.next, %word.end ]
  %n.next = phi i64 [ %n.row, %row ], [ %n.end, %word.end ]
  %at = add i64 %line, %w
  %word.at = getelementptr i64, ptr %bits, i64 %at
  %word.first = load i64, ptr %word.at, align 8
  br label %word
word:
  %left = phi i64 [ %word.first, %next ], [ %left.less, %bit.end ]
  %n.end = phi i64 [ %n.next, %next ], [ %n.more, %bit.end ]
  %any = icmp ne i64 %left, 0
  br i1 %any, label %bit, label %word.end
bit:
  %low = call i64 @llvm.cttz.i64(i64 %left, i1 true)
  %less = sub i64 %left, 1
  %left.less = and i64 %left, %less
  %first = shl i64 %w, 6
  %j = add i64 %first, %low
  %j.ahead = add i64 %j, %ahead
  %later = icmp sgt i64 %j.ahead, %i
  br i1 %later, label %look, label %bit.end
look:
  %j.bytes = mul i64 %j, {LONG}
  %key = getelementptr i8, ptr %keys, i64 %j.bytes
{"".join(_chunk(c, vnni=vnni) for c in chunks)}
  %total = call i32 @llvm.vector.reduce.add.v16i32(<16 x i32> %sum.{chunks[-1]})
  %start.at = getelementptr i32, ptr %starts, i64 %j
  %start = load i32, ptr %start.at, align 4
  %value = add i32 %total, %start
  %near = icmp sgt i32 %value, %limit
  br i1 %near, label %count.it, label %bit.end
count.it:
  %fits = icmp slt i64 %n.end, %room
  %n.one = add i64 %n.end, 1
  br i1 %fits, label %keep, label %bit.end
keep:
  %pair.at = getelementptr [2 x i32], ptr %found, i64 %n.end
  %i.32 = trunc i64 %i to i32
  %j.32 = trunc i64 %j to i32
  store i32 %i.32, ptr %pair.at, align 4
  %second.at = getelementptr i32, ptr %pair.at, i64 1
  store i32 %j.32, ptr %second.at, align 4
  br label %bit.end
bit.end:
  %n.more = phi i64 [ %n.end, %bit ], [ %n.end, %look ], [ %n.one, %count.it ],
    [ %n.one, %keep ]
  br label %word
word.end:
  %w.next = add i64 %w, 1
  %w.more = icmp ult i64 %w.next, %words
  br i1 %w.more, label %next, label %row.end
row.end:
  %i.next = add i64 %i, 1
  %i.more = icmp ult i64 %i.next, %count
  br i1 %i.more, label %row, label %end
end:
  ret i64 %n.end
}}
"""


def _chunk(c: int, *, vnni: bool) -> str:
    """Add the products of 64 bytes of two long codes, both signed."""
    before = f"%sum.{c - 1}" if c else "zeroinitializer"
    return f"""
{_load("q", c, "<16 x i32>", "%query", str(c))}
{_load("signed", c, "<16 x i32>", "%key", str(c))}
  %k.{c} = xor {_SUMS} %signed.{c}, {_repeated("i32", _TOP_BITS)}
{_dot(f"%sum.{c}", before, f"%k.{c}", f"%q.{c}", vnni=vnni)}"""
