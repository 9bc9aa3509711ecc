# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Memory in compiled code: pointers, tables, vector loads and stores, prefetching, and counters shared by threads.

Functions take a pointer and an offset in values (not bytes); nothing checks bounds.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype
from numba.core import types
from numba.core.extending import intrinsic

from .simd import _I32, _I64, _VD, _VF, _VI, LANES, _call, _splat, f32x16, f64x16, mask16
from .target import Target, current

__all__ = [
    "NEXT",
    "THREADS",
    "address_of",
    "ahead",
    "call",
    "claim",
    "compress",
    "doubles",
    "fence",
    "first",
    "floats",
    "halves",
    "int64s",
    "integers",
    "load",
    "load_first",
    "prefetch",
    "reader",
    "store",
    "store_doubles",
    "store_first",
    "stream",
]


def _address(builder: Any, pointer: Any, offset: Any) -> Any:
    return builder.gep(pointer, [offset])


@intrinsic
def load(typing_context, array, offset):
    """Return 16 values from ``offset`` on."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        return builder.load(builder.bitcast(pointer, _VF.as_pointer()), align=4)

    return f32x16(array, types.intp), emit


def _stores(vector: Any, kind: Any, align: int, past: bool = False) -> Any:
    """Return an intrinsic ``(pointer, offset, value)`` that writes the 16 lanes of a vector."""

    def typed(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = builder.bitcast(_address(builder, arguments[0], arguments[1]), vector.as_pointer())
            written = builder.store(arguments[2], place, align=align)
            if past:
                written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_I32, 1)]))
            return context.get_dummy_value()

        return types.none(array, types.intp, kind), emit

    return intrinsic(typed)


#: Write 16 float32, or 16 float64, from an offset on.
store, store_doubles = _stores(_VF, f32x16, 4), _stores(_VD, f64x16, 8)
#: Write 16 float32 from an offset on, aligned to 64 bytes, past the caches: their lines are not read first.
stream = _stores(_VF, f32x16, 4 * LANES, past=True)


@intrinsic
def fence(typing_context):
    """Make everything that this thread has written, :func:`stream` included, visible to other threads."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), emit


@intrinsic
def prefetch(typing_context, array, offset):
    """Fetch the cache line at ``offset`` in order to read it soon; any address is allowed."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(builder, arguments[0], arguments[1])
        byte = builder.bitcast(place, ir.IntType(8).as_pointer())
        flags = [ir.Constant(_I32, flag) for flag in (0, 3, 1)]  # to read, keep in all caches, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, *flags])
        return context.get_dummy_value()

    return types.none(array, types.intp), emit


def _first(builder: Any, count: Any) -> Any:
    """Emit the mask of the first ``count`` lanes."""
    lanes = ir.Constant(_VI, [ir.Constant(_I32, k) for k in range(LANES)])
    return builder.icmp_signed("<", lanes, _splat(builder, builder.trunc(count, _I32), _VI))


@intrinsic
def first(typing_context, count):
    """Return the mask of the first ``count`` lanes; all if it is 16 or more."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _first(builder, arguments[0])

    return mask16(types.intp), emit


@intrinsic
def load_first(typing_context, array, offset, count, fill):
    """Return ``count`` (0 to 16) values from ``offset`` on, ``fill`` in the other lanes; touches no memory beyond."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        vector = builder.bitcast(pointer, _VF.as_pointer())
        mask = _first(builder, arguments[2])
        name = "llvm.masked.load.v16f32.p0"
        return _call(builder, name, _VF, [vector, mask, arguments[3]])

    return f32x16(array, types.intp, types.intp, f32x16), emit


@intrinsic
def store_first(typing_context, array, offset, count, value):
    """Write the first ``count`` (0 to 16) values from ``offset`` on."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(builder, arguments[0], arguments[1])
        vector = builder.bitcast(pointer, _VF.as_pointer())
        mask = _first(builder, arguments[2])
        _call(builder, "llvm.masked.store.v16f32.p0", ir.VoidType(), [arguments[3], vector, mask])
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, f32x16), emit


def _lanes(first: int, size: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, size), [ir.Constant(_I32, first + k) for k in range(size)])


