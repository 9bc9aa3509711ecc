"""Time several steps in one process, round-robin, and the load that other processes put on the machine.

Every round runs each step once, so that a ratio of two steps is a ratio within a round: whatever slows the machine
slows both. The step that begins a round changes from round to round. A block of rounds in which other processes
used more than a few percent of the machine is repeated.
"""

import ctypes
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gbn.engine.clock import LIMIT, Neighbors

#: Attempts at a block before the least disturbed one is taken, with its share recorded.
TRIES = 4


class Spread(NamedTuple):
    """Median with 20/80 percentiles."""

    median: float
    p20: float
    p80: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median and 20/80 percentiles, interpolated linearly between order statistics."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return Spread(statistics.median(values), tenths[1], tenths[7])


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the spread of the per-round ratios ours / theirs."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def columns(name: str, value: Spread, unit: str = "") -> dict[str, float]:
    """Return a spread as columns of a file: ``ratio``, ``ratio_p20``, ``ratio_p80``; without a name ``median...``."""
    start = f"{name}_" if name else ""
    return {
        name or f"median{unit}": value.median,
        f"{start}p20{unit}": value.p20,
        f"{start}p80{unit}": value.p80,
    }


@dataclass
class Step:
    """Something to time: ``prepare`` (not timed) and ``run`` receive the number of the round."""

    run: Callable[[int], object]
    prepare: Callable[[int], object] = lambda _: None
    within: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass
class Samples:
    """Seconds by step, one entry per round; ``host``: seconds until the work was issued (CUDA)."""

    seconds: dict[str, list[float]]
    host: dict[str, list[float]]
    others: float | None = None  # largest share of the machine that others used, over the blocks kept

    @property
    def rounds(self) -> int:
        """Number of times that each step ran."""
        return len(next(iter(self.seconds.values())))


@dataclass
class WallClock:
    """Seconds from start to end; on a GPU until all work is done."""

    synchronize: Callable[[], None] = lambda: None

    def __call__(self, step: Callable[[int], object], round_: int, name: str) -> tuple[float, float]:
        """Return the seconds of one call, twice (there is no separate host time)."""
        self.synchronize()
        began = time.perf_counter()
        step(round_)
        self.synchronize()
        took = time.perf_counter() - began
        return took, took


@dataclass
class DeviceClock:
    """Seconds on the GPU between two events, and seconds that the CPU needed to issue the work.

    The GPU is first kept busy for longer than issuing takes, so that it never waits for the CPU between the
    events: only the second number shows the launch cost.
    """

    _host: dict[str, float] = field(default_factory=dict)

    def __call__(self, step: Callable[[int], object], round_: int, name: str) -> tuple[float, float]:
        """Return (device seconds, host seconds) of one call."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        head_start = min(2 * self._host.get(name, 2e-3), 20e-3)
        torch.cuda._sleep(int(head_start * 2e9))  # clock cycles; Hopper runs at just under 2 GHz
        start.record()
        began = time.perf_counter()
        step(round_)
        host = time.perf_counter() - began
        end.record()
        torch.cuda.synchronize()
        # The slowest of the last calls decides, so that one fast call does not remove the head start.
        self._host[name] = max(host, 0.9 * self._host.get(name, 0.0))
        return start.elapsed_time(end) / 1e3, host


Clock = WallClock | DeviceClock


def wall_clock(device: torch.device) -> WallClock:
    """Return the clock of whole training steps on a device."""
    return WallClock(torch.cuda.synchronize) if device.type == "cuda" else WallClock()


def interleave(
    steps: dict[str, Step],
    clock: Clock,
    *,
    blocks: int = 3,
    block_seconds: float = 0.5,
    least: int = 5,
    most: int = 1000,
    warm_up: int = 3,
    exclusive: bool = True,
) -> Samples:
    """Time the steps round-robin, in ``blocks`` blocks of about ``block_seconds`` (at least ``least`` rounds each).

    Args:
        steps: the steps by name.
        clock: times one call.
        blocks, block_seconds, least, most: the amount of timing; the share of others is measured per block, since
            the system counts it in hundredths of a second.
        warm_up: uncounted rounds before the timing.
        exclusive: whether to repeat a block that others disturbed.
    """
    names = list(steps)

    def one_round(number: int, into: Samples | None) -> None:
        for name in names[number % len(names) :] + names[: number % len(names)]:
            step = steps[name]
            with step.within():
                step.prepare(number)
                seconds, host = clock(step.run, number, name)
                step.prepare(number)
            if into is not None:
                into.seconds[name].append(seconds)
                into.host[name].append(host)

    for number in range(warm_up):
        one_round(number, None)
    began = time.perf_counter()
    one_round(warm_up, None)
    rounds = max(least, min(most, math.ceil(block_seconds / (time.perf_counter() - began))))
    total = _empty(names)
    number = 0
    for _ in range(blocks):
        best: Samples | None = None
        for _attempt in range(TRIES if exclusive else 1):
            neighbors, block = Neighbors(), _empty(names)
            for _ in range(rounds):
                one_round(number, block)
                number += 1
            block.others = neighbors.share()
            if best is None or (block.others or 0.0) < (best.others or 0.0):
                best = block
            if (best.others or 0.0) <= LIMIT:
                break
        assert best is not None
        for name in names:
            total.seconds[name] += best.seconds[name]
            total.host[name] += best.host[name]
        if best.others is not None:
            total.others = max(best.others, total.others or 0.0)
    return total


def _empty(names: Sequence[str]) -> Samples:
    return Samples({name: [] for name in names}, {name: [] for name in names})


def copy_seconds(device: torch.device, size: int, sets: int = 1, seconds: float = 0.3) -> float:
    """Return the median seconds to copy ``size`` bytes on the device, cycling through ``sets`` pairs of tensors."""
    pairs = [
        (
            torch.zeros(size, dtype=torch.uint8, device=device),
            torch.empty(size, dtype=torch.uint8, device=device),
        )
        for _ in range(sets)
    ]

    def copy(round_: int) -> Tensor:
        source, target = pairs[round_ % sets]
        return target.copy_(source)

    gpu = device.type == "cuda"
    clock: Clock = DeviceClock() if gpu else WallClock()
    samples = interleave(
        {"copy": Step(copy)}, clock, blocks=1, block_seconds=seconds, least=10, exclusive=not gpu
    )
    return spread(samples.seconds["copy"]).median


def bandwidth(device: torch.device) -> float:
    """Return the bytes read and written per second by a copy far larger than the caches (256 MB; 1 GB on a GPU)."""
    size = (1 << 30) if device.type == "cuda" else 256 * (1 << 20)
    return 2 * size / copy_seconds(device, size, seconds=1.0)


def cache_size(device: torch.device) -> int:
    """Return the bytes of the last-level cache; 32 MiB if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="utf-8").strip()
        sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}.get(text[-1], 1))
    return max(sizes, default=32 << 20)


def keep_memory() -> str:
    """Tell glibc to keep freed memory; return the description of the allocator for the file.

    By default it returns tensors of 32 MB and more to the system at every free, so that each new one is paged in
    again, 4 kB per fault: most of BatchNorm's time on large shapes, whatever the kernel.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc; on Windows there is no CDLL(None)
        return "system"
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4
    kept = mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_max, 0)
    return "glibc, freed memory kept" if kept and mallopt(trim_threshold, -1) else "system"
