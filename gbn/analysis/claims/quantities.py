"""The measurement behind a rule: one arm against another over pairs, with an interval at any level."""

import math
from dataclasses import dataclass, replace

from gbn.analysis.claims.schema import COLUMNS, TIMES, Rule
from gbn.analysis.comparison.figures import Figures
from gbn.analysis.comparison.times import Pairs, Times
from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.estimate import LEVEL, Estimate
from gbn.analysis.estimates.power import advice
from gbn.analysis.estimates.targets import Time


@dataclass(frozen=True)
class Measurement:
    """The pairs of one comparison.

    Attributes:
        quantity: one of :data:`gbn.analysis.claims.schema.Quantity`.
        arm, against: times, or values of the measure (accuracies are fractions), one per pair.
        seeds: of the pairs, in the same order.
        refused: why there are no values, if there are none.
    """

    quantity: str
    arm: tuple[Time, ...] | tuple[float, ...]
    against: tuple[Time, ...] | tuple[float, ...]
    seeds: tuple[int, ...]
    refused: str = ""

    def estimate(self, level: float = LEVEL) -> Estimate:
        """Return the quantity with its interval at this level: a ratio, a share saved or a difference of values."""
        plain = self._plain(level)
        return plain if self.quantity != "saving_to_maximum" or not plain.n else _saved(plain)

    def advice(self, level: float) -> str:
        """Return how many seeds would decide whether there is an effect, if that is open."""
        plain = self._plain(level)
        if self.quantity in TIMES or not plain.n:
            return advice(plain, level)
        # Here a difference takes the place of a log ratio.
        effect = min(max(plain.value_low, -700.0), 700.0)  # exp would overflow beyond this
        text = advice(replace(plain, value_low=math.exp(effect)), level)
        return text.replace("a ratio so near 1", "a difference so small")

    def _plain(self, level: float) -> Estimate:
        if self.quantity in TIMES:
            return pairs.speedup(self.arm, self.against, level)  # type: ignore[arg-type]
        return pairs.paired_difference(self.arm, self.against, level)  # type: ignore[arg-type]


def measure(
    times: Times, figures: Figures, rule: Rule, arm: str, against: str, target: float | None
) -> Measurement:
    """Return the pairs of two arms, measured in a rule's quantity.

    The maximum (the best value) is that of `against` at the same seed (Mixture Normalization's metric, where it is
    BN's). Pairs without a value (no test accuracy, no curve of the measure) are left out.
    """
    quantity, setting = str(rule.quantity), rule.setting
    seeds = tuple(times.runs.pairs(setting, arm, against))
    if quantity in COLUMNS and seeds:
        frames = [figures.of_runs[setting, name] for name in (arm, against)]
        if COLUMNS[quantity] not in frames[0]:
            others = ", ".join(name for name, column in COLUMNS.items() if column in frames[0])
            absent = f"{figures.final.key} has no {quantity}: its rule can take {others}"
            return Measurement(quantity, (), (), seeds, absent)
        ours, theirs = (frame[COLUMNS[quantity]] for frame in frames)
        known = tuple(s for s in seeds if not math.isnan(ours[s] - theirs[s]))
        first, second = (tuple(float(side[s]) for s in known) for side in (ours, theirs))
        return Measurement(quantity, first, second, known)
    if rule.unit not in times.units(setting):
        reason = f"seconds are not compared: {times.seconds_reasons[setting]}"
        return Measurement(quantity, (), (), seeds, reason)
    both = times.pairs(setting, arm, against, target, rule.unit) if seeds else Pairs((), (), ())
    return Measurement(quantity, both.arm, both.against, both.seeds)


def _saved(ratio: Estimate) -> Estimate:
    """Return 1 - 1/ratio, the share of updates (or seconds) saved; minus infinity for a ratio of 0."""
    return replace(
        ratio,
        value_low=_share(ratio.value_low),
        value_high=_share(ratio.value_high),
        low=_share(ratio.low),
        high=_share(ratio.high),
    )


def _share(ratio: float) -> float:
    return -math.inf if ratio == 0 else 1 - 1 / ratio
