"""Vectors of 16: half precision to float32 and back, the exponential, and the transposition of a square."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from .memory import _address
from .simd import _I32, _VF, _VH, _VI, LANES, _call, _constant, f32x16

__all__ = [
    "exp",
    "load_bfloat16",
    "load_float16",
    "row_totals",
    "store_bfloat16",
    "store_float16",
    "transpose",
]

_V16 = ir.VectorType(ir.HalfType(), LANES)


@intrinsic
def load_bfloat16(typing_context, array, offset):
    """Sixteen bfloat16, given as uint16, from ``offset``."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        bits = builder.load(builder.bitcast(pointer, _VH.as_pointer()), align=2)
        return builder.bitcast(builder.shl(builder.zext(bits, _VI), _constant(_VI, 16)), _VF)

    return f32x16(array, types.intp), emit


@intrinsic
def store_bfloat16(typing_context, array, offset, value):
    """Write sixteen values rounded to the nearest bfloat16 (ties to even), as uint16."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        bits = builder.bitcast(arguments[2], _VI)
        odd = builder.and_(builder.lshr(bits, _constant(_VI, 16)), _constant(_VI, 1))
        rounded = builder.add(builder.add(bits, _constant(_VI, 0x7FFF)), odd)
        nan = builder.fcmp_unordered("uno", arguments[2], arguments[2])
        quiet = builder.or_(bits, _constant(_VI, 0x00400000))
        high = builder.lshr(builder.select(nan, quiet, rounded), _constant(_VI, 16))
        builder.store(builder.trunc(high, _VH), builder.bitcast(pointer, _VH.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.none(array, types.intp, f32x16), emit


@intrinsic
def load_float16(typing_context, array, offset):
    """Sixteen float16, given as uint16, from ``offset``."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        half = builder.load(builder.bitcast(pointer, _V16.as_pointer()), align=2)
        return builder.fpext(half, _VF)

    return f32x16(array, types.intp), emit


@intrinsic
def store_float16(typing_context, array, offset, value):
    """Write sixteen values rounded to the nearest float16, as uint16."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        half = builder.fptrunc(arguments[2], _V16)
        builder.store(half, builder.bitcast(pointer, _V16.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.none(array, types.intp, f32x16), emit


@intrinsic
def exp(typing_context, value):
    """e to the power of each lane, which must not exceed 80; relative error below 2e-7, NaN stays.

    Cody and Waite's reduction to [-ln 2 / 2, ln 2 / 2] and the polynomial of Cephes' expf (Moshier).
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def fused(a: Any, b: Any, c: Any) -> Any:
            return _call(builder, "llvm.fma.v16f32", _VF, [a, b, c])

        def number(value: float) -> Any:
            return _constant(_VF, value)

        x = arguments[0]
        vanishes = builder.fcmp_ordered("<", x, number(-87.0))
        x = builder.select(vanishes, number(-87.0), x)
        exponent = _call(builder, "llvm.rint.v16f32", _VF, [builder.fmul(x, number(1.44269504088896341))])
        r = fused(exponent, number(-0.693359375), x)
        r = fused(exponent, number(2.12194440e-4), r)
        polynomial = number(1.9875691500e-4)
        for coefficient in (
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ):
            polynomial = fused(polynomial, r, number(coefficient))
        result = builder.fadd(fused(polynomial, builder.fmul(r, r), r), number(1.0))
        nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        safe = builder.select(nan, number(0.0), exponent)  # a NaN has no integer
        bits = builder.shl(builder.add(builder.fptosi(safe, _VI), _constant(_VI, 127)), _constant(_VI, 23))
        result = builder.fmul(result, builder.bitcast(bits, _VF))
        return builder.select(vanishes, number(0.0), result)

    return f32x16(f32x16), emit


@intrinsic
def transpose(typing_context, source, start, step, target, begin, stride):
    """Copy a square: ``target[begin + j stride + i] = source[start + i step + j]`` for i, j < 16, float32."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, start, step, target, begin, stride = arguments
        size = step.type
        rows = []
        for i in range(LANES):
            offset = builder.add(start, builder.mul(step, ir.Constant(size, i)))
            place = _address(builder, source, offset)
            rows.append(builder.load(builder.bitcast(place, _VF.as_pointer()), align=4))
        for row_index, row in enumerate(_transposed(builder, rows)):
            offset = builder.add(begin, builder.mul(stride, ir.Constant(size, row_index)))
            place = _address(builder, target, offset)
            builder.store(row, builder.bitcast(place, _VF.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.none(source, types.intp, types.intp, target, types.intp, types.intp), emit


@intrinsic
def row_totals(typing_context, source, start):
    """The sums of the rows of a square: lane i is that of the 16 values from ``start + 16 i``, in a fixed order."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, start = arguments
        rows = []
        for i in range(LANES):
            place = _address(builder, source, builder.add(start, ir.Constant(start.type, LANES * i)))
            rows.append(builder.load(builder.bitcast(place, _VF.as_pointer()), align=4))
        even, odd = ([ir.Constant(_I32, 2 * k + first) for k in range(LANES)] for first in (0, 1))
        while len(rows) > 1:  # neighbouring lanes of two vectors are added and packed into one
            rows = [
                builder.fadd(*(builder.shuffle_vector(a, b, ir.Constant(_VI, pick)) for pick in (even, odd)))
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
        return rows[0]

    return f32x16(source, types.intp), emit


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of 16 vectors, in four rounds of exchanging blocks of 1, 2, 4 and 8 lanes."""
    rows = list(rows)
    for distance in (1, 2, 4, 8):
        low = [k if not k & distance else k - distance + LANES for k in range(LANES)]
        high = [k + distance if not k & distance else k + LANES for k in range(LANES)]
        pick = [ir.Constant(_VI, [ir.Constant(_I32, k) for k in lanes]) for lanes in (low, high)]
        for i in range(LANES):
            if not i & distance:
                a, b = rows[i], rows[i + distance]
                rows[i] = builder.shuffle_vector(a, b, pick[0])
                rows[i + distance] = builder.shuffle_vector(a, b, pick[1])
    return rows
