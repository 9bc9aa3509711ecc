"""Import torchvision where its compiled library does not fit torch.

A torchvision built for CUDA beside a torch built for the CPU cannot load its compiled library, and its import
then stops with ``operator torchvision::nms does not exist``: the Python part registers fake kernels for two
operators without asking whether they exist. Declaring their schemas first is enough. Data sets, transforms
and models then work; nms, roi_align and read_image raise torchvision's own error.

gbn imports torchvision only through here, and so should any import of timm that comes first.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

_declared: torch.library.Library | None = None  # the schemas live as long as this object


def import_torchvision() -> ModuleType:
    """The module ``torchvision``, with the two schemas declared first where its compiled library cannot load.

    Raises:
        ImportError: torchvision is not installed, or fails for another reason.
    """
    if "torchvision" in sys.modules:
        return sys.modules["torchvision"]
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError('torchvision is not installed: pip install "gbn[lab]" brings it')
    if not _library_loads(Path(spec.submodule_search_locations[0])):
        _declare_schemas()
    return importlib.import_module("torchvision")


def _library_loads(package: Path) -> bool:
    """Whether torchvision's compiled operators can be loaded; loads them if so, as its own import would."""
    for library in sorted([*package.glob("_C*.so"), *package.glob("_C*.pyd")]):
        try:
            torch.ops.load_library(str(library))
        except (OSError, RuntimeError):
            return False
        return True
    return False


def _declare_schemas() -> None:
    global _declared
    if _declared is None:
        _declared = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            _declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
