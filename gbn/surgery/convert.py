"""Swap the batch normalization layers of a network for another method, and back."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gbn import kernels
from gbn.methods import METHODS
from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.factory import NormFactory, norm_layer
from gbn.nn.first_batch import MeasuresFirstBatch
from gbn.nn.generalized import _GeneralizedBatchNorm
from gbn.nn.methods import accepted, build
from gbn.nn.mixture import _MixtureNorm
from gbn.nn.placement import Placement, Site, mark
from gbn.nn.statistics import call, on_device_of
from gbn.surgery.affine import Affine, NotAffine, evaluation_affine
from gbn.surgery.found import Norm, is_norm, name_of, read, why_not
from gbn.surgery.freeze import keep_frozen

__all__ = ["Change", "Conversion", "Where", "convert", "revert"]

#: A module path with wildcards, a class, a function of (path, layer), or several of these of which one must hold.
Where = str | type[nn.Module] | Callable[[str, nn.Module], bool]
_ORIGIN = "_converted_from"
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


@dataclasses.dataclass(frozen=True)
class Change:
    """A norm that was swapped: its module path, the classes before and after, and a remark."""

    path: str
    before: str
    after: str
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What :func:`convert` or :func:`revert` did; ``print`` shows it.

    Attributes:
        model: the network: the object that was given, unless that is itself a norm, or ``inplace`` was False.
        swapped: the norms that were swapped, in the order of the network.
        kept: (path, reason) of the norms that were not.
    """

    model: nn.Module
    swapped: tuple[Change, ...]
    kept: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} norms swapped, {len(self.kept)} kept"]
        rows = [
            (one.path or "(the model)", f"{one.before} -> {one.after}", one.remark) for one in self.swapped
        ]
        rows += [(path or "(the model)", "kept", reason) for path, reason in self.kept]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        return "\n".join(
            (*lines, *(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows))
        )


class _Known(NamedTuple):
    """A layer's function in evaluation mode, and mean and standard deviation of its input, as far as it knows."""

    function: Affine
    mean: Tensor
    sigma: Tensor


@dataclasses.dataclass
class _Origin:
    """What :func:`revert` needs: the layer that was swapped out, and gain and bias before and after a match."""

    layer: nn.Module
    before: tuple[Tensor | None, Tensor | None]
    matched: tuple[Tensor | None, Tensor | None] | None = None
    fused: nn.Module | None = None  # the activation module that was taken into the layer


