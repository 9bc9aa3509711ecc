"""From one case to its rows: gate, memory, times, and the limit set by memory bandwidth."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from . import gate
from .cases import DTYPES, LAYOUTS, Case, gated, input_of, is_mixture, pair_of
from .environment import COLUMNS as ENVIRONMENT
from .gate_mixture import check_mixture
from .names import REFERENCE
from .providers import Provider, attempt, kept_bytes, step_of
from .timing import Clock, DeviceClock, Samples, WallClock, columns, copy_seconds, interleave, ratios, spread

#: Forward reads x and writes y; backward reads x and the cotangent and writes dx.
PASSES = 5
COLUMNS = (
    *("dtype", "layout", "shape", "elements", "networks", "provider", "pair", "kernels", "implementation"),
    *("status", "gate_error", "gate_where", "rounds", "median_ms", "p20_ms", "p80_ms"),
    *("ratio", "ratio_p20", "ratio_p80", "best", "ratio_best", "ratio_best_p20", "ratio_best_p80"),
    *("host_ms", "limit_ms", "of_limit", "copy_ms", "bandwidth_gb_s", "cache_mb", "beyond_cache"),
    *("kept_mb", "kept_ratio", "input_sets", "others"),
    *ENVIRONMENT,
)


@dataclass(frozen=True)
class Machine:
    """The properties of the machine, common to all cases of a run."""

    device: torch.device
    bandwidth: float  # bytes per second
    cache: int  # bytes
    environment: Mapping[str, Any]

    @property
    def clock(self) -> Clock:
        """The clock that times steps on this device."""
        return DeviceClock() if self.device.type == "cuda" else WallClock()


def input_sets(case: Case, cache: int) -> int:
    """Return how many (x, cotangent) pairs to cycle through, so that none is still in the cache at its turn."""
    return max(2, min(64, math.ceil(2 * cache / (2 * case.size))))


def rows_of(
    case: Case, providers: list[Provider], machine: Machine, blocks: int, block_seconds: float
) -> list[dict[str, Any]]:
    """Return one row per provider; one that fails, at its gate or otherwise, is not timed, and its row says so."""
    device = machine.device
    sets = [input_of(case, device, seed) for seed in range(input_sets(case, machine.cache))]
    for x, _ in sets:
        x.requires_grad_()
    rows: dict[str, dict[str, Any]] = {}
    steps, kept = {}, {}
    for provider in providers:
        row = rows[provider.name] = _head(case, provider, machine, len(sets))
        made, error = attempt(partial(_prepared, case, provider, sets, row, device))
        if error:
            row["status"] = f"error: {error}"
        elif made is not None:
            steps[provider.name], kept[provider.name] = made
    samples = interleave(
        steps, machine.clock, blocks=blocks, block_seconds=block_seconds, exclusive=device.type == "cpu"
    )
    copied = copy_seconds(device, case.size, len(sets), seconds=0.1)
    best = min((p.name for p in providers if not p.ours and p.name in steps), key=_median_of(samples))
    for name in steps:
        rows[name] |= _timed(samples, name, best, case, machine)
        rows[name] |= {"copy_ms": copied * 1e3, "kept_mb": kept[name] / 1e6}
        rows[name]["kept_ratio"] = kept[name] / kept[REFERENCE]
    return list(rows.values())


def _prepared(
    case: Case, provider: Provider, sets: list[Any], row: dict[str, Any], device: torch.device
) -> tuple[Any, int] | None:
    """Return (step, bytes kept) of a provider that may be timed; None if it fails its gate."""
    if provider.ours:
        if is_mixture(provider.pair):
            verdict = check_mixture(case, provider.pair, provider.choice, device)
        else:
            pair = pair_of(provider.pair)
            verdict = gate.check(case, pair, provider.choice, device, gated=gated(provider.pair))
        row |= {"gate_error": verdict.worst, "gate_where": verdict.where}
        if not verdict.passed:
            row["status"] = "gate failed"
            return None
    module = provider.build(case, device)
    step = step_of(provider, module, sets)
    with step.within():
        step.run(0)  # compiles, so that a failure shows here and not during the timing
        step.prepare(0)
        kept = kept_bytes(module, sets[0][0])
    return step, kept


def _head(case: Case, provider: Provider, machine: Machine, sets: int) -> dict[str, Any]:
    limit = PASSES * case.size / machine.bandwidth
    x = torch.empty(
        case.shape, dtype=DTYPES[case.dtype], device=machine.device, memory_format=LAYOUTS[case.layout]
    )
    return {
        "dtype": case.dtype,
        "layout": case.layout,
        "shape": "x".join(map(str, case.shape)),
        "elements": case.elements,
        "networks": case.networks,
        "provider": provider.name,
        "pair": provider.pair,
        "kernels": provider.choice,
        "implementation": provider.implementation(x),
        "status": "ok",
        "limit_ms": limit * 1e3,
        "bandwidth_gb_s": machine.bandwidth / 1e9,
        "cache_mb": machine.cache / 1e6,
        "beyond_cache": "yes" if case.size > machine.cache else "no",
        "input_sets": sets,
        **machine.environment,
    }


def _timed(samples: Samples, name: str, best: str, case: Case, machine: Machine) -> dict[str, Any]:
    own = spread([1e3 * second for second in samples.seconds[name]])
    row = {
        "rounds": samples.rounds,
        **columns("", own, "_ms"),
        **columns("ratio", ratios(samples.seconds[name], samples.seconds[REFERENCE])),
        "best": best,
        **columns("ratio_best", ratios(samples.seconds[name], samples.seconds[best])),
        "of_limit": own.median / 1e3 / (PASSES * case.size / machine.bandwidth),
        "others": samples.others,
    }
    if machine.device.type == "cuda":
        row["host_ms"] = spread([1e3 * second for second in samples.host[name]]).median
    return row


def _median_of(samples: Samples) -> Any:
    return lambda name: spread(samples.seconds[name]).median
