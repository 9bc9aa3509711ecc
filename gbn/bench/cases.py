"""The tensors and pairs to measure: the norm layers of real networks, and pairs by name."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gbn import models, risk
from gbn.kernels.mixture import FORMS
from gbn.nn.pairs import Pair, build_pair
from gbn.risk.parameters import GRADIENT_MODES, QUADRANGLE_PARAMETERS
from gbn.suggest import did_you_mean

from . import names
from .names import GATED, MIXTURE, SMALL

DTYPES = {name: getattr(torch, name) for name in names.DTYPES}
LAYOUTS = dict(zip(names.LAYOUTS, (torch.contiguous_format, torch.channels_last), strict=True))
#: (channels, side) -> norm layers of ResNet-50 at 224x224: 53 in all (He et al. 2016a, table 1)
RESNET50 = {
    (64, 112): 1,
    (64, 56): 6,
    (256, 56): 4,
    (128, 56): 1,
    (128, 28): 7,
    (512, 28): 5,
    (256, 28): 1,
    (256, 14): 11,
    (1024, 14): 7,
    (512, 14): 1,
    (512, 7): 5,
    (2048, 7): 4,
}
DEFAULT_NETWORKS = {"cpu": ("cnn", "resnet20", "resnet18"), "cuda": ("resnet18", "resnet50")}


@dataclass(frozen=True)
class Case:
    """One tensor to normalize: its shape, dtype and memory format, and the networks that contain it."""

    shape: tuple[int, int, int, int]
    dtype: str
    layout: str
    networks: str  # "cnn:1 resnet18:5": how many norm layers of that network have this shape

    @property
    def elements(self) -> int:
        """Values in the tensor."""
        n, c, h, w = self.shape
        return n * c * h * w

    @property
    def samples(self) -> int:
        """Values per channel: the length of a reduction."""
        return self.elements // self.shape[1]

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return self.elements * DTYPES[self.dtype].itemsize

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {self.dtype} {self.layout}"


def norm_shapes(network: str) -> Counter[tuple[int, int]]:
    """Return (channels, side) of a network's norm layers with their counts; runs on the meta device."""
    if network == "resnet50":
        return Counter(RESNET50)
    seen: Counter[tuple[int, int]] = Counter()

    class Recorder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen[x.shape[1], x.shape[2]] += 1
            return x

    name, options = SMALL[network]
    with torch.device("meta"):
        model = models.build(
            name, lambda *_, **__: Recorder(), in_channels=3, num_classes=10, image_size=32, **options
        )
        model(torch.empty(2, 3, 32, 32))
    return seen


def cases_of(
    networks: Iterable[str],
    batch: int,
    dtypes: Iterable[str],
    layouts: Iterable[str],
    shapes: Iterable[tuple[int, int, int, int]] = (),
) -> list[Case]:
    """Return every shape of the networks and every given one, once per dtype and layout, largest first."""
    where: dict[tuple[int, int, int, int], list[str]] = {shape: [] for shape in shapes}
    for network in networks:
        for (channels, side), count in norm_shapes(network).items():
            where.setdefault((batch, channels, side, side), []).append(f"{network}:{count}")
    ordered = sorted(where, key=lambda shape: (-shape[0] * shape[1] * shape[2] * shape[3], shape))
    return [
        Case(shape, dtype, layout, " ".join(where[shape]))
        for dtype in dtypes
        for layout in layouts
        for shape in ordered
    ]


def pair_names(given: Iterable[str]) -> list[str]:
    """Return the requested pairs, in order, once each; ``all`` means every quadrangle."""
    names: dict[str, None] = {}
    for name in given:
        names.update(dict.fromkeys(risk.QUADRANGLES if name == "all" else [name]))
    for name in names:
        if is_mixture(name):
            mixture_options(name)
        else:
            pair_options(ungated(name))
    return list(names)


def is_mixture(name: str) -> bool:
    """Return whether a name means mixture normalization."""
    return name.split("[")[0] == MIXTURE