def convert(
    model: nn.Module,
    method: str | NormFactory,
    *,
    where: Where | Sequence[Where] | None = None,
    act: Literal["keep", "fuse"] = "keep",
    match: Literal["function"] | None = None,
    batches: Iterable[Any] | None = None,
    forward: Callable[[Any], object] | None = None,
    inplace: bool = True,
    **options: Any,
) -> Conversion:
    """Swap the batch normalization layers of ``model`` for a method of this package.

    BatchNorm1d/2d/3d, SyncBatchNorm, torchvision's FrozenBatchNorm2d, timm's BatchNormAct2d and this package's own
    batch-statistics layers are swapped. Kept are gain and bias (the same ``Parameter`` objects, so an optimizer that
    holds them goes on), eps, momentum, ``affine``, ``track_running_stats``, device, dtype, the training flag, hooks,
    parametrizations, tied modules and module paths; and the running averages where they mean the same.

    Args:
        model: any module, trained or not.
        method: as in :func:`gbn.nn.norm_layer` (``"gbn_cvar"``, ``"gbn"``, ``"iebn"``, ``"bn"``, ...), or a factory
            made by it.
        where: which of them: a module path with wildcards (``"layer4.*"``), a class, a function of (path, layer), or
            a list of these, of which one must hold. None: all.
        act: ``"keep"`` leaves activations where they are. ``"fuse"`` takes an activation that directly follows its
            norm in an ``nn.Sequential`` into the layer, which saves a pass over the data; an ``nn.Identity`` stays
            in its place. An activation inside the swapped layer, as in timm, is always taken over.
        match: ``"function"`` sets gain, bias and running averages so that the network computes what it computed: in
            evaluation mode exactly, whatever the data; in training as far as S = mean + k sigma and D = c sigma,
            with k and c measured on ``batches`` or, without these, those of a Gaussian. This is how to convert a
            pretrained network. None keeps gain and bias as numbers, and a pair other than (mean, std) starts with
            new running averages.
        batches: data to measure S and D on for ``match``, as in :func:`gbn.calibrate`; a handful is enough.
        forward: how to call the model with one of ``batches``, as in :func:`gbn.calibrate`.
        inplace: False leaves ``model`` as it is and converts a copy.
        **options: options of the method, such as ``alpha=0.9``; ``eps`` and ``momentum`` replace the layers' own.

    Returns:
        what was swapped and kept, and the model.

    Raises:
        ValueError: for an unknown method or option, a ``where`` that selects nothing (the message lists the norms), a
            lazy layer, a match of layers that are not affine in evaluation mode, or ``batches`` without ``match``.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> print(convert(model, "gbn_cvar", alpha=0.75, act="fuse"))
        1 norms swapped, 0 kept
          1  BatchNorm2d -> GeneralizedBatchNorm2d  relu fused
    """
    if act not in ("keep", "fuse"):
        raise ValueError(f"act={act!r} is not allowed: keep or fuse")
    if match not in (None, "function"):
        raise ValueError(f"match={match!r} is not allowed: 'function' or None")
    if batches is not None and match is None:
        raise ValueError(
            "batches are measured for match='function' only: add it, or call gbn.calibrate afterwards"
        )
    if isinstance(method, NormFactory) and options:
        raise ValueError(f"a factory has its options already: leave out {', '.join(options)}")
    factory = method if isinstance(method, NormFactory) else norm_layer(method, **options)
    if factory.placement != Placement() or factory.without_act != "same":
        raise ValueError("placement and without_act are for networks built by a factory: say `where` instead")
    explicit = {key: factory.options[key] for key in accepted(METHODS["bn"]) if key in options}
    if not inplace:
        model = copy.deepcopy(model)
    chosen, kept = _choose(model, where)
    if match is not None and (
        shared := next((p[0] for p, one in chosen if shares_parameters(model, one)), None)
    ):
        raise ValueError(
            f"match='function' sets gain and bias, and norm {shared!r} shares them with another module: leave it out "
            "by `where`, or convert without match"
        )
    swaps: list[_Swap] = []
    try:
        for paths, old in chosen:
            model = _swap(model, paths, old, swaps, factory, explicit, act, match)
        if match is not None:
            if batches is None:
                for swap in swaps:
                    _gaussian(swap.new, swap.paths[0])
            else:
                _measure(model, swaps, batches, forward)
            for swap in swaps:
                _check_matched(swap)
    except BaseException:
        for swap in swaps:  # all or nothing
            model = _put_back(model, swap.paths, swap.origin)
            _set_affine(swap.origin.layer, swap.origin.before)
        raise
    fresh = [swap.paths[0] for swap in swaps if not swap.adopted and match is None]
    if fresh:
        warnings.warn(
            f"the running averages of {len(fresh)} norms ({fresh[0]}, ...) start anew: they mean something else in "
            "the new layers. Train, or call gbn.calibrate(model, batches), before evaluation; to keep the function "
            "of a trained network, convert it with match='function'",
            stacklevel=2,
        )
    return Conversion(model, tuple(swap.change for swap in swaps), tuple(kept))


