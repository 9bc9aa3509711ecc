# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Bundles: K vectors of 16 float32 in registers, one per component, and the operations on them.

K is part of the type: a bundle is a tuple, and functions that create one take its length from ``like``, any tuple of
that length. So loops over components are unrolled, and their vectors never go through memory.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from gbn.kernels.numba.memory import _address
from gbn.kernels.numba.simd import (
    _F64,
    _VF,
    _VI,
    LANES,
    _constant,
    _fma,
    _splat,
    _sum_of_lanes,
    f32x16,
    mask16,
)

__all__ = [
    "add_each",
    "add_totals",
    "dot",
    "fma_each",
    "keep_first",
    "load_mask",
    "loads",
    "multiply_each",
    "softmax2",
    "splats",
    "spread",
    "store_mask",
    "stores",
    "subtract_each",
    "zeros",
]

_MASK = ir.IntType(LANES)

#: (2^f - 1) / f on [-1/2, 1/2] as a polynomial with the least relative error of 2^f.
_EXP2 = (
    0.6931470036506653,
    0.24022242426872253,
    0.05550733581185341,
    0.009671512991189957,
    0.001326472614891827,
)


def _bundle(like: Any) -> Any:
    return types.UniTuple(f32x16, len(like))


def _each(builder: Any, kind: Any, value: Any, number: int) -> list[Any]:
    """Return the vectors of a bundle; a single vector is repeated."""
    return (
        list(cgutils.unpack_tuple(builder, value)) if isinstance(kind, types.BaseTuple) else [value] * number
    )


@intrinsic
def fma_each(typing_context, a, b, c):
    """Return ``a_k b_k + c_k`` for each k, rounded once; each of the three is a bundle or one vector."""
    number = next(len(kind) for kind in (a, b, c) if isinstance(kind, types.BaseTuple))
    result = types.UniTuple(f32x16, number)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = [
            _each(builder, kind, value, number) for kind, value in zip(signature.args, arguments, strict=True)
        ]
        return context.make_tuple(builder, result, [_fma(builder, *each) for each in zip(*rows, strict=True)])

    return result(a, b, c), emit


def _elementwise(operation: str) -> Any:
    """Return an intrinsic of two arguments, each a bundle or one vector, at least one of them a bundle."""

    def typed(typing_context: Any, a: Any, b: Any) -> Any:
        number = next(len(kind) for kind in (a, b) if isinstance(kind, types.BaseTuple))
        result = types.UniTuple(f32x16, number)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            rows = [
                _each(builder, kind, value, number)
                for kind, value in zip(signature.args, arguments, strict=True)
            ]
            found = [getattr(builder, operation)(*each) for each in zip(*rows, strict=True)]
            return context.make_tuple(builder, result, found)

        return result(a, b), emit

    return intrinsic(typed)


#: ``a_k + b_k``, ``a_k - b_k``, ``a_k b_k`` for each k.
add_each, subtract_each, multiply_each = (_elementwise(name) for name in ("fadd", "fsub", "fmul"))


@intrinsic
def dot(typing_context, a, b, c):
    """Return ``c + a_0 b_0 + a_1 b_1 + ...`` of two bundles and a vector."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (_each(builder, a, value, len(a)) for value in arguments[:2])
        found = arguments[2]
        for one, other in zip(left, right, strict=True):
            found = _fma(builder, one, other, found)
        return found

    return f32x16(a, b, c), emit


@intrinsic
def zeros(typing_context, like):
    """Return a bundle of zeros."""
    result = _bundle(like)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_tuple(builder, result, [_constant(_VF, 0.0)] * len(like))

    return result(like), emit


def _reads(step: int, whole: bool) -> Any:
    """Return an intrinsic ``(pointer, place, like)`` that reads K vectors or numbers ``step`` apart."""

    def typed(typing_context: Any, pointer: Any, place: Any, like: Any) -> Any:
        result = _bundle(like)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vectors = []
            for k in range(len(like)):
                where = _address(
                    builder, arguments[0], builder.add(arguments[1], ir.Constant(arguments[1].type, step * k))
                )
                if whole:
                    vectors.append(builder.load(builder.bitcast(where, _VF.as_pointer()), align=4))
                else:
                    vectors.append(_splat(builder, builder.load(where, align=4), _VF))
            return context.make_tuple(builder, result, vectors)

        return result(pointer, types.intp, like), emit

    return intrinsic(typed)


#: K adjacent float32 from a place on, each in all lanes of its vector.
splats = _reads(1, whole=False)
#: K float32, 16 apart, each in all lanes of its vector: one sample's posteriors.
spread = _reads(LANES, whole=False)
#: K adjacent vectors from a place on.
loads = _reads(LANES, whole=True)


@intrinsic
def stores(typing_context, pointer, place, step, values):
    """Write the vectors to places ``step`` apart."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, place, step, bundle = arguments
        for vector in cgutils.unpack_tuple(builder, bundle):
            where = builder.bitcast(_address(builder, pointer, place), _VF.as_pointer())
            builder.store(vector, where, align=4)
            place = builder.add(place, step)
        return context.get_dummy_value()

    return types.none(pointer, types.intp, types.intp, values), emit


