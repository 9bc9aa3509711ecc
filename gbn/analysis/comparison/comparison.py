"""A comparison of runs in three parts, each computed once, when it is first asked for.

What prints numbers takes the part that it is about: :class:`.times.Times` (when did a run reach a target),
:class:`.figures.Figures` (what did each arm come to) and :class:`.evidence.Evidence` (is one arm better than
another, how sure is that, and why).
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gbn import measures
from gbn.analysis.comparison.evidence import Evidence, evidence_of
from gbn.analysis.comparison.figures import Figures, figures_of
from gbn.analysis.comparison.times import Times, times_of
from gbn.analysis.estimates.targets import INTERPOLATIONS, Interpolation
from gbn.analysis.runs.load import Runs
from gbn.measures import Measure


@dataclass(frozen=True)
class Options:
    """The way times to targets are measured.

    Attributes:
        measure: a curve key of :mod:`gbn.measures`; None means the plan's own.
        interpolation: "interpolated" between points, or the "first" point at the target.

    Raises:
        ValueError: the measure or the interpolation is unknown.
    """

    measure: str | None = None
    interpolation: Interpolation = "interpolated"

    def __post_init__(self) -> None:
        if self.measure is not None:
            measures.measure(self.measure)
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation={self.interpolation!r}: allowed are {', '.join(INTERPOLATIONS)}")


@dataclass(frozen=True)
class Comparison:
    """Runs, how they are compared, and what that gives.

    Raises:
        ValueError: the plan's measure is unknown.
    """

    runs: Runs
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        _ = self.measured  # a misspelled measure in a plan is an error here, not in the first table

    @cached_property
    def measured(self) -> Measure:
        """The measure that targets are values of."""
        return measures.measure(self.options.measure or self.runs.plan.measure)

    @cached_property
    def times(self) -> Times:
        """Times to targets."""
        return times_of(self.runs, self.measured, self.options.interpolation)

    @cached_property
    def figures(self) -> Figures:
        """The numbers of each arm."""
        return figures_of(self.times)

    @cached_property
    def evidence(self) -> Evidence:
        """Each arm against another."""
        return evidence_of(self.times, self.figures)

    @property
    def selection(self) -> dict[str, Any]:
        """How to make this comparison again; written into the files made from it."""
        return {
            **self.runs.plan.selection,
            "source": self.runs.source,
            "measure": self.measured.key,
            "interpolation": self.options.interpolation,
        }
