"""Training steps of one network with different norms: the arms, their check, their timing."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gbn import kernels, models
from gbn.nn import NormFactory, norm_layer
from gbn.suggest import did_you_mean

from .cases import LAYOUTS, gated, is_mixture, mixture_options, pair_names, pair_options, ungated
from .environment import COLUMNS as ENVIRONMENT
from .names import BASE, DEFAULT_ARMS, SMALL
from .providers import started
from .timing import Samples, Step, columns, interleave, ratios, spread, wall_clock

CHECKED = 3  # first losses that are checked
COLUMNS = (
    *(
        "net",
        "width",
        "batch",
        "precision",
        "layout",
        "mode",
        "arm",
        "pair",
        "kernels",
        "implementation",
        "status",
    ),
    *(
        "first_losses",
        "rounds",
        "steps",
        "images_s",
        "p20",
        "p80",
        "ratio",
        "ratio_p20",
        "ratio_p80",
        "step_ms",
    ),
    *("others", *ENVIRONMENT),
)


@dataclass(frozen=True)
class Setting:
    """The settings shared by all arms of a comparison."""

    net: str
    width: float
    batch: int
    precision: str
    layout: str
    compiled: bool

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context of a step's forward pass and loss."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self.precision))


def parse_arm(name: str) -> tuple[str, str]:
    """Return the pair and the choice of kernels of an arm, both empty for ``bn``.

    Arms are ``bn`` and ``gbn_<pair>`` with a pair as in bench_norm.py (``gbn_cvar``, ``gbn_cvar[exact]``), and
    ``iebn``, ``iebn[cvar]``, ``mixture``, ``mixture[5]`` named as there; with the suffix ``@reference`` the reference
    kernels are used.

    Raises:
        ValueError: the name is unknown.
    """
    if name == BASE:
        return "", ""
    arm, at, choice = name.partition("@")
    pair = arm.removeprefix("gbn_")
    if (arm == pair) != (gated(pair) or is_mixture(pair)) or (at and choice != "reference"):
        hint = did_you_mean(name, DEFAULT_ARMS)
        raise ValueError(
            f"arm {name!r} is unknown{hint}: allowed are bn, gbn_<pair>, iebn, iebn[<pair>], mixture and "
            "mixture[<options>], each also with @reference but bn"
        )
    pair_names([pair])
    return pair, choice or "auto"


def norm_of(pair: str) -> NormFactory:
    """Return the norm of an arm's pair; BatchNorm for an empty one."""
    if not pair:
        return norm_layer("bn")
    if is_mixture(pair):
        return norm_layer("mixture", **mixture_options(pair))
    gate = {"instance_enhancement": True} if gated(pair) else {}
    return norm_layer("gbn", **pair_options(ungated(pair)), **gate)


class Arm:
    """One network in training on fixed images, see :func:`parse_arm` for the names."""

    def __init__(self, name: str, setting: Setting, device: torch.device) -> None:
        self.name, self.setting, self.device = name, setting, device
        self.pair, self.choice = parse_arm(name)
        norm = norm_of(self.pair)
        network, options = SMALL[setting.net]
        model = models.build(
            network, norm, in_channels=3, num_classes=10, image_size=32, width=setting.width, **options
        )
        models.initialize(model, 0)
        model = model.to(device, memory_format=LAYOUTS[setting.layout])  # type: ignore[call-overload]
        self.model: Any = torch.compile(model, dynamic=False) if setting.compiled else model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        make = torch.Generator().manual_seed(0)
        images = torch.randn(setting.batch, 3, 32, 32, generator=make)
        self.images = images.to(device, memory_format=LAYOUTS[setting.layout])
        self.labels = torch.randint(10, (setting.batch,), generator=make).to(device)

    def step(self) -> Tensor:
        """Make one update; return the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.setting.autocast(self.device):
            loss = F.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def within(self) -> AbstractContextManager[None]:
        """Return a context with the kernels that the arm's steps use."""
        return kernels.using(self.choice) if self.choice else nullcontext()

    def first_losses(self) -> list[float]:
        """Make the first updates, which also warms up; return their losses."""
        with self.within():
            return [self.step().item() for _ in range(CHECKED)]

    def implementation(self) -> str:
        """Return the implementation that computes the norms."""
        if not self.pair:
            return "torch"
        with self.within():
            return kernels.selected(self.device.type)