def _swap(
    model: nn.Module,
    paths: list[str],
    old: nn.Module,
    swaps: list[_Swap],
    factory: NormFactory,
    explicit: dict[str, Any],
    act: str,
    match: str | None,
) -> nn.Module:
    """Swap one norm, add it to ``swaps``, and return the model."""
    norm = read(old)
    fused = _activation_after(model, paths) if act == "fuse" and norm.act is None else None
    name = norm.act if fused is None else name_of(fused[1])
    new = _build(factory, norm, name, explicit, old)
    origin = _Origin(old, _snapshot(old), fused=None if fused is None else fused[1])
    known = _known(old, paths[0]) if match else None
    remark = "" if fused is None else f"{name} fused"
    change = Change(paths[0], type(old).__name__, type(new).__name__, remark)
    swaps.append(_Swap(paths, new, origin, known, change, adopted=_take_over(old, new)))
    vars(new)[_ORIGIN] = origin
    for path in paths:
        model = _put(model, path, new)
    if fused is not None:
        model = _put(model, fused[0], nn.Identity())
    if known is not None:
        _match(new, known, paths[0])
    return model


def _put_back(model: nn.Module, paths: Sequence[str], origin: _Origin) -> nn.Module:
    for path in paths:
        model = _put(model, path, origin.layer)
    return model if origin.fused is None else _put(model, _following(model, paths[0]), origin.fused)


def revert(model: nn.Module, *, inplace: bool = True) -> Conversion:
    """Put back the layers that :func:`convert` swapped out: their classes, options and running averages.

    Right after a conversion this restores the network bit for bit. Gains and biases that have been trained since
    are kept as numbers; after ``match="function"``, they are set so that the network computes what it computes now in
    evaluation mode, as far as the original layer can: exactly for every layer that is affine there.

    Args:
        model: a converted network.
        inplace: False leaves ``model`` as it is and reverts a copy.

    Raises:
        ValueError: if no layer of the model was converted.
    """
    if not inplace:
        model = copy.deepcopy(model)
    found = [(paths, layer) for paths, layer in _modules(model) if _ORIGIN in vars(layer)]
    if not found:
        raise ValueError("this model has no layer that gbn.convert swapped in")
    changes = []
    for paths, layer in found:
        origin: _Origin = vars(layer)[_ORIGIN]
        old = origin.layer
        parameters = _gain_and_bias(layer)
        _to_device_of(old, layer)
        if origin.matched is not None:
            if _equal(parameters, origin.matched):
                _set_affine(old, origin.before)
            else:
                _set_function(old, evaluation_affine(layer), paths[0])
        vars(old).pop("train", None)
        old.train(layer.training)
        keep_frozen(layer, old)
        model = _put_back(model, paths, origin)
        changes.append(Change(paths[0], type(layer).__name__, type(old).__name__))
    return Conversion(model, tuple(changes), ())


@dataclasses.dataclass(frozen=True)
class _Swap:
    paths: list[str]
    new: nn.Module
    origin: _Origin
    known: _Known | None  # None without a match
    change: Change
    adopted: bool  # whether the running averages mean the same


def _modules(model: nn.Module) -> list[tuple[list[str], nn.Module]]:
    """Return each module once, with all of its paths."""
    found: dict[int, tuple[list[str], nn.Module]] = {}
    for path, layer in model.named_modules(remove_duplicate=False):
        found.setdefault(id(layer), ([], layer))[0].append(path)
    return list(found.values())


