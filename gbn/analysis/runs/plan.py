"""The plan of a comparison: the arms, seeds, reference, targets and controls of a table or a figure.

A plan comes from an experiment's grid (:func:`plan_of_grid`), which fixed all of this before the runs, or is derived
from the configurations of any set of runs (:mod:`gbn.analysis.runs.derive`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from gbn import measures
from gbn.methods import COMMON_CONTROLS, CONTROLS


class CellLike(Protocol):
    """One arm in one setting of a grid, over all seeds."""

    @property
    def setting(self) -> str:
        """The setting; arms are compared within a setting."""

    @property
    def label(self) -> str:
        """The arm."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration at one of the seeds."""

    @property
    def run_ids(self) -> Mapping[int, str]:
        """The run id for each seed."""


class GridLike(Protocol):
    """The part of an experiment's grid (:class:`gbn.config.grid.Grid`) that the analysis needs."""

    @property
    def name(self) -> str:
        """The experiment's folder name."""

    @property
    def title(self) -> str:
        """A one-line title."""

    @property
    def scale(self) -> str | None:
        """The scale preset it was loaded with."""

    @property
    def cells(self) -> Sequence[CellLike]:
        """Every arm in every setting."""

    @property
    def reference(self) -> str:
        """The arm that the others are compared with."""

    @property
    def targets(self) -> Mapping[str, Sequence[float]]:
        """The fixed values of the measure for each setting."""

    @property
    def controls(self) -> Mapping[str, Sequence[str]]:
        """The control arms of each arm."""

    @property
    def measure(self) -> str:
        """The curve key that targets refer to."""

    @property
    def levels(self) -> Mapping[str, Mapping[str, str]]:
        """For each setting named by axes, its level on each axis."""


@dataclass(frozen=True)
class Entry:
    """One run of the comparison, whether or not it exists yet."""

    setting: str
    arm: str
    seed: int
    run_id: str


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
        name: base name of the output files.
        title: a one-line title.
        entries: every run that should exist.
        reference: the arm that the others are compared with.
        targets: the fixed values of the measure for each setting (accuracies are fractions), easiest first.
        controls: the control arms of each arm.
        selection: how to build this plan again; written into the header of each table.
        notes: what a reader must know about how the plan was made.
        measure: the curve key that targets refer to, unless another is asked for.
        methods: the ``norm.method`` of each arm, if known.
        levels: for each setting named by axes, its level on each axis, such as {"optimizer.lr": "0.1"}.
        changed_data_allowed: whether its runs may have been trained on different data (``dataset.allow_changed``).
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    reference: str
    targets: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    controls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measure: str = measures.DEFAULT
    methods: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    changed_data_allowed: bool = False

    @cached_property
    def _present(self) -> dict[str, dict[str, None]]:
        """The arms of each setting, both in order of appearance."""
        found: dict[str, dict[str, None]] = {}
        for entry in self.entries:
            found.setdefault(entry.setting, {})[entry.arm] = None
        return found

    @property
    def settings(self) -> list[str]:
        """The settings in order of appearance."""
        return list(self._present)

    def method_of_control(self, control: str) -> str:
        """Return the ``norm.method`` of a control; if it is not known, what the label says ("bn_matched[arm]")."""
        method = self.methods.get(control, "")
        return method if method in CONTROLS else control.partition("[")[0]

    @cached_property
    def has_measured_controls(self) -> bool:
        """Whether some control takes its constants from batches instead of from a Gaussian."""
        return any(
            self.method_of_control(control) in {*CONTROLS} - {*COMMON_CONTROLS}
            for controls in self.controls.values()
            for control in controls
        )

    def arms(self, setting: str) -> list[str]:
        """Return the arms of a setting: the reference, then each arm followed by its controls, then the rest."""
        present = self._present.get(setting, {})
        of_others = {
            control for arm, controls in self.controls.items() if arm in present for control in controls
        }
        ordered = [self.reference]
        for arm in present:
            if arm not in of_others:
                ordered += [arm, *self.controls.get(arm, ())]
        ordered += present
        return [arm for arm in dict.fromkeys(ordered) if arm in present]

    def seeds(self, setting: str, arm: str) -> list[int]:
        """Return the sorted seeds planned for an arm."""
        return sorted({e.seed for e in self.entries if e.setting == setting and e.arm == arm})

    def with_targets(self, targets: Sequence[float], note: str = "", measure: str | None = None) -> "Plan":
        """Return this plan with other targets, the same in every setting: values of its own measure or of `measure`.

        Raises:
            ValueError: the measure is unknown, or a target is outside its range.
        """
        measure = measure or self.measure
        ordered = measures.measure(measure).checked(targets)
        return replace(
            self,
            measure=measure,
            targets=dict.fromkeys(self.settings, ordered),
            selection={**self.selection, "targets": list(ordered)},
            notes=(*self.notes, note) if note else self.notes,
        )


def plan_of_grid(grid: GridLike) -> Plan:
    """Return the plan of an experiment's grid.

    Raises:
        ValueError: the reference is not among the grid's arms, or the measure is unknown.
    """
    entries = tuple(
        Entry(cell.setting, cell.label, seed, run_id)
        for cell in grid.cells
        for seed, run_id in cell.run_ids.items()
    )
    arms = list(dict.fromkeys(entry.arm for entry in entries))
    if grid.reference not in arms:
        raise ValueError(
            f"experiment {grid.name}: reference {grid.reference!r} is not among its arms ({', '.join(arms)})"
        )
    return Plan(
        name=grid.name + (f"-{grid.scale}" if grid.scale else ""),
        title=grid.title,
        entries=entries,
        reference=grid.reference,
        targets={
            setting: measures.measure(grid.measure).ordered(values)
            for setting, values in grid.targets.items()
        },
        controls={arm: tuple(controls) for arm, controls in grid.controls.items()},
        selection={"experiment": f"experiments/{grid.name}", "scale": grid.scale},
        measure=grid.measure,
        methods={cell.label: cell.config["norm"]["method"] for cell in grid.cells},
        levels=grid.levels,
        changed_data_allowed=any(cell.config["dataset"].get("allow_changed") for cell in grid.cells),
    )