def check_losses(losses: dict[str, list[float]], precision: str) -> dict[str, str]:
    """Return what is wrong, by arm: a non-finite loss, or a gbn_std that does not train as bn does.

    The first loss is one forward pass: float32 rounding through some twenty layers (1e-4 allows a hundred
    roundings per layer); later ones follow updates that differ by as much. Half precision rounds each layer's
    output to three (bfloat16) or four digits.
    """
    tolerance = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 1e-2}[precision]
    wrong = {}
    for arm, values in losses.items():
        shown = ", ".join(f"{value:.6g}" for value in values)
        if not all(torch.tensor(values).isfinite()):
            wrong[arm] = f"check failed: losses {shown} are not finite"
        elif arm.partition("@")[0] == "gbn_std" and BASE in losses:
            apart = max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(values, losses[BASE], strict=True))
            if not apart <= tolerance:
                wrong[arm] = (
                    f"check failed: losses {shown} differ from bn's by {apart:.2g}, more than {tolerance:g}"
                )
    return wrong


def _advance(arm: Arm, steps: int, _: int) -> None:
    for _step in range(steps):
        arm.step()


def rows_of(
    setting: Setting,
    names: Sequence[str],
    device: torch.device,
    environment: dict[str, Any],
    *,
    steps: int,
    blocks: int,
    block_seconds: float,
) -> list[dict[str, Any]]:
    """Return one row per arm; one that fails, at its check or otherwise, is not timed, and its row says so."""
    if setting.compiled:
        torch.compiler.reset()
    rows = {name: _head(setting, name, environment) for name in names}

    def start(name: str) -> tuple[Arm, list[float]]:
        arm = Arm(name, setting, device)
        return arm, arm.first_losses()

    arms, losses = started(rows, start)
    for name, arm in arms.items():
        rows[name]["implementation"] = arm.implementation()
    for name, why in check_losses(losses, setting.precision).items():
        rows[name]["status"] = why
        del arms[name]
    if BASE not in arms:
        return list(rows.values())
    timed = {name: Step(partial(_advance, arm, steps), within=arm.within) for name, arm in arms.items()}
    samples = interleave(
        timed,
        wall_clock(device),
        blocks=blocks,
        block_seconds=block_seconds,
        warm_up=1,
        exclusive=device.type == "cpu",
    )
    for name in arms:
        rows[name] |= _timed(samples, name, setting, steps)
    return list(rows.values())


def _head(setting: Setting, name: str, environment: dict[str, Any]) -> dict[str, Any]:
    pair, choice = parse_arm(name)
    return {
        **{key: getattr(setting, key) for key in ("net", "width", "batch", "precision", "layout")},
        "mode": "compiled" if setting.compiled else "eager",
        "arm": name,
        "kernels": choice,
        "pair": pair,
        "status": "ok",
        **environment,
    }


def _timed(samples: Samples, name: str, setting: Setting, steps: int) -> dict[str, Any]:
    images = setting.batch * steps
    rate = spread([images / second for second in samples.seconds[name]])
    ratio = ratios(
        samples.seconds[BASE], samples.seconds[name]
    )  # of images/s, hence the inverse ratio of times
    return {
        "rounds": samples.rounds,
        "steps": steps,
        "others": samples.others,
        "images_s": rate.median,
        "p20": rate.p20,
        "p80": rate.p80,
        **columns("ratio", ratio),
        "step_ms": spread([1e3 * second / steps for second in samples.seconds[name]]).median,
    }