def _table(builder: Any, size: int, each: int) -> Any:
    """Return a table of lane indices: for each set of ``size`` lanes, where the packed lanes come from.

    There are ``each`` numbers per lane, four bytes in all: lane indices for permps, byte indices for byte shuffles.
    """
    name = f"gbn_packing_{size}_{each}"
    found = builder.module.globals.get(name)
    if found is None:
        number = ir.IntType(32 // each)
        row = ir.ArrayType(number, size * each)
        rows = []
        for bits in range(1 << size):
            lanes = [k for k in range(size) if bits >> k & 1]
            lanes += [0] * (size - len(lanes))
            rows.append(
                ir.Constant(row, [ir.Constant(number, each * k + j) for k in lanes for j in range(each)])
            )
        found = ir.GlobalVariable(builder.module, ir.ArrayType(row, len(rows)), name)
        found.initializer = ir.Constant(found.value_type, rows)
        found.global_constant, found.linkage, found.align = True, "linkonce_odr", 32
    return found


def _packed(builder: Any, target: Target, value: Any, bits: Any, size: int) -> Any:
    """Return a vector of ``size`` lanes with those of the set ``bits`` in front; what follows them is undefined."""
    each = 1 if size == 8 else 4
    table = _table(builder, size, each)
    row = builder.gep(table, [ir.Constant(_I32, 0), builder.zext(bits, _I32)])
    if size == 8:
        index = builder.load(builder.bitcast(row, ir.VectorType(_I32, 8).as_pointer()), align=32)
        return _call(builder, "llvm.x86.avx2.permps", value.type, [value, index])
    octets = ir.VectorType(ir.IntType(8), 16)
    index = builder.load(builder.bitcast(row, octets.as_pointer()), align=16)
    name = "llvm.aarch64.neon.tbl1.v16i8" if target.arm else "llvm.x86.ssse3.pshuf.b.128"
    return builder.bitcast(_call(builder, name, octets, [builder.bitcast(value, octets), index]), value.type)


def _compress_by_table(builder: Any, target: Target, pointer: Any, mask: Any, value: Any, size: int) -> Any:
    """Write the lanes of the mask contiguously, ``size`` lanes at a time; return how many."""
    undefined = ir.Constant(_VF, ir.Undefined)
    nothing = ir.Constant(mask.type, ir.Undefined)
    few, count = ir.IntType(size), ir.Constant(_I64, 0)
    for begin in range(0, LANES, size):
        part = builder.shuffle_vector(value, undefined, _lanes(begin, size))
        flags = builder.shuffle_vector(mask, nothing, _lanes(begin, size))
        bits = builder.bitcast(flags, few)
        packed = _packed(builder, target, part, bits, size)
        place = builder.gep(pointer, [count])
        builder.store(packed, builder.bitcast(place, packed.type.as_pointer()), align=4)
        number = _call(builder, f"llvm.ctpop.i{size}", few, [bits])
        count = builder.add(count, builder.zext(number, _I64))
    return count


def _compress_each(builder: Any, pointer: Any, mask: Any, value: Any) -> Any:
    """Do the same one lane at a time: each is written, but only lanes of the mask advance the count."""
    count = ir.Constant(_I64, 0)
    for k in range(LANES):
        lane = ir.Constant(_I32, k)
        builder.store(builder.extract_element(value, lane), builder.gep(pointer, [count]), align=4)
        count = builder.add(count, builder.zext(builder.extract_element(mask, lane), _I64))
    return count


@intrinsic
def compress(typing_context, array, offset, mask, value):
    """Write the values of the mask's lanes contiguously from ``offset`` on; return the offset after them.

    Up to 16 places from there on lose what they hold. AVX-512 has an instruction for this; AVX2, SSSE3 and NEON
    permute a register by a table of all masks; elsewhere lanes are written one by one.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, offset, mask, value = arguments
        target, pointer = current(), _address(builder, array, offset)
        if target.has("avx512f"):
            name = "llvm.x86.avx512.mask.compress.v16f32"
            packed = _call(builder, name, _VF, [value, ir.Constant(_VF, ir.Undefined), mask])
            builder.store(packed, builder.bitcast(pointer, _VF.as_pointer()), align=4)
            bits = builder.bitcast(mask, ir.IntType(LANES))
            count = builder.zext(_call(builder, "llvm.ctpop.i16", bits.type, [bits]), _I64)
        elif target.has("avx2"):
            count = _compress_by_table(builder, target, pointer, mask, value, 8)
        elif target.has("ssse3") or target.arm:
            count = _compress_by_table(builder, target, pointer, mask, value, 4)
        else:
            count = _compress_each(builder, pointer, mask, value)
        return builder.add(offset, count)

    return types.intp(array, types.intp, mask16, f32x16), emit


def _pointer_from(number_type: Any, what: str) -> Any:
    pointer_type = types.CPointer(number_type)

    @intrinsic
    def function(typing_context, address):
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(pointer_type))

        return pointer_type(types.int64), emit

    function.__doc__ = f"An address as a pointer to {what}."
    return function


floats = _pointer_from(types.float32, "float32")
doubles = _pointer_from(types.float64, "float64")
integers = _pointer_from(types.int64, "int64")
halves = _pointer_from(types.uint16, "16 bits")


@intrinsic
def address_of(typing_context, pointer):
    """Return the address of a pointer."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(arguments[0], _I64)

    return types.int64(pointer), emit


@intrinsic
def call(typing_context, address, argument):
    """Call another entry point, ``void (int64)``, at an address."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(ir.VoidType(), [_I64]).as_pointer()
        builder.call(builder.inttoptr(arguments[0], function), [arguments[1]])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), emit


@intrinsic
def ahead(typing_context, pointer, offset):
    """Return the pointer that many values further on."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _address(builder, *arguments)

    return pointer(pointer, types.int64), emit


def int64s(*names: str) -> tuple[tuple[str, Any], ...]:
    """Return fields of a ``ctypes.Structure``, int64 each: the tables that Python fills in and kernels read."""
    return tuple((name, ctypes.c_int64) for name in names)


def reader(structure: type[ctypes.Structure]) -> Any:
    """Return an intrinsic that takes a table's address (int64) and returns the table, whose fields are attributes."""
    table = from_dtype(np.dtype(structure))

    @intrinsic
    def read(typing_context, address):
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(table))

        return table(types.int64), emit

    return read


#: The first slots of the tables of calls: the next share of the work, and the threads that have started.
NEXT, THREADS = 0, 1


@intrinsic
def claim(typing_context, table, slot):
    """Add 1 to an int64 slot of a table atomically and return its old value: this is how threads share work."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(builder, builder.bitcast(arguments[0], _I64.as_pointer()), arguments[1])
        # only the count itself is shared, so no ordering of other memory is needed
        return builder.atomic_rmw("add", place, ir.Constant(_I64, 1), "monotonic")

    return types.int64(table, types.intp), emit