def mixture_options(name: str) -> dict[str, Any]:
    """Return the layer options of ``mixture[per_channel,5]``; without brackets, one mixture of three components.

    Raises:
        ValueError: something in the brackets is neither a form nor a number of components.
    """
    match = re.fullmatch(rf"{MIXTURE}(?:\[([^\[\]]+)\])?", name)
    options: dict[str, Any] = {"components": 3, "mixture": FORMS[0]}
    for part in (match[1] or "").split(",") if match and match[1] else ():
        part = part.strip()
        if part in FORMS:
            options["mixture"] = part
        elif part.isdigit() and int(part) > 0:
            options["components"] = int(part)
        else:
            match = None
            break
    if match is None:
        raise ValueError(
            f"{name!r}: allowed are {MIXTURE}, and in brackets after it a number of components, at least 1, and "
            f"one of {', '.join(FORMS)}"
        )
    return options


def gated(name: str) -> bool:
    """Return whether a pair's name includes instance enhancement."""
    return name.split("[")[0] == GATED


def ungated(name: str) -> str:
    """Return the pair without instance enhancement: ``iebn`` -> ``std``, ``iebn[cvar,exact]`` -> ``cvar[exact]``."""
    match = re.fullmatch(rf"{GATED}(?:\[(\w+)(?:,([^\[\]]+))?\])?", name)
    if not match:
        return name
    return f"{match[1]}[{match[2]}]" if match[2] else match[1] or "std"


def pair_options(name: str) -> dict[str, Any]:
    """Return the layer options of ``cvar``, ``cvar[exact]`` or ``cvar[alpha=0.6,exact]``.

    Raises:
        ValueError: the quadrangle is unknown, or something in the brackets is neither a quantile gradient nor
            ``parameter=number``.
    """
    match = re.fullmatch(r"(\w+)(?:\[([^\[\]]+)\])?", name)
    if not match or match[1] not in QUADRANGLE_PARAMETERS:
        hint = did_you_mean(name, QUADRANGLE_PARAMETERS)
        raise ValueError(
            f"pair {name!r} is unknown{hint}: allowed are all, {', '.join(QUADRANGLE_PARAMETERS)}, "
            f"each also as name[exact] or name[alpha=0.6], {GATED}, {GATED}[name] for instance enhancement, and "
            f"{MIXTURE}, {MIXTURE}[5], {MIXTURE}[per_channel] for mixture normalization"
        )
    options: dict[str, Any] = {"quadrangle": match[1]}
    for part in (match[2] or "").split(",") if match[2] else ():
        key, given, value = part.strip().partition("=")
        if not given and key in GRADIENT_MODES:
            options["quantile_gradient"] = key
            continue
        try:
            options[key] = float(value)
        except ValueError:
            raise ValueError(
                f"pair {name!r}: {part!r} is neither one of {', '.join(GRADIENT_MODES)} nor parameter=number"
            ) from None
    risk.quadrangle(options["quadrangle"], **{k: v for k, v in options.items() if k != "quadrangle"})
    return options


def pair_of(name: str) -> Pair:
    """Return the statistic and deviation of a pair's name, with or without instance enhancement."""
    options = pair_options(ungated(name))
    return build_pair(options.pop("quadrangle"), None, None, **options)


def input_of(case: Case, device: torch.device, seed: int) -> tuple[Tensor, Tensor]:
    """Return a cotangent and an input like a convolution's (near-Gaussian, location and scale vary by channel)."""
    generator = torch.Generator(device).manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "device": device}
    channels = (1, case.shape[1], 1, 1)
    scale = torch.rand(channels, **options) + 0.5
    place = torch.randn(channels, **options) * 0.5
    layout, dtype = LAYOUTS[case.layout], DTYPES[case.dtype]
    x = torch.randn(case.shape, **options).mul_(scale).add_(place)
    g = torch.randn(case.shape, **options)
    return x.to(dtype, memory_format=layout), g.to(dtype, memory_format=layout)
