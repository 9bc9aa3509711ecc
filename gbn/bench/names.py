"""The names that the benchmarks' options accept, without loading torch."""

from pathlib import Path
from typing import Any

#: The folder that holds the package.
ROOT = Path(__file__).resolve().parents[2]

#: network -> (name, options) of gbn.models at the images of CIFAR-10
SMALL = {
    "cnn": ("cnn", {}),
    "resnet20": ("resnet", {"depth": 20}),
    "resnet18": ("resnet18", {}),
}
NETWORKS = (*SMALL, "resnet50")
DTYPES = ("float32", "bfloat16", "float16")
LAYOUTS = ("contiguous", "channels_last")
PRECISIONS = ("float32", "bfloat16", "float16")
#: The name of instance enhancement of (mean, std); of another pair: ``iebn[cvar]``, ``iebn[cvar,exact]``.
GATED = "iebn"
#: The name of mixture normalization; ``mixture[5]``, ``mixture[per_channel]``, ``mixture[per_channel,5]``.
MIXTURE = "mixture"
DEFAULT_PAIRS = (
    "std",
    "mad",
    "cvar",
    GATED,
    f"{GATED}[cvar]",
    MIXTURE,
    f"{MIXTURE}[5]",
)
#: What the layers are compared with.
REFERENCE, COMPILED = "bn+relu", "bn+relu compiled"
BASE = "bn"
DEFAULT_ARMS = (BASE, "gbn_std", "gbn_mad", "gbn_cvar", "iebn", "mixture")

#: The arms and the images (channels, side) of ``gbn bench precondition``.
PRECONDITIONED_ARMS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "bnp": {},
    "bnp_patch": {"statistics": "patch"},
}
PRECONDITIONED_IMAGES = {"mlp": (1, 28), "cnn": (3, 32), "resnet": (3, 32)}
