"""From torch tensors to the compiled entry points, and the threads that run them.

The threads are those of torch's own OpenMP pool: ``GOMP_parallel`` of its runtime runs a C function on as many of
them as :func:`torch.get_num_threads` says. A second pool would compete with torch's for the cores, because torch's
idle threads spin for a while after each of its operations.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gbn.kernels.backend import Arguments, Gradients, Kept
from gbn.kernels.plan import Plan

from . import objects
from .call import Call
from .encode import Encoded, encoded
from .gate import TOTALS
from .layout import LAST, PLANES, layout_of, like
from .passes import scratch_size
from .passes_last import pieces_of, scratch_size_last, spans_of
from .rows import BFLOAT16, FLOAT16, FLOAT32
from .simd import LANES

__all__ = ["address", "backward", "entries", "forward", "plain", "room", "run_entry"]

_KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}

#: With at least this many values per run, channels are read in place. Shorter runs are first copied to a contiguous
#: row, which pays off earlier the more passes follow: some eight forward, two backward.
_LONG_RUN, _LONG_RUN_BACK = 256, 64

#: From this many bytes on a result is written past the caches. Otherwise each of its lines would first be read, which
#: costs more than the next layer's reading it back from memory (whole training steps are faster this way).
_PAST = 2 << 20

#: Short runs of several channels are copied together, so that this many values are read contiguously.
_TOGETHER = 512

#: Bytes of the addresses of tensors, at the end of the table.
_PLACES = ctypes.sizeof(Call) - Call.x.offset

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


def run_entry(entry: Any, table: int, threads: int) -> None:
    """Call an entry point from ``threads`` threads and wait."""
    parallel = _parallel() if threads > 1 else None
    if parallel is not None:
        parallel(entry.address, table, threads, 0)
    elif threads == 1:
        entry.ctypes(table)
    else:
        list(_pool(threads).map(entry.ctypes, [table] * threads))


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


class _Template(NamedTuple):
    """What is the same in all calls of an entry point with arguments of one kind."""

    entry: objects.Entry
    head: bytes  # the table up to the tensors
    threads: int
    room: int  # bytes of scratch
    plan: Encoded  # its address is in the table


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
    gated: bool,
    threads: int,
) -> _Template:
    terms = len(plan.statistic.terms) + len(plan.deviation.terms)
    direct = layout == PLANES and dtype == torch.float32
    # LAST reads up to 16 channels at a time, but fewer if a thread would otherwise get none
    together = -(-channels // threads) if layout == LAST else -(-_TOGETHER // length)
    block = min(LANES, together, channels)
    images, spans = plan.n // length, spans_of(plan.n * channels)
    pieces = pieces_of(images, channels, length)
    spans = min(spans, images * pieces) if gated else spans
    if name.endswith(("_spans", "_blocks")):
        size = scratch_size_last(channels, plan.points)
        shares = spans if name.endswith("_spans") else -(-channels // LANES)
    else:
        rows = 1 if name == "forward" else 2
        channel_rows = LANES if layout == LAST else block
        size = scratch_size(plan.n, channel_rows, len(plan.ranks), terms, plan.points, rows)
        shares = -(-channels // block)
    size += -size % 64
    tables = encoded(plan)
    table = Call(
        layout=layout,
        kind=_KINDS[dtype],
        images=images,
        channels=channels,
        length=length,
        block=block,
        read=direct and length >= (_LONG_RUN if name == "forward" else _LONG_RUN_BACK),
        direct=direct,
        past=direct and length % LANES == 0 and 4 * plan.n * channels >= _PAST,
        relu=relu,
        root=plan.root,
        wanted=wanted,
        points=plan.points,
        s_points=plan.statistic.points,
        bends=plan.bends,
        ranks=len(plan.ranks),
        terms=terms,
        size=size,
        spans=spans,
        pieces=pieces,
        plan=ctypes.addressof(tables),
        measure=objects.entry(_measure(plan.common)).address if name == "forward" else 0,
        eps=eps,
    )
    entry = objects.entry(_name(f"{name}_gated" if gated else name))
    threads = min(threads, shares)
    return _Template(entry, bytes(table)[: Call.x.offset], threads, size * threads + 64, tables)


def _start(
    names: tuple[str, ...], x: Tensor, layout: int, of: Arguments, wanted: bool, *tensors: Any
) -> None:
    """Run entry points in turn on the tensors of :class:`.call.Call` from x on; those left out are None.

    ``x`` is that of the arguments, in the layout that :func:`layout_of` gives it.
    """
    channels, plan, gated = x.shape[1], of.plan, of.gate is not None
    length = plan.n if layout == LAST and not gated else x.numel() // (x.shape[0] * channels)
    addresses = [0 if one is None else one.data_ptr() or address(one) for one in tensors]
    places = struct.pack(f"{len(addresses)}q", *addresses).ljust(_PLACES, b"\0")
    threads = torch.get_num_threads()
    for name in names:
        template = _template(
            name, plan, channels, length, layout, x.dtype, of.relu, of.eps, wanted, gated, threads
        )
        table = Call.from_buffer_copy(template.head + places)
        table.scratch = room(template.room)
        run_entry(template.entry, ctypes.addressof(table), template.threads)


def _row_numbers(x: Tensor, pieces: int = 1) -> Tensor:
    """Return room for one number per row, or per piece of a row, and a vector more: loops over rows read ahead."""
    return x.new_empty(x.shape[0] * x.shape[1] * pieces + LANES, dtype=torch.float32)


def forward(of: Arguments) -> tuple[Tensor, Kept]:
    """See :class:`gbn.kernels.backend.Backend`."""
    x, layout = layout_of(of.x)
    images, channels = x.shape[:2]
    y = torch.empty_like(x)
    s, d = (x.new_empty(channels, dtype=torch.float32) for _ in range(2))
    record = x.new_empty((channels, of.plan.record), dtype=torch.float32)
    tensors = [x, y, None, s, d, record, plain(of.weight), plain(of.bias)]
    means = None
    if of.gate is not None:
        means = x.new_empty(
            (channels, images) if layout == PLANES else (images, channels), dtype=torch.float32
        )
        tensors += [None, None, None, *map(plain, of.gate), None, None, means, _row_numbers(x)]
    # LAST: y needs all channels of a position, hence a pass of its own
    names = ("forward",) if layout == PLANES else ("forward", "normalize_spans")
    _start(names, x, layout, of, False, *tensors)
    return y, Kept(s, d, record, means if means is None or layout == LAST else means.t())


def backward(g: Tensor, of: Arguments, kept: Kept, wanted: bool) -> Gradients:
    """See :class:`gbn.kernels.backend.Backend`."""
    x, layout = layout_of(of.x)
    g = like(g, x, layout)
    images, channels = x.shape[:2]
    dx = torch.empty_like(x) if wanted else None
    gradients = [torch.empty_like(kept.s) for _ in range(2 if of.gate is None else 4)]
    partial, blocks = None, -(-channels // LANES)
    parameters = plain(of.weight), plain(of.bias)
    tensors = [x, dx, g, kept.s, kept.d, kept.record, *parameters, *gradients[:2]]
    names: tuple[str, ...] = ("backward",)
    if of.gate is None:
        if layout == LAST:
            names = _LAST[1:]
            partial = x.new_empty((spans_of(x.numel()), blocks, 2, LANES), dtype=torch.float64)
        tensors.append(partial)
    else:
        assert kept.means is not None
        pieces = 1
        if layout == LAST:
            names = ("reduce_spans", "settle_blocks", "differentiate_spans")
            partial = x.new_empty((blocks, TOTALS, LANES), dtype=torch.float64)
            pieces = pieces_of(images, channels, x.numel() // (images * channels))
        means = (kept.means.t() if layout == PLANES else kept.means).contiguous()
        rows = (means, _row_numbers(x), _row_numbers(x, pieces), _row_numbers(x, pieces))
        tensors += [partial, *map(plain, of.gate), *gradients[2:], *rows]
    _start(names, x, layout, of, wanted, *tensors)
    return Gradients(dx, *gradients)
