"""One run as read from disk, wherever its record was kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Status = Literal["finished", "diverged", "failed", "not_applicable", "running", "interrupted", "missing"]


class Curve(Sequence[dict[str, Any]]):
    """The points of a curve in order, parsed when first looked at.

    Attributes:
        source: what they are parsed from, for those who want columns: the content of a metrics file whose digest has
            shown it to be what was written, or the Arrow array of each key.
    """

    def __init__(self, source: Any, parse: Callable[[Any], list[dict[str, Any]]]) -> None:
        self.source, self._parse = source, parse

    @cached_property
    def _points(self) -> list[dict[str, Any]]:
        return self._parse(self.source)

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, index: Any) -> Any:
        return self._points[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._points == list(other)


@dataclass(frozen=True)
class Record:
    """One run as read from disk.

    Attributes:
        run_id: its id, which is the name of its folder.
        status: see :data:`Status`.
        config: the resolved configuration ({} if the run was killed before writing it).
        summary: the finished run's summary; None until then.
        curve: the points of the curve in order of `update`, a list or a :class:`Curve`.
        provenance: one mapping per segment (a resumed run has several).
        error: the traceback of a failed run, or how its process died.
        source: "store" or "archive".
        shard: the archive file that holds the record.
        read_layers: reads the layer recordings; None if the run has none.
    """

    run_id: str
    status: Status
    config: dict[str, Any]
    summary: dict[str, Any] | None = None
    curve: Sequence[dict[str, Any]] = ()
    provenance: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    source: Literal["store", "archive"] = "store"
    shard: str | None = None
    read_layers: Callable[[], list[dict[str, Any]]] | None = field(default=None, repr=False, compare=False)

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The layer recordings in order of `update`, read on each access: they are large and rarely needed."""
        return self.read_layers() if self.read_layers is not None else []

    @property
    def environment(self) -> dict[str, Any]:
        """Device, versions and date from the summary ({} until there is one)."""
        return (self.summary or {}).get("environment") or {}

    @cached_property
    def machine(self) -> str:
        """Device kind, kernels and library versions; runs that differ in any of these are never paired.

        A run resumed on another device, or under other versions, lists both. On a GPU, CUDA and cuDNN are included.
        """
        environment, versions = (
            self.environment,
            [segment.get("versions") or {} for segment in self.provenance],
        )
        kind = _in_turn([*self.provenance, environment], "device_kind") or "unknown device"
        torch = _in_turn([*versions, environment], "torch") or "unknown"
        kernels = _in_turn([*self.provenance, environment], "kernels") or "unknown"
        text = f"{kind}, torch {torch}, kernels {kernels}"
        for name, places in (
            ("numpy", versions),
            # compiled kernels are named after the package that compiles them
            *((name, versions) for name in kernels.split(" then ")),
            ("cuda", self.provenance),
            ("cudnn", self.provenance),
        ):
            found = _in_turn(places, name)
            text += f", {name} {found}" if found else ""
        return text


def _in_turn(places: Sequence[Mapping[str, Any]], key: str) -> str:
    """Return the distinct values of a key, in order: "2.12 then 2.13"; empty if no place has it."""
    return " then ".join(dict.fromkeys(str(place[key]) for place in places if place.get(key)))
