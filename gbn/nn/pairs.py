"""The (statistic, deviation) pair of a layer, built from names and parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gbn import risk
from gbn.risk import parameters as tables
from gbn.risk.base import Deviation, Functional, Statistic

__all__ = ["Pair", "build_pair", "pair_from_options"]

# Parameters that determine the gradient and not, except for "smoothed", the value.
_GRADIENT_PARAMETERS = ("quantile_gradient", "window")


@dataclasses.dataclass(frozen=True)
class Pair:
    """The statistic that a layer subtracts and the deviation that it divides by."""

    statistic: Statistic
    deviation: Deviation

    @property
    def is_mean_and_std(self) -> bool:
        """True if this is BatchNorm's pair."""
        return self.statistic.name == "mean" and self.deviation.name == "std"

    @property
    def value_name(self) -> str:
        """A name that two pairs share if and only if S and D have the same values (gradients may differ)."""
        return f"{_describe(self.statistic, values_only=True)}/{_describe(self.deviation, values_only=True)}"

    @property
    def dead_below_relu(self) -> bool:
        """True if no normalized value exceeds 0."""
        return self.statistic.name == "maximum"

    @property
    def initial_bias(self) -> float:
        """The initial bias: 1 for worst_case, since (x - max)/(max - mean) + 1 is 0 at the mean; otherwise 0."""
        return 1.0 if self.dead_below_relu and self.deviation.name == "worst_case" else 0.0

    def gaussian(self, samples: int | None = None) -> tuple[float, float]:
        """Return ``(k, c)``: S = mu + k sigma and D = c sigma on a Gaussian; extremes need the number of samples.

        Raises:
            ValueError: for extremes without ``samples``, and for a pair that is not positively homogeneous.
        """
        for part in (self.statistic, self.deviation):
            if not part.homogeneous:
                raise ValueError(
                    f"{part.name} is not positively homogeneous: its value on a Gaussian is no multiple "
                    "of sigma, so it has neither a Gaussian-rescaled form nor a matched control"
                )
        return self.statistic.gaussian(samples), self.deviation.gaussian(samples)

    def with_mean(self) -> Pair:
        """Return the pair (mean, D), which belongs to the elementary error of the same deviation."""
        return Pair(risk.statistic("mean"), self.deviation)

    def __str__(self) -> str:
        return f"({_describe(self.statistic)}, {_describe(self.deviation)})"


def _describe(functional: Functional, values_only: bool = False) -> str:
    values = functional.parameters
    if values_only and values.get("quantile_gradient") != "smoothed":
        values = {key: value for key, value in values.items() if key not in _GRADIENT_PARAMETERS}
    inside = ", ".join(f"{key}={value}" for key, value in values.items())
    return f"{functional.name}({inside})" if inside else functional.name


def build_pair(
    quadrangle: str | None,
    statistic: str | Mapping[str, Any] | Statistic | None = None,
    deviation: str | Mapping[str, Any] | Deviation | None = None,
    **parameters: Any,
) -> Pair:
    """Return the pair of a quadrangle, or of a statistic and a deviation, or a quadrangle with one of them replaced.

    ``parameters`` belong to the quadrangle. If statistic and deviation are both given, only ``quantile_gradient`` and
    ``window`` are allowed; they apply to each part that has them and does not set them. None counts as not given.

    Raises:
        ValueError: for an unknown name or parameter, a value out of range, or a missing part.
    """
    given = {key: value for key, value in parameters.items() if value is not None}
    gradient = {key: value for key, value in given.items() if key in _GRADIENT_PARAMETERS}
    s = _part("statistic", statistic, gradient)
    d = _part("deviation", deviation, gradient)
    if s is not None and d is not None:
        extra = sorted(given.keys() - gradient.keys())
        if extra:
            raise ValueError(
                f"with statistic and deviation both given, {', '.join(extra)} belongs to neither: "
                "write it into the one it is meant for, as in deviation={'name': 'cvar', 'alpha': 0.75}"
            )
        return Pair(s, d)
    if quadrangle is None:
        missing = " and ".join(name for name, part in (("statistic", s), ("deviation", d)) if part is None)
        raise ValueError(f"a pair needs a quadrangle, or a statistic and a deviation: {missing} is missing")
    base = risk.quadrangle(quadrangle, **given)
    return Pair(s or base.S, d or base.D)


def pair_from_options(options: Mapping[str, Any], default_quadrangle: str | None = None) -> Pair:
    """Call :func:`build_pair` with one flat mapping (``quadrangle``, ``statistic``, ``deviation``, parameters)."""
    rest = dict(options)
    s, d = rest.pop("statistic", None), rest.pop("deviation", None)
    return build_pair(rest.pop("quadrangle", None) or default_quadrangle, s, d, **rest)


def _part(kind: str, given: Any, gradient: Mapping[str, Any]) -> Any:
    """Return the statistic or deviation for a name, a mapping or an object; None for None."""
    if given is None or isinstance(given, Functional):
        return given
    mapping = {"name": given} if isinstance(given, str) else dict(given)
    name = mapping.pop("name", None)
    if name is None:
        raise ValueError(f"{kind}={given!r} has no name: write {kind}={{'name': ..., parameter: value}}")
    table = tables.STATISTIC_PARAMETERS if kind == "statistic" else tables.DEVIATION_PARAMETERS
    accepted = table.get(name, {})
    own = {key: value for key, value in mapping.items() if value is not None}
    inherited = {key: value for key, value in gradient.items() if key in accepted}
    build = risk.statistic if kind == "statistic" else risk.deviation
    return build(name, **{**inherited, **own})
