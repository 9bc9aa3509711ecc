"""From torch tensors to the compiled entry points, and the threads that run them.

The threads are those of torch's own OpenMP pool: ``GOMP_parallel`` of its runtime runs a C function on as many of
them as :func:`torch.get_num_threads` says. A second pool would compete with torch's for the cores, because torch's
idle threads spin for a while after each of its operations.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gbn.kernels.backend import Arguments, Gradients, Kept
from gbn.kernels.plan import Plan

from . import objects
from .call import Call
from .encode import encoded
from .passes import scratch_size
from .passes_last import pieces_of, scratch_size_last, spans_of
from .rows import BFLOAT16, FLOAT16, FLOAT32, LAST, PLANES
from .simd import LANES

__all__ = [
    "address",
    "entries",
    "layout",
    "layout_of",
    "like",
    "plain",
    "room",
    "run_backward",
    "run_entry",
    "run_forward",
    "start",
]

_KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}

#: With at least this many values per run, channels are read in place. Shorter runs are first copied to a contiguous
#: row, which pays off earlier the more passes follow: some eight forward, two backward.
_LONG_RUN, _LONG_RUN_BACK = 256, 64

#: From this many bytes on a result is written past the caches. Otherwise each of its lines would first be read, which
#: costs more than the next layer's reading it back from memory (whole training steps are faster this way).
_PAST = 2 << 20

#: Short runs of several channels are copied together, so that this many values are read contiguously.
_TOGETHER = 512

_scratch = threading.local()


#: The entry points of a training step where channels are adjacent in memory, besides the forward pass.
_LAST = ("normalize_spans", "reduce_spans", "differentiate_spans")


def _name(function: str) -> str:
    module = "passes" if function.removesuffix("_gated") in ("forward", "backward") else "passes_last"
    return f"gbn.kernels.numba.{module}:{function}"


def _measure(common: bool) -> str:
    return f"gbn.kernels.numba.measure:{'measure' if common else 'measure_any'}"


@functools.cache
def entries(layout: int, gated: bool, common: bool) -> tuple[str, ...]:
    """Return a training step's entry points, for common pairs (:func:`gbn.kernels.plan.is_common`) or for any."""
    functions = ["forward", "backward"] if layout == PLANES else ["forward", *_LAST]
    if gated and layout == LAST:
        functions.append("settle_blocks")
    return _measure(common), *(_name(f"{one}_gated" if gated else one) for one in functions)


@functools.cache
def _entry(function: str) -> objects.Entry:
    return objects.entry(_name(function))


_MAPS = Path("/proc/self/maps")


@functools.cache
def _parallel() -> Any:
    """Return ``GOMP_parallel`` of the OpenMP runtime that torch has loaded, or None."""
    inside = Path(torch.__file__).parent
    try:
        maps = _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        loaded = {line.split(maxsplit=5)[-1] for line in maps if "omp" in line}
    except OSError:  # not Linux
        loaded = {str(path) for path in (inside / "lib").glob("lib*omp*")}
    # torch's own first: another package may have brought a runtime, and so a pool, of its own
    for path in sorted(loaded, key=lambda path: (str(inside) not in path, path)):
        if Path(path).name.startswith(("libgomp", "libomp", "libiomp")):
            try:
                found = ctypes.CDLL(path).GOMP_parallel
            except (OSError, AttributeError):
                continue
            found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            found.restype = None
            return found
    return None


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="gbn")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked child has none of its parent's threads


def _run(name: str, table: int, threads: int) -> None:
    run_entry(_entry(name), table, threads)


def run_entry(entry: Any, table: int, threads: int) -> None:
    """Call an entry point from ``threads`` threads and wait."""
    parallel = _parallel() if threads > 1 else None
    if parallel is not None:
        parallel(entry.address, table, threads, 0)
    elif threads == 1:
        entry.ctypes(table)
    else:
        list(_pool(threads).map(entry.ctypes, [table] * threads))


