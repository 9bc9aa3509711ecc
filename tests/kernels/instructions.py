"""Run by test_targets.py in a process of its own: small kernels for one target, against numpy.

Two arguments: the features that the target has, and whether this processor can run what is made for it.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

from gbn.kernels.numba.compiling import compiled, machine_code
from gbn.kernels.numba.convert import exp, load_bfloat16, load_float16, store_bfloat16, store_float16
from gbn.kernels.numba.memory import compress, floats, halves, integers, load, store
from gbn.kernels.numba.objects import Entry
from gbn.kernels.numba.simd import fma, splat
from gbn.kernels.numba.target import Target

SELECT, EXP, FMA, WIDEN, WIDEN_B, NARROW, NARROW_B = range(7)


@compiled
def _work(address):
    a = integers(address)
    source, target, kind = floats(a[0]), floats(a[1]), a[3]
    found = 0
    for i in range(0, a[2], 16):
        if kind == WIDEN:
            store(target, i, load_float16(halves(a[0]), i))
        elif kind == WIDEN_B:
            store(target, i, load_bfloat16(halves(a[0]), i))
        elif kind == NARROW:
            store_float16(halves(a[1]), i, load(source, i))
        elif kind == NARROW_B:
            store_bfloat16(halves(a[1]), i, load(source, i))
        elif kind == EXP:
            store(target, i, exp(load(source, i)))
        elif kind == FMA:
            v = load(source, i)
            store(target, i, fma(v, v, splat(-1.0)))
        else:
            v = load(source, i)
            found = compress(target, found, (v > splat(-0.25)) & (v < splat(0.5)), v)
    a[4] = found


def work(address):
    """The entry point."""
    _work(address)


def main() -> None:
    """Compile, and where this processor can, run and compare."""
    triple, cpu, features, runs = sys.argv[1:]
    target = Target(triple, cpu, features)
    made = machine_code(work, target)
    assert made
    if runs == "no":
        return
    entry = Entry("work", made)

    def call(source: np.ndarray, result: np.ndarray, kind: int) -> int:
        table = (ctypes.c_int64 * 5)(source.ctypes.data, result.ctypes.data, source.size, kind, 0)
        entry.ctypes(ctypes.addressof(table))
        return table[4]

    values = np.random.default_rng(0).standard_normal(1 << 14, dtype=np.float32)
    values[:64] = 0.0  # whole vectors in the mask, and whole ones that are not
    values[64:128] = 9.0
    packed = np.full(values.size + 16, np.nan, np.float32)
    found = call(values, packed, SELECT)
    np.testing.assert_array_equal(packed[:found], values[(values > -0.25) & (values < 0.5)])

    result = np.empty_like(values)
    call(values, result, EXP)
    np.testing.assert_allclose(result, np.exp(values.astype(np.float64)), rtol=2e-7)
    call(values, result, FMA)
    exact = values.astype(np.float64) ** 2 - 1
    # a product that is rounded first is off by half a unit of its own last place
    allowed = 0.0 if target.fuses else np.finfo(np.float32).eps * values.astype(np.float64) ** 2
    assert (np.abs(result - exact) <= np.spacing(np.abs(exact).astype(np.float32)) / 2 + allowed).all()

    bits = np.arange(1 << 16, dtype=np.uint16)
    wide, narrow = np.empty(bits.size, np.float32), np.empty_like(bits)
    call(bits, wide, WIDEN)
    np.testing.assert_array_equal(wide, bits.view(np.float16).astype(np.float32))
    call(bits, wide, WIDEN_B)
    np.testing.assert_array_equal(wide, (bits.astype(np.uint32) << 16).view(np.float32))
    exact = bits.view(np.float16).astype(np.float32)
    halfway = np.resize((exact[:-1] + exact[1:]) / 2, bits.size)  # ties, and what overflows
    for numbers in (exact, halfway, np.nextafter(halfway, np.float32(0)), values[: bits.size] * 1e-5):
        numbers = np.resize(numbers, bits.size)
        call(numbers, narrow, NARROW)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(narrow.view(np.float16), numbers.astype(np.float16))
    call(wide, narrow, NARROW_B)
    np.testing.assert_array_equal(narrow, np.where(np.isnan(wide), bits | 0x40, bits))


main()
