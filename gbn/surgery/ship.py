"""A network without a layer of this package, for whatever comes after training.

:func:`to_batchnorm` gives plain ``torch.nn.BatchNorm`` with the same function, which every tool knows; :func:`fold`
goes further and multiplies norms into the convolutions and linear layers next to them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.custom import NormThenActivation
from gbn.nn.simple import Activation
from gbn.surgery.affine import Affine, NotAffine, evaluation_affine
from gbn.surgery.convert import _HOOKS, Change, _modules, _put, shares_parameters
from gbn.surgery.found import ACTIVATION_MODULES, is_norm, read, why_not

__all__ = ["Folding", "fold", "to_batchnorm"]

_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)
_MODULES = {name: kind for kind, (name, _) in ACTIVATION_MODULES.items()}


@dataclasses.dataclass(frozen=True)
class Folding:
    """What :func:`fold` or :func:`to_batchnorm` did; ``print`` shows it.

    Attributes:
        model: a copy of the network, in evaluation mode.
        changed: the norms that are gone, and what became of them.
        kept: (path, reason) of the norms that remain.
    """

    model: nn.Module
    changed: tuple[Change, ...]
    kept: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{len(self.changed)} norms gone, {len(self.kept)} kept"]
        lines += [f"  {one.path}  {one.before} -> {one.after}" for one in self.changed]
        lines += [f"  {path}  kept: {reason}" for path, reason in self.kept]
        return "\n".join(lines)


def to_batchnorm(model: nn.Module, *, strict: bool = True) -> Folding:
    """Replace this package's layers by ``torch.nn.BatchNorm1d/2d/3d`` that compute the same in evaluation mode.

    A layer with an activation becomes ``nn.Sequential(BatchNorm, activation)``. The copy is in evaluation mode; in
    training mode it is batch normalization and not the same function.

    Args:
        model: any module; it is not changed.
        strict: raise if a layer cannot be replaced; False lists it in ``kept``.

    Raises:
        NotAffine: for layers whose function in evaluation mode is not one affine map per channel (mixtures, trained
            instance enhancement, norms without running statistics, layer and group normalization), if ``strict``.
    """
    model = copy.deepcopy(model).eval()
    changed, kept = [], []
    for paths, layer in _modules(model):
        if not isinstance(layer, BatchStatisticsNorm):
            continue
        try:
            new = _batch_norm(layer, evaluation_affine(layer))
        except NotAffine as error:
            if strict:
                raise NotAffine(
                    f"{paths[0]!r}: {error}; strict=False leaves such layers as they are"
                ) from None
            kept.append((paths[0], str(error)))
            continue
        for path in paths:
            model = _put(model, path, new)
        changed.append(Change(paths[0], type(layer).__name__, type(new).__name__))
    return Folding(model, tuple(changed), tuple(kept))


@torch.no_grad()
def _batch_norm(layer: BatchStatisticsNorm, function: Affine) -> nn.Module:
    known = read(layer)
    tensor = next(t for t in (*layer.parameters(), *layer.buffers()) if t.dtype.is_floating_point)
    new = _BATCH_NORM[known.dim](
        known.num_features, layer.eps, layer.momentum, device=tensor.device, dtype=tensor.dtype
    )
    location, spread = layer.running()
    assert location is not None
    assert spread is not None
    assert new.running_mean is not None
    assert new.running_var is not None
    new.running_mean.copy_(location)
    new.running_var.copy_(spread if layer._buffer_names[1] == "running_var" else spread.double().square())
    divisor = torch.sqrt(new.running_var.double() + new.eps)
    new.weight.copy_(function.scale * divisor)
    new.bias.copy_(function.shift + function.scale * new.running_mean.double())
    new.requires_grad_(any(parameter.requires_grad for parameter in layer.parameters()))
    new.eval()
    return new if layer.act is None else nn.Sequential(new, _MODULES[layer.act]()).eval()


def fold(model: nn.Module) -> Folding:
    """Multiply norms into the convolutions and linear layers next to them: the same function with fewer operations.

    A norm goes into the (transposed) convolution or linear layer whose output it alone takes. One that no such layer
    precedes goes into the convolution without padding, or the linear layer, that alone takes its output. Which takes
    what is read from the network's own code by ``torch.fx``, module by module, never guessed from names or order.
    Serves this package's layers, torch's and timm's BatchNorm, and every norm that is affine in evaluation mode. A
    norm's own activation stays in its place; norms that cannot be folded stay as they are.

    Args:
        model: any module; it is not changed.

    Returns:
        the folded copy in evaluation mode, what was folded, and why the others were not.
    """
    model = copy.deepcopy(model).eval()
    paths_of = {id(layer): paths for paths, layer in _modules(model)}
    norms = {id(layer): layer for _, layer in _modules(model) if _is_norm(layer)}
    for layer in list(norms.values()):  # the norm inside is part of its wrapper
        if isinstance(layer, NormThenActivation):
            norms.pop(id(layer.norm), None)
    calls, links, failed = _calls(model)
    changed, kept = [], []
    for key, layer in norms.items():
        path = paths_of[key][0]
        try:
            neighbor, after = _neighbor(layer, calls, links, failed.get(key))
            if shares_parameters(model, neighbor):
                raise NotAffine(
                    f"the {type(neighbor).__name__} next to it shares its weight with another module"
                )
            function = evaluation_affine(layer)
        except NotAffine as error:
            kept.append((path, str(error)))
            continue
        (_into_next if after else _into_previous)(neighbor, function)
        act = (
            layer.act
            if isinstance(layer, BatchStatisticsNorm | NormThenActivation)
            else getattr(layer, "act", None)
        )
        rest = (
            Activation(act) if isinstance(act, str) else act if isinstance(act, nn.Module) else nn.Identity()
        )
        for one in paths_of[key]:
            model = _put(model, one, rest.eval())
        what = type(neighbor).__name__
        changed.append(Change(path, type(layer).__name__, f"{what} {paths_of[id(neighbor)][0]}"))
    return Folding(model, tuple(changed), tuple(kept))


def _is_norm(layer: nn.Module) -> bool:
    if isinstance(layer, NormThenActivation):
        return True
    return is_norm(layer) and (why_not(layer) is None or isinstance(layer, nn.modules.batchnorm._BatchNorm))


class _Children(fx.Tracer):
    """Traces one module's own forward; everything that it calls is a leaf."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


