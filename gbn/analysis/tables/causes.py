"""Two sub-tables about causes: where an arm's effect comes from, and how time splits into updates and cost."""

from collections.abc import Iterator, Sequence

from gbn.analysis.comparison import cost
from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.cost import Costs
from gbn.analysis.comparison.decomposition import Chain, goals, time_ratio
from gbn.analysis.tables import headings, numbers
from gbn.analysis.tables.section import Section
from gbn.measures import Measure
from gbn.methods import CHAIN


def effects(comparison: Comparison, setting: str) -> Iterator[Section]:
    """Yield a setting's sub-tables: chains of arms with their controls, and time if a cost file applies."""
    chains = comparison.evidence.chains[setting]
    for links in dict.fromkeys(tuple(chain.links) for chain in chains):
        yield _chains(comparison, setting, [chain for chain in chains if tuple(chain.links) == links])
    if comparison.evidence.costs is not None:
        yield from times(comparison, setting, comparison.evidence.costs)


def times(comparison: Comparison, setting: str, costs: Costs, elsewhere: bool = False) -> Iterator[Section]:
    """Yield time = updates x cost for the arms that were timed; nothing if none was.

    Args:
        elsewhere: accept costs of another machine or configuration than the runs', for a forecast of the time that
            the same updates would take there.

    Raises:
        ValueError: the costs do not apply to the runs, and `elsewhere` is False.
    """
    timed = [arm for arm in comparison.runs.arms(setting) if costs.seconds.get((setting, arm))]
    if not timed:
        return
    reference, columns = comparison.runs.plan.reference, ["arm", "ms per update", "cost"]
    targets = goals(comparison.times, setting)
    for target in targets:
        goal = f"the {headings.best(comparison.measured)} of {reference}"
        columns += [f"updates to {goal if target is None else comparison.measured.target(target)}", "time"]
    rows = []
    for arm in timed:
        row = [arm, f"{1e3 * cost.seconds_per_update(costs, setting, arm):.3g}"]
        if arm == reference:
            row += ["1 (reference)"] * (1 + 2 * len(targets))
        else:
            row.append(numbers.ratio(cost.ratio(costs, setting, arm, reference)))
            for target in targets:
                found = time_ratio(comparison.times, costs, setting, arm, target, elsewhere=elsewhere)
                row += [numbers.ratio(found.updates), numbers.ratio(found.time)]
        rows.append(tuple(row))
    yield Section(
        f"Time = updates x cost of an update: each as {reference} / arm (greater than 1: the arm is faster)",
        tuple(columns),
        tuple(rows),
        tuple(_time_notes(comparison, setting, costs)),
    )


_NUMBERS = {4: "four", 5: "five"}
_LAST = {
    "calibration and shape": (
        "bn_matched and bn_reparam have the scale and shift that the arm has on a Gaussian, and real pre-activations "
        "are not Gaussian: the last factor is the correction of that and the effect of the deviation's shape "
        "together."
    ),
    "shape": (
        "Calibration: the scale and shift that the arm has on the first training batch instead of a Gaussian's. Only "
        "the last factor, the shape, is the deviation's own effect."
    ),
}