@intrinsic
def keep_first(typing_context, count, values):
    """Return the bundle with 0 in all lanes but the first ``count``."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = ir.Constant(_VI, [ir.Constant(ir.IntType(32), k) for k in range(LANES)])
        many = _splat(builder, builder.trunc(arguments[0], ir.IntType(32)), _VI)
        mask, zero = builder.icmp_signed("<", lanes, many), _constant(_VF, 0.0)
        kept = [builder.select(mask, v, zero) for v in cgutils.unpack_tuple(builder, arguments[1])]
        return context.make_tuple(builder, values, kept)

    return values(types.intp, values), emit


def _exp2(builder: Any, z: Any) -> Any:
    """Emit 2^z for z <= 0, relative error below 3e-7, exactly 1 at 0, 0 below -126; NaN stays."""
    vanishes = builder.fcmp_ordered("<", z, _constant(_VF, -126.0))
    z = builder.select(vanishes, _constant(_VF, -126.0), z)
    magic = _constant(_VF, 1.5 * 2.0**23)  # adding it rounds to an integer, left in the low bits of the sum
    shifted = builder.fadd(z, magic)
    f = builder.fsub(z, builder.fsub(shifted, magic))
    polynomial = _constant(_VF, _EXP2[-1])
    for coefficient in reversed(_EXP2[:-1]):
        polynomial = _fma(builder, polynomial, f, _constant(_VF, coefficient))
    value = _fma(builder, polynomial, f, _constant(_VF, 1.0))
    exponent = builder.shl(builder.bitcast(shifted, _VI), _constant(_VI, 23))
    value = builder.bitcast(builder.add(builder.bitcast(value, _VI), exponent), _VF)
    return builder.select(vanishes, _constant(_VF, 0.0), value)


@intrinsic
def softmax2(typing_context, logits):
    """Return ``2^z_k / sum_j 2^z_j`` in each lane."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = list(cgutils.unpack_tuple(builder, arguments[0]))
        if len(vectors) == 1:  # z - z + 1 instead of 1, so that NaN stays
            zero = builder.fsub(vectors[0], vectors[0])
            return context.make_tuple(builder, logits, [builder.fadd(zero, _constant(_VF, 1.0))])
        # subtract the maximum, so that no power overflows and the largest is exactly 1
        top = vectors[0]
        for other in vectors[1:]:
            top = builder.select(builder.fcmp_unordered("<", top, other), other, top)
        powers = [_exp2(builder, builder.fsub(vector, top)) for vector in vectors]
        total = powers[0]
        for other in powers[1:]:
            total = builder.fadd(total, other)
        each = builder.fdiv(_constant(_VF, 1.0), total)
        return context.make_tuple(builder, logits, [builder.fmul(power, each) for power in powers])

    return logits(logits), emit


@intrinsic
def add_totals(typing_context, sums, place, values):
    """Add the sum of each vector's lanes to its own float64, from ``place`` on."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, place, bundle = arguments
        for k, vector in enumerate(cgutils.unpack_tuple(builder, bundle)):
            where = _address(builder, sums, builder.add(place, ir.Constant(place.type, k)))
            found = _sum_of_lanes(context, builder, signature, [vector])
            builder.store(builder.fadd(builder.load(where), builder.fpext(found, _F64)), where)
        return context.get_dummy_value()

    return types.none(sums, types.intp, values), emit


@intrinsic
def store_mask(typing_context, halves, place, mask):
    """Write a mask as 16 bits."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[2], _MASK)
        builder.store(bits, _address(builder, arguments[0], arguments[1]), align=2)
        return context.get_dummy_value()

    return types.none(halves, types.intp, mask16), emit


@intrinsic
def load_mask(typing_context, halves, place):
    """Return a mask that :func:`store_mask` wrote."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.load(_address(builder, arguments[0], arguments[1]), align=2)
        return builder.bitcast(bits, ir.VectorType(ir.IntType(1), LANES))

    return mask16(halves, types.intp), emit