_Links = dict[int, tuple[nn.Module | None, list[Any]]]


def _calls(model: nn.Module) -> tuple[Counter[int], _Links, dict[int, str]]:
    """Return how often each module is called, and for each its input's and its output's neighbors.

    Returns:
        calls per module (by id); (the module whose output it takes, the users of its output) of each call; and,
        for modules called from code that cannot be traced, why.
    """
    calls: Counter[int] = Counter()
    links: _Links = {}
    failed: dict[int, str] = {}
    for _, module in _modules(model):
        if next(module.children(), None) is None or isinstance(module, _CONTAINERS) or _is_norm(module):
            continue
        try:
            graph = _Children().trace(module)
        except Exception as error:  # whatever a user's forward raises when it is called with proxies
            reason = f"{type(module).__name__}.forward cannot be traced ({str(error).splitlines()[0][:80]})"
            failed |= {id(child): reason for child in _called_by(module)}
            continue
        for node in graph.nodes:
            if node.op == "get_attr":  # a parameter that the code reads itself: its module is not only called
                owner = module.get_submodule(str(node.target).rpartition(".")[0])
                calls[id(owner)] += 2
            if node.op != "call_module":
                continue
            called = module.get_submodule(str(node.target))
            calls[id(called)] += 1
            source = node.args[0] if node.args else None
            before = None
            if isinstance(source, fx.Node) and source.op == "call_module" and len(source.users) == 1:
                before = module.get_submodule(str(source.target))
            after = [
                module.get_submodule(str(user.target))
                if user.op == "call_module" and user.args[:1] == (node,)
                else None
                for user in node.users
            ]
            links[id(called)] = before, after
    return calls, links, failed