def layout(x: Tensor) -> int:
    """Return the layout in which kernels read x; a tensor in neither layout is copied to planes."""
    if x.numel() == x.shape[0] * x.shape[1]:  # one value per image and channel: both layouts are the same
        return LAST
    return LAST if not x.is_contiguous() and x.movedim(1, -1).is_contiguous() else PLANES


def layout_of(x: Tensor) -> tuple[Tensor, int]:
    """Return x, copied if it is in neither layout, and its layout."""
    found = layout(x)
    if found == PLANES:
        return x.contiguous(), PLANES
    return x.movedim(1, -1).contiguous().movedim(-1, 1), LAST


def like(g: Tensor, x: Tensor, layout: int) -> Tensor:
    """Return the cotangent in x's layout and dtype."""
    if g.dtype != x.dtype:
        g = g.to(x.dtype)
    return g.contiguous() if layout == PLANES else g.movedim(1, -1).contiguous().movedim(-1, 1)


def plain(values: Tensor | None) -> Tensor | None:
    """Return gain or bias as contiguous float32."""
    if values is None or (values.dtype == torch.float32 and values.is_contiguous()):
        return values
    return values.detach().to(torch.float32).contiguous()


def address(tensor: Tensor | None) -> int:
    """Return the address of a tensor's values; 0 for None.

    Raises:
        RuntimeError: it has none (a torch mode may make every new tensor one without data).
    """
    if tensor is None:
        return 0
    found = tensor.data_ptr()
    if found == 0 and tensor.numel():
        raise RuntimeError(f"a tensor {tuple(tensor.shape)} has no memory: compiled kernels need real data")
    return found


def room(size: int) -> int:
    """Return the address of scratch kept per calling thread: fresh memory would be mapped anew at every call."""
    kept = getattr(_scratch, "kept", None)
    if kept is None or kept.numel() < size:
        kept = _scratch.kept = torch.empty(size, dtype=torch.uint8, device="cpu")
    address = kept.data_ptr()
    return address + -address % 64  # the next multiple of a cache line


_Table = ctypes.c_int64 * len(Call)
_FIRST = int(Call.X)
_SIZE, _BLOCK, _SCRATCH, _SPANS = (int(place) for place in (Call.SIZE, Call.BLOCK, Call.SCRATCH, Call.SPANS))


