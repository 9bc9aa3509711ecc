"""The layers that BNP preconditions: which they are, what they collect, how their gradients are rewritten."""

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
    """One weight with its bias, and the modules that use it (several, if it is tied): a hook of each of them.

    Attributes:
        name: path of the first module.
        weight, bias: the parameters.
        fan_in: inputs of an output unit: columns of the weight as a matrix.
        columns: means and variances that the layer keeps.
        sums: (2, columns), what was collected so far; None if nothing was.
        rows, images: terms of each sum, and images or rows that they came from; 0 if nothing was collected.
        compiled: sums by compiled code, of inputs that it takes; None: by torch alone.
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
        """Hook every module of the layer."""
        return [module.register_forward_pre_hook(self, with_kwargs=True) for module in self.modules]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The hook: add up a module's inputs, in training with gradients only."""
        if not (module.training and torch.is_grad_enabled() and self.weight.requires_grad):
            return
        x = args[0] if args else kwargs["input"]
        compiled = self.compiled
        # A tracer needs operations that it knows.
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
            return  # the module is about to refuse an input of another width
        self.sums = sums if self.sums is None else self.sums + sums
        self.rows += rows
        self.images += x.shape[0] if x.dim() > max(1, self.weight.dim() - 1) else 1

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # A copy of the model is no model in training with this preconditioner: its hook does nothing.
        return _nothing

    def __reduce__(self) -> Any:
        return (_no_hook, ())

    def sums_on(self, device: torch.device) -> Tensor:
        """(2, columns): what was collected, or zeros."""
        if self.sums is None:
            return torch.zeros(2, self.columns, dtype=torch.float64, device=device)
        return self.sums.to(device)

    def forget(self) -> None:
        """Begin the next step."""
        self.sums = None
        self.rows = self.images = 0

    def gradients(self) -> tuple[Tensor, Tensor] | None:
        """Of the weight and of the bias; None where one is missing."""
        weight, bias = self.weight.grad, self.bias.grad
        return None if weight is None or bias is None else (weight, bias)

    def rewrite(self, gradients: tuple[Tensor, Tensor], factors: Tensor, shrink: float | Tensor) -> None:
        """Both gradients, in place.

        Args:
            gradients: see :meth:`gradients`.
            factors: (2, columns): means, and inverse variances that are divided by max(m / N, 1) already; the
                precision of the rewriting.
            shrink: one over max(m / N, 1).
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
        # By broadcasting, which is right for every memory format of the gradient.
        weight.addcmul_(bias.view(-1, *[1] * (weight.dim() - 1)), mean, value=-1).mul_(inverse)
        _scale(bias, shrink).sub_((weight * mean).flatten(1).sum(1))

    def _spread(self, columns: Tensor) -> Tensor:
        """A number a column -> the shape of the kernel, of size 1 where it does not vary."""
        out, inputs, *kernel = self.weight.shape
        taps = kernel if self.statistics == "patch" else [1] * len(kernel)
        grouped = columns.view(self.groups, 1, inputs, *taps)
        if self.groups == 1:
            return grouped[0]
        return grouped.expand(-1, out // self.groups, *grouped.shape[2:]).reshape(out, inputs, *taps)


def _scale(bias: Tensor, shrink: float | Tensor) -> Tensor:
    return bias if isinstance(shrink, float) and shrink == 1 else bias.mul_(shrink)


def _nothing(*_: Any) -> None:
    """The hook that copies of a model have in the place of a collecting one."""


def _no_hook() -> Any:
    return _nothing


def find_layers(
    model: nn.Module, statistics: str, missing_bias: str, exclude: Sequence[str]
) -> list[PreconditionedLayer]:
    """The model's linear layers and convolutions, in order of registration; those with tied weights are one.

    Args:
        model: its frozen layers are taken too, unless they have no bias, so that they can be thawed later.
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
            raise ValueError(f"{_called(path, module)} has a preconditioner already: remove() that one first")
        tied = found.get(id(module.weight))
        if tied is None:
            found[id(module.weight)] = PreconditionedLayer(path, module, statistics)
        elif tied.bias is module.bias:
            tied.modules.append(module)
        else:
            raise ValueError(
                f"{tied.name} and {path} share a weight and not the bias: no statistics belong to both biases; "
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
    """Whether a layer is taken; raises where it should be and cannot."""
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
        f"{_called(path, module)} {what}, and preconditioning moves a part of each step into the bias: make it with "
        f"bias=True, or leave it alone by exclude=[{path!r}] or missing_bias='skip'"
    )


def _check_owners(model: nn.Module, found: Mapping[int, PreconditionedLayer]) -> None:
    """Refuse a weight that another kind of module, or one that is left alone, uses too."""
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
    """Give layers compiled sums where there are such, and make the compiled step; None where torch does it all.

    Args:
        layers: compiled code serves them as long as they are on the CPU; what it doesn't take goes through torch.
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
