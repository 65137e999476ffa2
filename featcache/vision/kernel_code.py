"""The two passes of a resize, in LLVM's language: the code of the compiled window.

The sums are those of Pillow's 8-bit resize: int32, beginning with one half, then
shifted by 22 bits and cut to 255. No compiler finds vectors in the pass across, so they
are written here, 16 lanes wide; a processor with narrower ones takes several.
"""

_FOUR = range(4)
VECTOR = 16  # lanes: four pixels of four bytes, or 16 bytes of a row


def _lanes(number: int) -> str:
    return "<" + ", ".join([f"i32 {number}"] * VECTOR) + ">"


def _quarters(*which: int) -> str:
    """Return a shuffle that picks groups of four lanes."""
    lanes = (4 * quarter + lane for quarter in which for lane in _FOUR)
    return "<16 x i32> <" + ", ".join(f"i32 {lane}" for lane in lanes) + ">"


def _pairwise(name: str, one: str, two: str, evens: str, odds: str) -> str:
    both = f"<16 x i32> {one}, <16 x i32> {two}"
    return f"""
  {name}.evens = shufflevector {both}, {evens}
  {name}.odds = shufflevector {both}, {odds}
  {name} = add <16 x i32> {name}.evens, {name}.odds"""


_ROUND = f"""
  %halved = add <16 x i32> %sum, {_lanes(1 << 21)}
  %shifted = lshr <16 x i32> %halved, {_lanes(22)}
  %fits = icmp ult <16 x i32> %shifted, {_lanes(255)}
  %cut = select <16 x i1> %fits, <16 x i32> %shifted, <16 x i32> {_lanes(255)}
  %bytes = trunc <16 x i32> %cut to <16 x i8>"""


_HALVES = (_quarters(0, 1, 4, 5), _quarters(2, 3, 6, 7))
_EVERY_SECOND = (_quarters(0, 2, 4, 6), _quarters(1, 3, 5, 7))

# Four outputs in each step of %group: for each, 16 bytes of the row (four inputs of
# four channels) times 16 weights, summed over %chunk; then the four sums of four inputs
# become one vector of four outputs. 16 bytes are stored and 12 of them meant: the next
# step writes over the others.
_ACROSS = f"""
define void @across(ptr %source, i64 %stride, i64 %count, ptr %starts, ptr %weights,
                    i64 %chunks, i64 %groups, ptr %rows, i64 %line) {{
entry:
  br label %row
row:
  %y = phi i64 [ 0, %entry ], [ %y.next, %row.end ]
  %y.offset = mul i64 %y, %stride
  %inputs = getelementptr i8, ptr %source, i64 %y.offset
  %y.target = mul i64 %y, %line
  %outputs = getelementptr i8, ptr %rows, i64 %y.target
  br label %group
group:
  %g = phi i64 [ 0, %row ], [ %g.next, %group.end ]
  %weights.group = phi ptr [ %weights, %row ], [ %weights.next, %group.end ]
  %starts.group = getelementptr <4 x i64>, ptr %starts, i64 %g
{
    "".join(
        f'''
  %start.{j}.at = getelementptr i64, ptr %starts.group, i64 {j}
  %start.{j} = load i64, ptr %start.{j}.at
  %input.{j} = getelementptr i8, ptr %inputs, i64 %start.{j}'''
        for j in _FOUR
    )
}
  br label %chunk
chunk:
  %c = phi i64 [ 0, %group ], [ %c.next, %chunk ]
  %weights.chunk = phi ptr [ %weights.group, %group ], [ %weights.next, %chunk ]
{
    "".join(
        f'''
  %sum.{j} = phi <16 x i32> [ zeroinitializer, %group ], [ %sum.{j}.next, %chunk ]'''
        for j in _FOUR
    )
}
{
    "".join(
        f'''
  %pixels.{j}.at = getelementptr <16 x i8>, ptr %input.{j}, i64 %c
  %pixels.{j}.bytes = load <16 x i8>, ptr %pixels.{j}.at, align 1
  %pixels.{j} = zext <16 x i8> %pixels.{j}.bytes to <16 x i32>
  %weights.{j}.at = getelementptr <16 x i32>, ptr %weights.chunk, i64 {j}
  %weights.{j} = load <16 x i32>, ptr %weights.{j}.at, align 4
  %product.{j} = mul <16 x i32> %pixels.{j}, %weights.{j}
  %sum.{j}.next = add <16 x i32> %sum.{j}, %product.{j}'''
        for j in _FOUR
    )
}
  %weights.next = getelementptr <16 x i32>, ptr %weights.chunk, i64 4
  %c.next = add i64 %c, 1
  %c.more = icmp ult i64 %c.next, %chunks
  br i1 %c.more, label %chunk, label %group.end
group.end:
{_pairwise("%first", "%sum.0.next", "%sum.1.next", *_HALVES)}
{_pairwise("%second", "%sum.2.next", "%sum.3.next", *_HALVES)}
{_pairwise("%sum", "%first", "%second", *_EVERY_SECOND)}
{_ROUND}
  %packed = shufflevector <16 x i8> %bytes, <16 x i8> poison, <16 x i32> <
    i32 0, i32 1, i32 2, i32 4, i32 5, i32 6, i32 8, i32 9, i32 10,
    i32 12, i32 13, i32 14, i32 15, i32 15, i32 15, i32 15>
  %g.offset = mul i64 %g, 12
  %target = getelementptr i8, ptr %outputs, i64 %g.offset
  store <16 x i8> %packed, ptr %target, align 1
  %g.next = add i64 %g, 1
  %g.more = icmp ult i64 %g.next, %groups
  br i1 %g.more, label %group, label %row.end
row.end:
  %y.next = add i64 %y, 1
  %y.more = icmp ult i64 %y.next, %count
  br i1 %y.more, label %row, label %end
end:
  ret void
}}
"""