@functools.lru_cache(maxsize=4096)
def _template(
    name: str,
    plan: Plan,
    channels: int,
    length: int,
    layout: int,
    dtype: torch.dtype,
    relu: bool,
    eps: float,
    wanted: bool,
    threads: int,
    gated: bool,
) -> tuple[bytes, Any]:
    """Return the part of the table that is constant across calls, and the arrays whose addresses are in it."""
    table = _Table()
    terms = len(plan.statistic.terms) + len(plan.deviation.terms)
    direct = layout == PLANES and dtype == torch.float32
    # LAST reads up to 16 channels at a time, but fewer if a thread would otherwise get none
    together = -(-channels // threads) if layout == LAST else -(-_TOGETHER // length)
    block = min(LANES, together, channels)
    rows = 1 if name == "forward" else 2
    channel_rows = LANES if layout == LAST else block
    size = scratch_size(plan.n, channel_rows, len(plan.ranks), terms, plan.points, rows)
    if name.endswith(("_spans", "_blocks")):
        size = scratch_size_last(channels, plan.points)
    images, spans = plan.n // length, spans_of(plan.n * channels)
    pieces = pieces_of(images, channels, length)
    integers, reals = encoded(plan)
    for place, value in {
        Call.LAYOUT: layout,
        Call.KIND: _KINDS[dtype],
        Call.IMAGES: images,
        Call.CHANNELS: channels,
        Call.LENGTH: length,
        Call.BLOCK: block,
        Call.READ: direct and length >= (_LONG_RUN if name == "forward" else _LONG_RUN_BACK),
        Call.DIRECT: direct,
        Call.PAST: direct and length % LANES == 0 and 4 * plan.n * channels >= _PAST,
        Call.RELU: relu,
        Call.WANTED: wanted,
        Call.ROOT: plan.root,
        Call.POINTS: plan.points,
        Call.S_POINTS: plan.statistic.points,
        Call.BENDS: plan.bends,
        Call.RANKS: len(plan.ranks),
        Call.TERMS: terms,
        Call.SIZE: size + -size % 64,
        Call.SPANS: min(spans, images * pieces) if gated else spans,
        Call.PIECES: pieces,
        Call.EPS: ctypes.c_int64.from_buffer(ctypes.c_double(eps)).value,
        Call.INTEGERS: integers.ctypes.data,
        Call.REALS: reals.ctypes.data,
        Call.MEASURE: objects.entry(_measure(plan.common)).address if name == "forward" else 0,
    }.items():
        table[place] = int(value)
    return bytes(table), (integers, reals)


def start(name: str, x: Tensor, layout: int, of: Arguments, wanted: bool, addresses: list[int]) -> None:
    """Run an entry point on tensors at ``addresses``: those of the table's slots from X on, up to PARTIAL or all.

    ``x`` is that of the arguments, in the layout that :func:`layout_of` gives it.
    """
    channels, plan, gated = x.shape[1], of.plan, of.gate is not None
    length = plan.n if layout == LAST and not gated else x.numel() // (x.shape[0] * channels)
    most = torch.get_num_threads()
    template, _kept = _template(
        name, plan, channels, length, layout, x.dtype, of.relu, of.eps, wanted, most, gated
    )
    table = _Table.from_buffer_copy(template)
    table[_FIRST : _FIRST + len(addresses)] = addresses  # type: ignore[assignment] # typeshed: as indexing gives
    if name.endswith("_spans"):
        shares = table[_SPANS]
    else:
        shares = -(-channels // (LANES if name.endswith("_blocks") else table[_BLOCK]))
    threads = min(most, shares)
    table[_SCRATCH] = room(table[_SIZE] * threads + 64)
    _run(name + "_gated" if gated else name, ctypes.addressof(table), threads)


def run_forward(of: Arguments) -> tuple[Tensor, Kept]:
    """See :class:`gbn.kernels.backend.Backend`; this is the pass without a gate."""
    x, layout = layout_of(of.x)
    y = torch.empty_like(x)
    channels = x.shape[1]
    s, d = (x.new_empty(channels, dtype=torch.float32) for _ in range(2))
    record = x.new_empty((channels, of.plan.record), dtype=torch.float32)
    tensors = (x, y, None, s, d, record, plain(of.weight), plain(of.bias), None, None, None)
    addresses = [address(one) for one in tensors]
    for name in ("forward",) if layout == PLANES else ("forward", "normalize_spans"):
        start(name, x, layout, of, False, addresses)
    return y, Kept(s, d, record)


def run_backward(g: Tensor, of: Arguments, kept: Kept, wanted: bool) -> Gradients:
    """See :class:`gbn.kernels.backend.Backend`; this is the pass without a gate."""
    x, layout = layout_of(of.x)
    g = like(g, x, layout)
    dx = torch.empty_like(x) if wanted else None
    dweight, dbias = torch.empty_like(kept.s), torch.empty_like(kept.s)
    partial = None
    if layout == LAST:
        blocks = -(-x.shape[1] // LANES)
        partial = x.new_empty((spans_of(x.numel()), blocks, 2, LANES), dtype=torch.float64)
    parameters = plain(of.weight), plain(of.bias)
    tensors = (x, dx, g, kept.s, kept.d, kept.record, *parameters, dweight, dbias, partial)
    addresses = [address(one) for one in tensors]
    for name in ("backward",) if layout == PLANES else ("reduce_spans", "differentiate_spans"):
        start(name, x, layout, of, wanted, addresses)
    return Gradients(dx, dweight, dbias)