def _called_by(module: nn.Module) -> list[nn.Module]:
    """Return the children of a module, and those in its lists and dictionaries of modules, which call nothing."""
    children = []
    for child in module.children():
        children += _called_by(child) if isinstance(child, _CONTAINERS) else [child]
    return children


def _neighbor(
    norm: nn.Module, calls: Counter[int], links: _Links, untraced: str | None
) -> tuple[nn.Module, bool]:
    """Return the module that takes a norm in, and whether it follows it.

    Raises:
        NotAffine: if there is none; the message says why.
    """
    if untraced is not None or id(norm) not in links:
        raise NotAffine(untraced or "no traced code calls it")
    if calls[id(norm)] != 1:
        raise NotAffine(f"it is called {calls[id(norm)]} times")
    if _is_watched(norm):
        raise NotAffine("it has hooks")
    before, after = links[id(norm)]
    reasons = []
    for module, follows in ((before, False), (after[0] if len(after) == 1 else None, True)):
        if module is None:
            continue
        kinds = (*_CONV, nn.Linear) if follows else (*_CONV, *_TRANSPOSED, nn.Linear)
        if not isinstance(module, kinds):
            continue
        name = type(module).__name__
        if follows and (getattr(norm, "act", None) is not None or isinstance(norm, NormThenActivation)):
            continue
        if follows and any(getattr(module, "padding", ())):
            reasons.append(f"the {name} after it pads with zeros, which a norm before it does not shift")
        elif calls[id(module)] != 1:
            reasons.append(f"the {name} next to it is called {calls[id(module)]} times")
        elif _is_watched(module) or parametrize.is_parametrized(module):
            reasons.append(f"the {name} next to it has hooks or a parametrization")
        else:
            return module, follows
    raise NotAffine("; ".join(reasons) or "no convolution or linear layer is its only neighbor")


def _is_watched(module: nn.Module) -> bool:
    return any(getattr(module, hooks) for hooks in _HOOKS[:-1])


@torch.no_grad()
def _into_previous(layer: Any, function: Affine) -> None:
    """Multiply the norm into the layer whose output it takes."""
    weight = layer.weight.double()
    if isinstance(layer, _TRANSPOSED):  # (in, out / groups, *kernel)
        split = weight.unflatten(0, (layer.groups, -1))
        scale = function.scale.view(layer.groups, 1, -1, *(1,) * (weight.dim() - 2))
        scaled = (split * scale).flatten(0, 1)
    else:  # (out, in / groups, *kernel)
        scaled = weight * function.scale.view(-1, *(1,) * (weight.dim() - 1))
    bias = function.shift if layer.bias is None else function.scale * layer.bias.double() + function.shift
    _write(layer, scaled, bias)


@torch.no_grad()
def _into_next(layer: Any, function: Affine) -> None:
    """Multiply the norm into the layer that takes its output."""
    weight = layer.weight.double()
    groups = getattr(layer, "groups", 1)
    split = weight.unflatten(0, (groups, -1))  # (groups, out / groups, in / groups, *kernel)
    shape = (groups, 1, -1, *(1,) * (weight.dim() - 2))
    moved = (split * function.shift.view(shape)).flatten(0, 1).flatten(1).sum(1)
    scaled = (split * function.scale.view(shape)).flatten(0, 1)
    _write(layer, scaled, moved if layer.bias is None else layer.bias.double() + moved)


def _write(layer: Any, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    if layer.bias is None:
        layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=layer.weight.requires_grad)
    else:
        layer.bias.copy_(bias)
