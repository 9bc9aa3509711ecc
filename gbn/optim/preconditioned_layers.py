"""The layers that BNP preconditions: how they are found, what they collect, how their gradients are rewritten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils.hooks import RemovableHandle

from gbn import kernels
from gbn.optim.input_moments import Conv, input_sums

if TYPE_CHECKING:
    from gbn.kernels.numba.launch_precondition import CompiledStep, CompiledSums

__all__ = ["MISSING_BIAS", "PreconditionedLayer", "compile_layers", "find_layers"]

MISSING_BIAS = ("error", "skip")

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class PreconditionedLayer:
    """One weight with its bias, and the modules that use it (several if it is tied); serves as each module's hook.

    Attributes:
        name: path of the first module.
        weight, bias: the parameters.
        fan_in: number of inputs per output unit: columns of the weight as a matrix.
        columns: number of means and of variances that the layer keeps.
        sums: (2, columns), the sums collected so far; None if there are none.
        rows, images: number of terms per sum, and of images or rows they come from; 0 if nothing was collected.
        compiled: compiled code that sums the inputs it supports; None to use torch alone.
    """

    def __init__(self, name: str, module: nn.Linear | Conv, statistics: str) -> None:
        assert module.bias is not None
        self.name = name
        self.modules = [module]
        self.weight, self.bias = module.weight, module.bias
        self.statistics = statistics
        self.fan_in = self.weight[0].numel()
        self.groups = 1 if isinstance(module, nn.Linear) else module.groups
        self.columns = self.weight.shape[1] * self.groups
        if statistics == "patch":
            self.columns *= math.prod(self.weight.shape[2:])
        self.sums: Tensor | None = None
        self.rows = self.images = 0
        self.compiled: CompiledSums | None = None

    def attach(self) -> list[RemovableHandle]:
        """Register the hook on every module of the layer and return the handles."""
        return [module.register_forward_pre_hook(self, with_kwargs=True) for module in self.modules]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Add up a module's inputs, only in training with gradients; this is the hook."""
        if not (module.training and torch.is_grad_enabled() and self.weight.requires_grad):
            return
        x = args[0] if args else kwargs["input"]
        compiled = self.compiled
        # A tracer needs operations that it supports.
        if compiled is not None and not torch.compiler.is_compiling():
            sums = self.sums
            if sums is None or sums is compiled.sums:
                rows = compiled.add(x, sums is not None)
                if rows:
                    self.sums = compiled.sums
                    self.rows += rows
                    self.images += x.shape[0]
                    return
        sums, rows = input_sums(module, x.detach(), self.statistics)  # type: ignore[arg-type]
        if sums.shape[1] != self.columns:
            return  # the module is about to reject an input of another width
        self.sums = sums if self.sums is None else self.sums + sums
        self.rows += rows
        self.images += x.shape[0] if x.dim() > max(1, self.weight.dim() - 1) else 1

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # A copy of the model is not trained with this preconditioner, so its hook does nothing.
        return _nothing

    def __reduce__(self) -> Any:
        return (_no_hook, ())

    def sums_on(self, device: torch.device) -> Tensor:
        """Return the collected sums, (2, columns), or zeros."""
        if self.sums is None:
            return torch.zeros(2, self.columns, dtype=torch.float64, device=device)
        return self.sums.to(device)

    def forget(self) -> None:
        """Discard the sums, to begin the next step."""
        self.sums = None
        self.rows = self.images = 0

    def gradients(self) -> tuple[Tensor, Tensor] | None:
        """Return the gradients of the weight and the bias, or None if one is missing."""
        weight, bias = self.weight.grad, self.bias.grad
        return None if weight is None or bias is None else (weight, bias)

    def rewrite(self, gradients: tuple[Tensor, Tensor], factors: Tensor, shrink: float | Tensor) -> None:
        """Rewrite both gradients in place.

        Args:
            gradients: see :meth:`gradients`.
            factors: (2, columns): means, and inverse variances already divided by max(m / N, 1); their dtype is the
                precision of the computation.
            shrink: 1 / max(m / N, 1).
        """
        weight, bias = gradients
        if weight.dtype != factors.dtype or bias.dtype != factors.dtype:
            copies = weight.to(factors.dtype), bias.to(factors.dtype)
            self.rewrite(copies, factors, shrink)
            weight.copy_(copies[0])
            bias.copy_(copies[1])
            return
        if factors.device != weight.device:
            factors = factors.to(weight.device)
        mean, inverse = factors.unbind()
        if weight.dim() == 2:
            weight.addr_(bias, mean, alpha=-1).mul_(inverse)
            _scale(bias, shrink).addmv_(weight, mean, alpha=-1)
            return
        mean, inverse = self._spread(mean), self._spread(inverse)
        # By broadcasting, which is correct for every memory format of the gradient.
        weight.addcmul_(bias.view(-1, *[1] * (weight.dim() - 1)), mean, value=-1).mul_(inverse)
        _scale(bias, shrink).sub_((weight * mean).flatten(1).sum(1))

    def _spread(self, columns: Tensor) -> Tensor:
        """Reshape one number per column to the shape of the kernel, with size 1 where it does not vary."""
        out, inputs, *kernel = self.weight.shape
        taps = kernel if self.statistics == "patch" else [1] * len(kernel)
        grouped = columns.view(self.groups, 1, inputs, *taps)
        if self.groups == 1:
            return grouped[0]
        return grouped.expand(-1, out // self.groups, *grouped.shape[2:]).reshape(out, inputs, *taps)


def _scale(bias: Tensor, shrink: float | Tensor) -> Tensor:
    return bias if isinstance(shrink, float) and shrink == 1 else bias.mul_(shrink)


def _nothing(*_: Any) -> None:
    """Do nothing; copies of a model have this hook instead of the collecting one."""


def _no_hook() -> Any:
    return _nothing


def find_layers(
    model: nn.Module, statistics: str, missing_bias: str, exclude: Sequence[str]
) -> list[PreconditionedLayer]:
    """Return the model's linear layers and convolutions, in order of registration; tied weights form one layer.

    Args:
        model: its frozen layers are included, unless they have no bias, so that they can be unfrozen later.
        statistics, missing_bias, exclude: as in :class:`gbn.optim.BatchNormPreconditioner`.

    Raises:
        ValueError: see there.
    """
    modules = {path: module for path, module in model.named_modules() if isinstance(module, _KINDS)}
    for pattern in exclude:
        if not any(fnmatchcase(path, pattern) for path in modules):
            raise ValueError(
                f"exclude: {pattern!r} matches no linear layer or convolution; they are {_listed(modules)}"
            )
    wanted = {
        path: module
        for path, module in modules.items()
        if not any(fnmatchcase(path, pattern) for pattern in exclude)
    }
    found: dict[int, PreconditionedLayer] = {}
    for path, module in wanted.items():
        if not _can_be_preconditioned(path, module, missing_bias):
            continue
        if any(isinstance(hook, PreconditionedLayer) for hook in module._forward_pre_hooks.values()):
            raise ValueError(f"{_called(path, module)} already has a preconditioner: call its remove() first")
        tied = found.get(id(module.weight))
        if tied is None:
            found[id(module.weight)] = PreconditionedLayer(path, module, statistics)
        elif tied.bias is module.bias:
            tied.modules.append(module)
        else:
            raise ValueError(
                f"{tied.name} and {path} share a weight but not the bias: no statistics belong to both biases; "
                f"share the bias too, or exclude=[{tied.name!r}, {path!r}]"
            )
    if not found:
        raise ValueError(
            "nothing to precondition: the model has no nn.Linear and no nn.Conv1d/2d/3d with a trainable weight "
            f"and a bias{' outside exclude' if exclude else ''}"
        )
    _check_owners(model, found)
    return list(found.values())


def _can_be_preconditioned(path: str, module: nn.Module, missing_bias: str) -> bool:
    """Return whether a layer is preconditioned; raise ValueError if it should be but cannot."""
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None:
        raise ValueError(
            f"{_called(path, module)} computes its weight (a parametrization): its gradient is not the weight's; "
            f"exclude=[{path!r}] leaves it alone"
        )
    if isinstance(weight, UninitializedParameter):
        raise ValueError(f"{_called(path, module)} is lazy: pass a batch through the model first")
    if bias is not None and (bias.requires_grad or not weight.requires_grad):
        return True
    if not weight.requires_grad or missing_bias == "skip":
        return False
    what = "has no bias" if bias is None else "has a frozen bias"
    raise ValueError(
        f"{_called(path, module)} {what}, and preconditioning moves a part of each step into the bias: build it with "
        f"bias=True, or leave it alone with exclude=[{path!r}] or missing_bias='skip'"
    )


def _check_owners(model: nn.Module, found: Mapping[int, PreconditionedLayer]) -> None:
    """Raise ValueError for a weight that is also used by another kind of module or by one that is left alone."""
    taken = {module for layer in found.values() for module in layer.modules}
    for path, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None and id(parameter) in found and module not in taken:
                layer = found[id(parameter)]
                raise ValueError(
                    f"{layer.name} shares its weight with {_called(path, module)}, whose gradient has other "
                    f"statistics: exclude=[{layer.name!r}] leaves it alone"
                )


def _called(path: str, module: nn.Module) -> str:
    return f"{path or 'the model'} ({type(module).__name__})"


def _listed(modules: Mapping[str, nn.Module], at_most: int = 8) -> str:
    names = list(modules)
    return ", ".join(names[:at_most]) + (", ..." if len(names) > at_most else "") if names else "none"


def compile_layers(
    layers: Sequence[PreconditionedLayer], rho: float, eps: float, eps_relative: float
) -> CompiledStep | None:
    """Set the layers' compiled sums, where available, and return the compiled step; None if torch does everything.

    Args:
        layers: compiled code handles them as long as they are on the CPU; torch does what it does not support.
        rho, eps, eps_relative: as in :class:`gbn.optim.BatchNormPreconditioner`.
    """
    if layers[0].weight.device.type != "cpu" or not kernels.selected("cpu").startswith("numba"):
        return None
    from gbn.kernels.numba.launch_precondition import ENTRIES, CompiledStep, CompiledSums, Shape
    from gbn.kernels.numba.objects import working

    if not working(ENTRIES):
        return None
    shapes = []
    for layer in layers:
        rows, width = layer.weight.shape[0], layer.fan_in
        taps = layer.groups * width // layer.columns
        shapes.append(Shape(layer.columns, taps, layer.groups, rows, width, width))
        if layer.weight.dim() == 2 or layer.statistics == "channel":
            layer.compiled = CompiledSums(layer.columns, layer.weight.dim())
    return CompiledStep(shapes, 1 - rho, eps, eps_relative)