def _choose(
    model: nn.Module, where: Where | Sequence[Where] | None
) -> tuple[list[tuple[list[str], nn.Module]], list[tuple[str, str]]]:
    """Return the norms to be swapped, and (path, reason) of those that are not."""
    conditions = [where] if isinstance(where, str | type) or callable(where) else list(where or ())
    norms = [(paths, layer) for paths, layer in _modules(model) if is_norm(layer)]
    chosen, kept = [], []
    hit = [False] * len(conditions)
    for paths, layer in norms:
        holds = [any(_holds(one, path, layer) for path in paths) for one in conditions]
        hit = [a or b for a, b in zip(hit, holds, strict=True)]
        by_class = any(yes and isinstance(one, type) for yes, one in zip(holds, conditions, strict=True))
        reason = why_not(layer)
        lazy = reason is not None and reason.startswith("lazy")
        if conditions and not any(holds):
            kept.append((paths[0], "not selected by where"))
        elif lazy:
            raise ValueError(f"norm {paths[0]!r} is {reason}")
        elif reason is not None and not (by_class and isinstance(layer, nn.modules.batchnorm._BatchNorm)):
            kept.append((paths[0], reason))
        else:
            chosen.append((paths, layer))
    for one, found in zip(conditions, hit, strict=True):
        if not found:
            raise ValueError(
                f"where={one!r} selects no norm of this model: {_listed(p[0] for p, _ in norms)}"
            )
    if not chosen:
        raise ValueError(
            f"this model has no batch normalization to swap: {_listed(f'{p} ({r})' for p, r in kept)}"
        )
    return chosen, kept


def _listed(items: Iterable[str]) -> str:
    names = [name or "(the model itself)" for name in items]
    shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    return f"its norms are {shown}" if names else "it has none"


def _holds(condition: Where, path: str, layer: nn.Module) -> bool:
    if isinstance(condition, str):
        return fnmatchcase(path, condition)
    if isinstance(condition, type):
        return isinstance(layer, condition)
    return bool(condition(path, layer))


def _build(
    factory: NormFactory, norm: Norm, act: str | None, explicit: dict[str, Any], old: nn.Module
) -> nn.Module:
    """Return the new layer, with the old one's options where the method has them and none were given."""
    method = METHODS[factory.method]
    options = {
        **factory.options,
        **{key: value for key, value in norm.options.items() if key in accepted(method)},
        **explicit,
    }
    tensor = next(itertools.chain(old.parameters(), old.buffers()), None)
    place = {} if tensor is None else {"device": tensor.device, "dtype": tensor.dtype}
    site = Site(norm.num_features, act, norm.dim, "body")
    layer = mark(build(method, site, {**options, **place}), site)
    if isinstance(layer, BatchStatisticsNorm) and norm.input_dims != layer._input_dims:
        layer._input_dims = norm.input_dims  # type: ignore[misc]  # SyncBatchNorm takes any
    return layer


def _take_over(old: nn.Module, new: nn.Module) -> bool:
    """Move parameters, mode, hooks and averages from one layer to the other; return whether the averages fit."""
    if parametrize.is_parametrized(old):
        parametrize.transfer_parametrizations_and_params(old, new)
    for name in ("weight", "bias"):
        value, ours = getattr(old, name, None), getattr(new, name, None)
        if not isinstance(ours, nn.Parameter) or value is None:
            continue
        if isinstance(value, nn.Parameter):
            setattr(new, name, value)
        else:  # the buffers of a frozen layer
            ours.data.copy_(value)
            ours.requires_grad_(False)
    for hooks in _HOOKS:
        setattr(new, hooks, getattr(old, hooks))
    new.train(old.training)
    keep_frozen(old, new)
    ours, theirs = (dict(layer.named_buffers(recurse=False)) for layer in (new, old))
    averages = [name for name in theirs if name.startswith("running_")]
    if not all(name in ours and ours[name].shape == theirs[name].shape for name in averages):
        count = theirs.get("num_batches_tracked")
        untrained = count is not None and (count.is_meta or not count)
        return untrained or not any(name.startswith("running_") for name in ours)
    for name, values in theirs.items():
        if name in ours:
            ours[name].copy_(values)
    return True


