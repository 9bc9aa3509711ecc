# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Vectors of 16: half precision to float32 and back, the exponential, and the transposition of a square."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from .memory import _address
from .simd import _I32, _VF, _VH, _VI, LANES, _call, _constant, _fma, f32x16
from .target import current

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
    """Return 16 bfloat16, stored as uint16, from ``offset`` on as float32."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        bits = builder.load(builder.bitcast(pointer, _VH.as_pointer()), align=2)
        # bfloat16 is the upper half of a float32
        return builder.bitcast(builder.shl(builder.zext(bits, _VI), _constant(_VI, 16)), _VF)

    return f32x16(array, types.intp), emit


@intrinsic
def store_bfloat16(typing_context, array, offset, value):
    """Write 16 values, rounded to the nearest bfloat16 (ties to even), as uint16."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        bits = builder.bitcast(arguments[2], _VI)
        # half an ulp minus one, plus one if the kept part is odd: carries round to nearest even
        odd = builder.and_(builder.lshr(bits, _constant(_VI, 16)), _constant(_VI, 1))
        rounded = builder.add(builder.add(bits, _constant(_VI, 0x7FFF)), odd)
        # the carry could turn a NaN into an infinity: keep its bits and make it quiet
        nan = builder.fcmp_unordered("uno", arguments[2], arguments[2])
        quiet = builder.or_(bits, _constant(_VI, 0x00400000))
        high = builder.lshr(builder.select(nan, quiet, rounded), _constant(_VI, 16))
        builder.store(builder.trunc(high, _VH), builder.bitcast(pointer, _VH.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.none(array, types.intp, f32x16), emit


def _widened(builder: Any, bits: Any) -> Any:
    """Emit float16, as integers, to float32 by integer arithmetic: shift into place, change the bias from 15 to 127.

    Subnormal numbers are made with the exponent of the least normal one, which is then subtracted again.
    """
    body = builder.shl(builder.and_(bits, _constant(_VI, 0x7FFF)), _constant(_VI, 13))
    exponent = builder.and_(body, _constant(_VI, 0x0F800000))
    moved = builder.add(body, _constant(_VI, 112 << 23))
    infinite = builder.icmp_signed("==", exponent, _constant(_VI, 0x0F800000))
    moved = builder.select(infinite, builder.add(moved, _constant(_VI, 112 << 23)), moved)
    offset = builder.fsub(
        builder.bitcast(builder.add(moved, _constant(_VI, 1 << 23)), _VF), _constant(_VF, 2.0**-14)
    )
    small = builder.icmp_signed("==", exponent, _constant(_VI, 0))
    magnitude = builder.select(small, builder.bitcast(offset, _VI), moved)
    sign = builder.shl(builder.and_(bits, _constant(_VI, 0x8000)), _constant(_VI, 16))
    return builder.bitcast(builder.or_(magnitude, sign), _VF)


def _halved(builder: Any, value: Any) -> Any:
    """Emit float32 to float16 as integers, to the nearest, ties to even: the inverse of :func:`_widened`."""
    bits = builder.bitcast(value, _VI)
    body = builder.and_(bits, _constant(_VI, 0x7FFFFFFF))
    # subnormal results: adding 1/2 leaves the rounded bits at the low end of the sum
    half = _constant(_VF, 0.5)
    small = builder.sub(
        builder.bitcast(builder.fadd(builder.bitcast(body, _VF), half), _VI), _constant(_VI, 0x3F000000)
    )
    # normal results: rebias, and round to nearest even as in store_bfloat16
    odd = builder.and_(builder.lshr(body, _constant(_VI, 13)), _constant(_VI, 1))
    normal = builder.lshr(
        builder.add(builder.add(body, _constant(_VI, 0xFFF - (112 << 23))), odd), _constant(_VI, 13)
    )
    result = builder.select(builder.icmp_signed("<", body, _constant(_VI, 113 << 23)), small, normal)
    over = builder.icmp_signed(">=", body, _constant(_VI, 143 << 23))
    result = builder.select(over, _constant(_VI, 0x7C00), result)
    nan = builder.icmp_signed(">", body, _constant(_VI, 255 << 23))
    payload = builder.or_(
        builder.and_(builder.lshr(body, _constant(_VI, 13)), _constant(_VI, 0x3FF)), _constant(_VI, 0x7E00)
    )
    result = builder.select(nan, payload, result)
    return builder.or_(result, builder.and_(builder.lshr(bits, _constant(_VI, 16)), _constant(_VI, 0x8000)))


@intrinsic
def load_float16(typing_context, array, offset):
    """Return 16 float16, stored as uint16, from ``offset`` on as float32."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        if current().converts_halves:
            return builder.fpext(builder.load(builder.bitcast(pointer, _V16.as_pointer()), align=2), _VF)
        bits = builder.load(builder.bitcast(pointer, _VH.as_pointer()), align=2)
        return _widened(builder, builder.zext(bits, _VI))

    return f32x16(array, types.intp), emit


@intrinsic
def store_float16(typing_context, array, offset, value):
    """Write 16 values, rounded to the nearest float16, as uint16."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        if current().converts_halves:
            half = builder.bitcast(builder.fptrunc(arguments[2], _V16), _VH)
        else:
            half = builder.trunc(_halved(builder, arguments[2]), _VH)
        builder.store(half, builder.bitcast(pointer, _VH.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.none(array, types.intp, f32x16), emit


@intrinsic
def exp(typing_context, value):
    """Return e to the power of each lane, which must not exceed 80; relative error below 2e-7, NaN stays.

    Cody and Waite's reduction to [-ln 2 / 2, ln 2 / 2] and the polynomial of Cephes' expf (Moshier).
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def number(value: float) -> Any:
            return _constant(_VF, value)

        x = arguments[0]
        # below about -87 the result would be subnormal: it is set to 0
        vanishes = builder.fcmp_ordered("<", x, number(-87.0))
        x = builder.select(vanishes, number(-87.0), x)
        exponent = _call(builder, "llvm.rint.v16f32", _VF, [builder.fmul(x, number(1.44269504088896341))])
        # ln 2 in two parts, the first exact in few bits, so that the reduction loses no digits
        r = _fma(builder, exponent, number(-0.693359375), x)
        r = _fma(builder, exponent, number(2.12194440e-4), r)
        polynomial = number(1.9875691500e-4)
        for coefficient in (
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ):
            polynomial = _fma(builder, polynomial, r, number(coefficient))
        result = builder.fadd(_fma(builder, polynomial, builder.fmul(r, r), r), number(1.0))
        nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        safe = builder.select(nan, number(0.0), exponent)  # converting a NaN to an integer is undefined
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
    """Return the row sums of a square: lane i sums the 16 float32 from ``start + 16 i`` on, in a fixed order."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, start = arguments
        rows = []
        for i in range(LANES):
            place = _address(builder, source, builder.add(start, ir.Constant(start.type, LANES * i)))
            rows.append(builder.load(builder.bitcast(place, _VF.as_pointer()), align=4))
        even, odd = ([ir.Constant(_I32, 2 * k + first) for k in range(LANES)] for first in (0, 1))
        while len(rows) > 1:  # adjacent lanes of two vectors are added and packed into one
            rows = [
                builder.fadd(*(builder.shuffle_vector(a, b, ir.Constant(_VI, pick)) for pick in (even, odd)))
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
        return rows[0]

    return f32x16(source, types.intp), emit


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the columns of 16 vectors, in four rounds of exchanging blocks of 1, 2, 4 and 8 lanes."""
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
