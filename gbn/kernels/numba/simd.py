# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Vectors of 16 float32 for numba: explicit SIMD where the auto-vectorizer cannot be relied on.

A kernel written with these types is vectorized on every processor that LLVM knows: LLVM splits the 16 lanes into what
the machine has (one register of AVX-512, two of AVX2, four of NEON). This gains two things over plain loops: inner
loops of unknown length (over the breakpoints of a gradient) keep their operands in registers, and the samples inside
a bracket can be compressed to the front of a vector, for which no scalar code is as fast (:mod:`.memory`). Rounding
is as written: nothing is reassociated, and only :func:`fma` fuses.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic, lower_builtin, models, register_model, type_callable

from .target import current

__all__ = ["LANES"]

LANES = 16

_F32 = ir.FloatType()
_F64 = ir.DoubleType()
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_VF = ir.VectorType(_F32, LANES)
_VD = ir.VectorType(_F64, LANES)
_VI = ir.VectorType(_I32, LANES)
_VM = ir.VectorType(ir.IntType(1), LANES)
_VH = ir.VectorType(ir.IntType(16), LANES)


def _vector_type(name: str, llvm: ir.Type) -> types.Type:
    """Return a numba type whose values are one LLVM vector."""
    cls = type(name, (types.Type,), {"__init__": lambda self: types.Type.__init__(self, name=name)})

    class Model(models.PrimitiveModel):
        def __init__(self, dmm: Any, fe_type: Any) -> None:
            super().__init__(dmm, fe_type, llvm)

    register_model(cls)(Model)
    return cls()


f32x16 = _vector_type("f32x16", _VF)
f64x16 = _vector_type("f64x16", _VD)
i32x16 = _vector_type("i32x16", _VI)
mask16 = _vector_type("mask16", _VM)


def _constant(vector: ir.VectorType, value: Any) -> ir.Constant:
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * LANES)


def _splat(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), _constant(_VI, 0))


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    function_type = ir.FunctionType(result, [a.type for a in arguments])
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, function_type, name)
    return builder.call(function, arguments)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Emit a b + c, rounded once; twice without such an instruction, since LLVM would call the C library per lane."""
    if current().fuses:
        return _call(builder, "llvm.fma.v16f32", _VF, [a, b, c])
    return builder.fadd(builder.fmul(a, b), c)


def _arithmetic(op: Any, emit: Callable[[Any, Any, Any], Any], *, of: types.Type, gives: types.Type) -> None:
    """Define ``op`` on two vectors."""

    @type_callable(op)
    def typer(context: Any) -> Any:
        return lambda a, b: gives if a is of and b is of else None

    @lower_builtin(op, type(of), type(of))
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit(builder, *arguments)


for _type in (f32x16, f64x16):
    _arithmetic(operator.add, lambda b, x, y: b.fadd(x, y), of=_type, gives=_type)
    _arithmetic(operator.sub, lambda b, x, y: b.fsub(x, y), of=_type, gives=_type)
    _arithmetic(operator.mul, lambda b, x, y: b.fmul(x, y), of=_type, gives=_type)
_arithmetic(operator.truediv, lambda b, x, y: b.fdiv(x, y), of=f32x16, gives=f32x16)
for _op, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
):
    # ordered: false if either operand is NaN
    _arithmetic(_op, lambda b, x, y, s=_sign: b.fcmp_ordered(s, x, y), of=f32x16, gives=mask16)
_arithmetic(operator.and_, lambda b, x, y: b.and_(x, y), of=mask16, gives=mask16)
_arithmetic(operator.xor, lambda b, x, y: b.xor(x, y), of=mask16, gives=mask16)
_arithmetic(operator.or_, lambda b, x, y: b.or_(x, y), of=mask16, gives=mask16)


@intrinsic
def splat(typing_context, scalar):
    """Return a vector with the float32 ``scalar`` in all lanes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], signature.args[0], types.float32)
        return _splat(builder, value, _VF)

    return f32x16(scalar), emit


@intrinsic
def zeros64(typing_context):
    """Return 16 zeros in float64."""
    return f64x16(), lambda context, builder, signature, arguments: _constant(_VD, 0.0)