def _chains(comparison: Comparison, setting: str, chains: Sequence[Chain]) -> Section:
    reference, final = comparison.runs.plan.reference, comparison.figures.final
    measures = {one.name: one.measure for one in comparison.figures.endpoints}
    rows = [
        (
            chain.arm,
            _what(chain, comparison.measured),
            str(len(chain.seeds)),
            *(
                numbers.ratio(estimate)
                if chain.quantity == "speedup"
                else numbers.difference(estimate, measures[chain.quantity])
                for estimate in chain.links.values()
            ),
        )
        for chain in chains
    ]
    accuracy = final.family == "accuracy"
    values = "accuracies" if accuracy else "differences of values"
    links = [*chains[0].links]
    ends = [reference, *(method for method, factor in CHAIN.items() if factor in links), "arm"]
    factors = [f"{name} ({ends[i]} / {ends[i + 1]})" for i, name in enumerate(links[1:])]
    notes = [
        f"Speed-ups multiply: {reference} / arm = {' x '.join(factors)}; {values} add up, each link being the later "
        f"minus the earlier. Pairs: seeds that all {_NUMBERS[len(ends)]} have. Intervals: paired t, 95 %, each link "
        "on its own; if one contains 1 (or 0), the link may have no effect.",
        *(text for link, text in _LAST.items() if link == links[-1]),
    ]
    if not all(chain.exact for chain in chains):
        notes.append(
            "†: runs missed the target, so these are medians over pairs, and a miss counts as a time beyond the end "
            "of its run. Medians do not multiply: the product of the links need not be the total."
        )
    if fewer := _fewer(comparison, setting, chains):
        notes.append(f"Fewer pairs than the arm has with {reference}, since a control lacks seeds: {fewer}.")
    of_values = (
        "the difference of accuracies (points, arm - reference)"
        if accuracy
        else f"the difference of {final.name} (arm - reference{headings.sense(final)})"
    )
    methods = {comparison.runs.plan.methods.get(chain.arm) for chain in chains}
    own = " or ".join(
        name for method, name in (("iebn", "gate"), ("mixture", "mixture")) if method in methods
    )
    links = [f"{link} ({own})" if link == "own" else link for link in links]
    return Section(
        f"Where the effect comes from: the speed-up of {reference} / arm as a product, {of_values} as a sum",
        ("arm", "of", "pairs", *links),
        tuple(rows),
        tuple(notes),
    )


def _what(chain: Chain, measured: Measure) -> str:
    if chain.quantity == "speedup":
        return f"{chain.unit} to {measured.target(chain.target)}" + ("" if chain.exact else " †")
    return {
        "area": "area under curve",
        "last": f"last {measured.name}",
        "training_loss": "mean training loss, lower is better",
    }[chain.quantity]


def _fewer(comparison: Comparison, setting: str, chains: Sequence[Chain]) -> str:
    """Name the arms whose chain has fewer pairs than their comparison with the reference."""
    counts = {}
    for chain in chains:
        pairs = len(comparison.runs.pairs(setting, chain.arm, chain.names[0]))
        if chain.quantity == "last" and len(chain.seeds) < pairs:
            counts[chain.arm] = f"{chain.arm} ({len(chain.seeds)} of {pairs})"
    return ", ".join(counts.values())


def _time_notes(comparison: Comparison, setting: str, costs: Costs) -> Iterator[str]:
    blocks = {len(found) for (where, _), found in costs.seconds.items() if where == setting} or {0}
    counted = f"{min(blocks)}" if len(blocks) == 1 else f"{min(blocks)} to {max(blocks)}"
    threads_timed = f"{costs.threads} thread{'s' * (costs.threads != 1)}"
    text = (
        f"Cost: median seconds of a training step, without evaluation and start-up; {counted} blocks, in which the "
        f"arms took turns in one process, on {costs.machine}, {threads_timed}, {costs.date} ({costs.path.name}). "
    )
    if costs.dropped:
        text += "Not counted: " + ", ".join(f"{n} {status}" for status, n in costs.dropped.items()) + ". "
    threads = {int(one) for one in comparison.runs.runs.threads.dropna().unique()}
    if threads - {costs.threads}:
        text += f"The runs had {', '.join(map(str, sorted(threads)))} thread{'s' * (threads != {1})}. "
    yield text.strip()
    reason = cost.refusal(costs, comparison.runs)
    if reason:
        yield f"A forecast, not a measurement: {reason}."
    yield (
        "Time: the product of the two, which are independent (updates over seeds, cost over blocks), assuming "
        "that every update costs the same; its interval is Welch and Satterthwaite's t of the sum of their "
        "logarithms; where runs missed the target, the product of intervals of 97.5 % each."
    )
