"""Import torchvision even if its compiled library does not match torch.

With a torch built for the CPU, a torchvision built for CUDA cannot load its compiled library, and its import fails
with ``operator torchvision::nms does not exist``: the Python part registers fake kernels for two operators without
checking whether they exist. Declaring their schemas first is enough. Data sets, transforms and models then work; nms,
roi_align and read_image raise torchvision's own error.

One of its modules (``ops/roi_align.py``) imports torch's compiler for one function, which costs more than a second at
every start. That import is deferred until the function is called.

gbn imports torchvision only through this module; code that imports timm first should call it as well.
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_declared: torch.library.Library | None = None  # the schemas exist as long as this object


def import_torchvision() -> ModuleType:
    """Import and return ``torchvision``, declaring the two schemas first if its compiled library cannot be loaded.

    Raises:
        ImportError: torchvision is not installed, or fails for another reason.
    """
    if "torchvision" in sys.modules:
        return sys.modules["torchvision"]
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("torchvision is not installed: pip install torchvision")
    if not _library_loads(Path(spec.submodule_search_locations[0])):
        _declare_schemas()
    with _compiler_put_off():
        return importlib.import_module("torchvision")


@contextlib.contextmanager
def _compiler_put_off() -> Iterator[None]:
    """Replace torch._dynamo.utils.is_compile_supported in this context by one that imports the original on call."""
    if "torch._dynamo" in sys.modules:
        yield
        return

    def is_compile_supported(device_type: str) -> bool:
        supported: Callable[[str], bool] = importlib.import_module("torch._dynamo.utils").is_compile_supported
        return supported(device_type)

    package, utils = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    package.__path__ = []
    # Anything else that torchvision may use comes from the real module, whose import is then not deferred.
    package.__getattr__ = utils.__getattr__ = _real_compiler  # type: ignore[method-assign]
    package.utils = utils  # type: ignore[attr-defined]
    utils.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {"torch._dynamo": package, "torch._dynamo.utils": utils}
    try:
        yield
    finally:
        for name, stand_in in (("torch._dynamo", package), ("torch._dynamo.utils", utils)):
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def _real_compiler(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    for module in ("torch._dynamo", "torch._dynamo.utils"):
        if not isinstance(getattr(sys.modules.get(module), "__file__", None), str):
            sys.modules.pop(module, None)
    utils = importlib.import_module("torch._dynamo.utils")
    package = sys.modules["torch._dynamo"]
    return getattr(package, name) if hasattr(package, name) else getattr(utils, name)


def _library_loads(package: Path) -> bool:
    """Return whether torchvision's compiled operators can be loaded, and load them as its own import would."""
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