def _lanewise(name: str) -> Any:
    """Return an intrinsic of two float vectors."""

    @intrinsic
    def function(typing_context, a, b):
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            greater = builder.fcmp_ordered(">" if name == "max" else "<", arguments[0], arguments[1])
            return builder.select(greater, arguments[0], arguments[1])

        return f32x16(f32x16, f32x16), emit

    function.__doc__ = f"The {name}imum of each lane; the second where one is NaN."
    return function


maximum = _lanewise("max")
minimum = _lanewise("min")


@intrinsic
def fma(typing_context, a, b, c):
    """Return a b + c, rounded once on every processor that can."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fma(builder, *arguments)

    return f32x16(f32x16, f32x16, f32x16), emit


@intrinsic
def where(typing_context, mask, a, b):
    """Return ``a`` in the lanes of the mask, ``b`` in the others."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return f32x16(mask16, f32x16, f32x16), emit


@intrinsic
def count(typing_context, mask):
    """Return how many lanes are set."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(LANES))
        return builder.zext(_call(builder, "llvm.ctpop.i16", ir.IntType(LANES), [bits]), _I64)

    return types.int64(mask16), emit


@intrinsic
def zeros32(typing_context):
    """Return 16 int32 counters at 0."""
    return i32x16(), lambda context, builder, signature, arguments: _constant(_VI, 0)


@intrinsic
def tally(typing_context, counters, mask):
    """Add 1 to the counters of the mask's lanes: cheaper in a loop than :func:`count`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # a set lane sign-extends to -1
        return builder.sub(arguments[0], builder.sext(arguments[1], _VI))

    return i32x16(i32x16, mask16), emit


@intrinsic
def tallied(typing_context, counters):
    """Return the sum of the counters."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(_call(builder, "llvm.vector.reduce.add.v16i32", _I32, [arguments[0]]), _I64)

    return types.int64(i32x16), emit


@intrinsic
def as_float(typing_context, counters):
    """Return the counters as float32."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sitofp(arguments[0], _VF)

    return f32x16(i32x16), emit


@intrinsic
def widen(typing_context, value):
    """Return the same numbers in float64."""
    return f64x16(f32x16), lambda context, builder, signature, arguments: builder.fpext(arguments[0], _VD)


def _sum_of_lanes(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    v = arguments[0]
    width = LANES
    while width > 1:  # a tree of halves: a fixed order, whatever the processor
        width //= 2
        half = ir.VectorType(_I32, width)
        low = ir.Constant(half, [ir.Constant(_I32, k) for k in range(width)])
        high = ir.Constant(half, [ir.Constant(_I32, k + width) for k in range(width)])
        undefined = ir.Constant(v.type, ir.Undefined)
        v = builder.fadd(
            builder.shuffle_vector(v, undefined, low), builder.shuffle_vector(v, undefined, high)
        )
    return builder.extract_element(v, ir.Constant(_I32, 0))


@intrinsic
def narrow(typing_context, value):
    """Return the numbers rounded to float32."""
    return f32x16(f64x16), lambda context, builder, signature, arguments: builder.fptrunc(arguments[0], _VF)


@intrinsic
def total(typing_context, value):
    """Return the sum of the lanes, in a fixed order, as float64."""
    return types.float64(f64x16), _sum_of_lanes


@intrinsic
def total_narrow(typing_context, value):
    """Return the sum of the lanes, in a fixed order, rounded to float32 at each of its four steps."""
    return types.float32(f32x16), _sum_of_lanes


@intrinsic
def lowest(typing_context, value):
    """Return the smallest lane that is not NaN."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.vector.reduce.fmin.v16f32", _F32, [arguments[0]])

    return types.float32(f32x16), emit


@intrinsic
def highest(typing_context, value):
    """Return the largest lane that is not NaN."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.vector.reduce.fmax.v16f32", _F32, [arguments[0]])

    return types.float32(f32x16), emit


@intrinsic
def float_of_bits(typing_context, bits):
    """Return the float32 of an int32's bits."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.trunc(arguments[0], _I32), _F32)

    return types.float32(types.int64), emit


@intrinsic
def bits_of_float(typing_context, value):
    """Return the bits of a float32 as a signed number."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sext(builder.bitcast(arguments[0], _I32), _I64)

    return types.int64(types.float32), emit