def _gain_and_bias(layer: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    return getattr(layer, "weight", None), getattr(layer, "bias", None)


def _snapshot(layer: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    weight, bias = _gain_and_bias(layer)
    return (
        None if weight is None else weight.detach().clone(),
        None if bias is None else bias.detach().clone(),
    )


def _equal(ours: Sequence[Tensor | None], theirs: Sequence[Tensor | None]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(a is b or (a is not None and b is not None and torch.equal(a, b.to(a))) for a, b in pairs)


@torch.no_grad()
def _set_affine(layer: nn.Module, values: Sequence[Tensor | None]) -> None:
    for parameter, value in zip(_gain_and_bias(layer), values, strict=True):
        if parameter is not None and value is not None:
            parameter.copy_(value)


def _to_device_of(old: nn.Module, layer: nn.Module) -> None:
    tensor = next(itertools.chain(layer.parameters(), layer.buffers()), None)
    if tensor is not None:
        old.to(device=tensor.device, dtype=tensor.dtype)


def _known(old: Any, path: str) -> _Known:
    """Return the old layer's function in evaluation mode, and the mean and standard deviation that it knows."""
    if parametrize.is_parametrized(old):
        raise ValueError(
            f"match='function' sets gain and bias, which are parametrized in norm {path!r}: remove that"
        )
    try:
        function = evaluation_affine(old)
    except NotAffine as error:
        raise NotAffine(f"match='function' cannot keep norm {path!r}: {error}") from None
    if isinstance(old, _GeneralizedBatchNorm) and not old.pair.is_mean_and_std:
        location, spread = (buffer.double() for buffer in old.running() if buffer is not None)
        k, c = _gaussian(old, path)
        return _Known(function, location - k * spread / c, spread / c)
    return _Known(function, old.running_mean.double(), old.running_var.double().sqrt())


def _gaussian(layer: nn.Module, path: str) -> tuple[float, float]:
    """Return k and c of the layer's pair on a Gaussian; (0, 1) for (mean, std)."""
    if not isinstance(layer, _GeneralizedBatchNorm):
        return 0.0, 1.0
    try:
        return layer.pair.gaussian(layer.samples)
    except ValueError as error:
        raise ValueError(f"norm {path!r} can only be matched on data, add batches=...: {error}") from None


@torch.no_grad()
def _match(new: Any, known: _Known, path: str) -> None:
    """Set running averages, gain and bias of ``new`` so that it computes the function in evaluation mode."""
    if isinstance(new, _MixtureNorm) or (isinstance(new, MeasuresFirstBatch) and not new._is_measured):
        raise NotAffine(
            f"match='function' cannot set norm {path!r}: {type(new).__name__} takes its function from its "
            "first training batch"
        )
    if isinstance(new, _GeneralizedBatchNorm) and not new.pair.is_mean_and_std:
        try:
            k, c = _gaussian(new, path)
        except ValueError:  # measured afterwards; until then any values serve
            k, c = 0.0, 1.0
        _set_running(new, known.mean + k * known.sigma, c * known.sigma)
    elif isinstance(running := getattr(new, "running_mean", None), Tensor):
        running.copy_(known.mean)
        new.running_var.copy_(known.sigma.square())
    _set_function(new, known.function, path)


@torch.no_grad()
def _set_running(layer: _GeneralizedBatchNorm, location: Tensor, spread: Tensor) -> None:
    for buffer, value in zip(layer.running(), (location, spread), strict=True):
        assert buffer is not None
        buffer.copy_(value)


@torch.no_grad()
def _set_function(layer: nn.Module, target: Affine, path: str) -> None:
    weight, bias = _gain_and_bias(layer)
    if weight is None or bias is None:
        raise ValueError(
            f"match='function' sets gain and bias, and {type(layer).__name__} {path!r} lacks "
            f"{'both' if weight is None else 'its bias'}: convert without match, or from layers with affine=True"
        )
    weight.fill_(1.0)
    bias.fill_(0.0)
    try:
        unit = evaluation_affine(layer)
    except NotAffine as error:
        raise NotAffine(f"match='function' cannot set {path!r}: {error}") from None
    gain = target.scale / unit.scale
    weight.copy_(gain)
    # With the gain as it was rounded, so that its rounding does not move the result.
    bias.copy_(target.shift - weight.double() * unit.shift)


def _check_matched(swap: _Swap) -> None:
    """Remember the gain and bias of a match; raise ValueError if they are not finite."""
    values = _snapshot(swap.new)
    if not all(torch.isfinite(value).all() for value in values if value is not None):
        raise ValueError(
            f"match='function' found no finite gain and bias for norm {swap.paths[0]!r}: check the running averages "
            "of the model, and the batches"
        )
    swap.origin.matched = values


def _measure(
    model: nn.Module,
    swaps: Sequence[_Swap],
    batches: Iterable[Any],
    forward: Callable[[Any], object] | None,
) -> None:
    """Measure S and D of each new layer's input at the network's function, then match the layers again.

    In evaluation mode the network computes what it did before the conversion whatever S and D are, so that all layers
    can be measured in the same passes.
    """
    sums: dict[int, list[Any]] = {}
    handles = []
    seen = 0
    layers = [
        (swap.paths[0], swap.new, swap.known)
        for swap in swaps
        if swap.known is not None
        and isinstance(swap.new, _GeneralizedBatchNorm)
        and not swap.new.pair.is_mean_and_std
    ]

    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _GeneralizedBatchNorm)
        x = inputs[0].detach()
        _, s, d = kernels.normalize(
            x, None, None, layer.pair.statistic, layer.pair.deviation, layer.eps, None
        )
        total = sums.setdefault(id(layer), [0, 0.0, 0.0])
        total[0] += len(x)
        total[1] = total[1] + len(x) * s.double()
        total[2] = total[2] + len(x) * d.double()

    for _, layer, _ in layers:
        handles.append(layer.register_forward_pre_hook(observe))
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            for batch in batches:
                batch, count = on_device_of(model, batch)
                if count:
                    call(model, batch, forward)
                    seen += count
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    if seen == 0:
        raise ValueError("no images to measure S and D on: batches is empty")
    for path, layer, known in layers:
        if id(layer) not in sums:
            raise ValueError(
                f"norm {path!r} is not reached by the batches: leave it out by `where`, or match without them"
            )
        count, s, d = sums[id(layer)]
        _set_running(layer, s / count, d / count)
        _set_function(layer, known.function, path)


def _activation_after(model: nn.Module, paths: Sequence[str]) -> tuple[str, nn.Module] | None:
    """Return path and module of the activation that takes a norm's output, where nn.Sequential proves that."""
    if len(paths) != 1:
        return None
    parent, _, name = paths[0].rpartition(".")
    holder = model.get_submodule(parent) if paths[0] else None
    if not isinstance(holder, nn.Sequential) or type(holder).forward is not nn.Sequential.forward:
        return None
    names = [key for key, _ in holder.named_children()]
    following = names.index(name) + 1
    if following == len(names):
        return None
    act = holder[following]
    norm = holder[following - 1]
    watched = any(getattr(module, hooks) for module in (norm, act) for hooks in _HOOKS[:-1])
    uses = sum(module is act for _, module in model.named_modules(remove_duplicate=False))
    if watched or uses != 1 or name_of(act) is NotImplemented:
        return None
    return f"{parent}.{names[following]}" if parent else names[following], act


def _following(model: nn.Module, path: str) -> str:
    """Return the path of the next module in the ``nn.Sequential`` that holds a module."""
    parent, _, name = path.rpartition(".")
    names = [key for key, _ in model.get_submodule(parent).named_children()]
    return ".".join(filter(None, (parent, names[names.index(name) + 1])))


def shares_parameters(model: nn.Module, layer: nn.Module) -> bool:
    """Return whether a parameter of a layer is also a parameter of another module."""
    own = {id(parameter) for parameter in layer.parameters(recurse=False)}
    others = (module for module in model.modules() if module is not layer)
    return any(id(parameter) in own for other in others for parameter in other.parameters(recurse=False))


def _put(model: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    """Put a module at a path and return the model, which is the module itself for the empty path."""
    if not path:
        return layer
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, layer)
    return model
