"""The layers that go through the shared suite: every registered method, every pair, both its controls."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from gbn import risk
from gbn.methods import COMMON_CONTROLS, CONTROLS
from gbn.nn import METHODS, NormFactory, norm_layer
from gbn.risk.parameters import QUADRANGLE_PARAMETERS

SAMPLES = 256  # values per channel that the matched controls of extremes are told of


@dataclasses.dataclass(frozen=True)
class Case:
    """One normalizer of the suite."""

    name: str
    factory: NormFactory

    @property
    def of_the_batch(self) -> bool:
        """Whether it is ours and normalizes with statistics of the batch."""
        return METHODS[self.factory.method].statistics == "batch"

    @property
    def divides(self) -> bool:
        """Whether it divides by a deviation of the batch, one per channel."""
        method = METHODS[self.factory.method]
        return method.name == "bn" or (method.has_pair and "mixture" not in self.name)

    @property
    def draws(self) -> bool:
        """Whether it draws numbers in training, by the place of a sample in the batch."""
        return self.factory.method == "mixture" and self.factory.options.get("components") != 1

    @property
    def foreign(self) -> bool:
        """Whether it came by --gbn-norm or an entry point."""
        return self.factory.method == "custom"

    def layer(self, num_features: int, act: str | None = None, dim: int = 2, **options: Any) -> nn.Module:
        return self.factory(num_features, act=act, dim=dim, **options)

    def differentiable(self) -> Case:
        """The same with the gradient that is the value's derivative, where there is a choice."""
        options = dict(self.factory.options)
        quadrangle = options.get("quadrangle", "cvar")
        if self.factory.method == "gbn" and "quantile_gradient" in QUADRANGLE_PARAMETERS[quadrangle]:
            options["quantile_gradient"] = "exact"
        if self.factory.method == "mixture":
            # The mixture is fitted without gradient: at fixed parameters the rest has one, if posteriors have.
            # Seeds are samples, so the mixture has to be an earlier batch's.
            options |= {
                "posterior_gradient": True,
                "em_steps": 0,
                "warm_start": True,
                "track_running_stats": True,
            }
            # The floor of a variance is eps and a share of the batch's; a large eps keeps posteriors smooth.
            options |= {"variance_floor": 1e-12, "eps": 0.5}
        return Case(self.name, norm_layer(self.factory.method, **options))


def registered() -> list[Case]:
    """Each method at its defaults, generalized batch normalization with each pair, each pair's controls."""
    cases = [Case(name, norm_layer(name)) for name in METHODS if name not in ("custom", *CONTROLS)]
    for name in risk.QUADRANGLES:
        cases.append(Case(f"gbn[{name}]", norm_layer("gbn", quadrangle=name)))
        if risk.quadrangle(name).homogeneous:
            matched_to = {"quadrangle": name}
            cases += [
                Case(f"{control}[{name}]", norm_layer(control, matched_to=matched_to, samples=SAMPLES))
                for control in COMMON_CONTROLS
            ]
    # Those that measure: a pair with ties to break, one without Gaussian constants, one of extremes.
    cases += [
        Case(f"{control}[{name}]", norm_layer(control, matched_to={"quadrangle": name}))
        for control in CONTROLS
        if control not in COMMON_CONTROLS
        for name in ("cvar", "entropic", "worst_case")
    ]
    for name in ("std", "cvar"):
        matched_to = {"quadrangle": name, "instance_enhancement": True}
        cases += [
            Case(f"{control}[{name} enhanced]", norm_layer(control, matched_to=matched_to))
            for control in CONTROLS
        ]
    for start in ("bn", "bn_measured"):
        cases += [
            Case(f"gbn[cvar {start}]", norm_layer("gbn", quadrangle="cvar", start=start)),
            Case(
                f"gbn[mad {start} enhanced]",
                norm_layer("gbn", quadrangle="mad", start=start, instance_enhancement=True, rescaled=True),
            ),
        ]
    cases.append(Case("gbn[cvar enhanced]", norm_layer("gbn", quadrangle="cvar", instance_enhancement=True)))
    cases += [
        Case(f"{control}[mixture]", norm_layer(control, matched_to={"method": "mixture"}))
        for control in COMMON_CONTROLS
    ]
    cases += [
        Case(f"mixture[{text}]", norm_layer("mixture", **options))
        for text, options in {
            "one": {"components": 1},
            "per channel": {"mixture": "per_channel"},
            "posterior gradient": {"posterior_gradient": True},
            "cold start": {"warm_start": False},
            "no affine, no tracking": {"affine": False, "track_running_stats": False},
            "subset": {"subset": 16, "components": 2},
        }.items()
    ]
    composed = {"statistic": {"name": "quantile", "alpha": 0.6}, "deviation": {"name": "cvar", "alpha": 0.8}}
    cases.append(Case("gbn[quantile+cvar]", norm_layer("gbn", **composed)))
    cases.append(Case("gbn[cvar rescaled]", norm_layer("gbn", quadrangle="cvar", rescaled=True)))
    cases.append(Case("gbn[cvar, no affine]", norm_layer("gbn", quadrangle="cvar", affine=False)))
    cases.append(Case("gbn[cvar, no tracking]", norm_layer("gbn", track_running_stats=False)))
    return cases


def foreign(targets: list[str]) -> list[Case]:
    """Layers of other packages, by path or entry point."""
    return [Case(f"custom[{target}]", norm_layer("custom", target=target)) for target in targets]