# 16 bytes of an output row in each step of %block: the same bytes of some rows, each
# times its weight. The last step of a row goes back as far as it must to end with it;
# only of lines below 16 bytes more is read and written than is meant.
_DOWN = f"""
define void @down(ptr %rows, i64 %stride, ptr %starts, ptr %weights, i64 %taps,
                  i64 %count, ptr %out, i64 %line) {{
entry:
  %end.less = sub i64 %line, 16
  %long = icmp sgt i64 %end.less, 0
  %last = select i1 %long, i64 %end.less, i64 0
  br label %row
row:
  %y = phi i64 [ 0, %entry ], [ %y.next, %row.end ]
  %start.at = getelementptr i64, ptr %starts, i64 %y
  %start = load i64, ptr %start.at
  %start.bytes = mul i64 %start, %stride
  %inputs = getelementptr i8, ptr %rows, i64 %start.bytes
  %y.target = mul i64 %y, %line
  %outputs = getelementptr i8, ptr %out, i64 %y.target
  %y.weights = mul i64 %y, %taps
  %weights.row = getelementptr i32, ptr %weights, i64 %y.weights
  br label %block
block:
  %x = phi i64 [ 0, %row ], [ %x.inside, %block.end ]
  br label %tap
tap:
  %t = phi i64 [ 0, %block ], [ %t.next, %tap ]
  %offset = phi i64 [ %x, %block ], [ %offset.next, %tap ]
  %sum.old = phi <16 x i32> [ zeroinitializer, %block ], [ %sum, %tap ]
  %pixels.at = getelementptr i8, ptr %inputs, i64 %offset
  %pixels.bytes = load <16 x i8>, ptr %pixels.at, align 1
  %pixels = zext <16 x i8> %pixels.bytes to <16 x i32>
  %weight.at = getelementptr i32, ptr %weights.row, i64 %t
  %weight = load i32, ptr %weight.at
  %weight.0 = insertelement <16 x i32> poison, i32 %weight, i64 0
  %weight.all = shufflevector <16 x i32> %weight.0, <16 x i32> poison,
                              <16 x i32> zeroinitializer
  %product = mul <16 x i32> %pixels, %weight.all
  %sum = add <16 x i32> %sum.old, %product
  %offset.next = add i64 %offset, %stride
  %t.next = add i64 %t, 1
  %t.more = icmp ult i64 %t.next, %taps
  br i1 %t.more, label %tap, label %block.end
block.end:
{_ROUND}
  %target = getelementptr i8, ptr %outputs, i64 %x
  store <16 x i8> %bytes, ptr %target, align 1
  %x.next = add i64 %x, 16
  %x.fits = icmp slt i64 %x.next, %last
  %x.inside = select i1 %x.fits, i64 %x.next, i64 %last
  %x.more = icmp ult i64 %x.next, %line
  br i1 %x.more, label %block, label %row.end
row.end:
  %y.next = add i64 %y, 1
  %y.more = icmp ult i64 %y.next, %count
  br i1 %y.more, label %row, label %end
end:
  ret void
}}
"""

# Called with addresses and numbers; strides and lines in bytes, and the starts of the
# pass across; those of the pass down in rows.
CODE = _ACROSS + _DOWN
