"""Build torch's optimizers, and the preconditioner that precedes them, from their configuration section."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gbn.optim.preconditioning import BatchNormPreconditioner


class _Eager(torch.optim.Optimizer):
    """Mixin for a torch optimizer: the same numbers, without importing ``torch._dynamo``.

    Torch decorates these methods to keep torch.compile out of them. On the first call the decorators import the
    tracer, which takes seconds and is needed only by torch.compile; ``inspect.unwrap`` bypasses them.
    """

    def __init_subclass__(cls) -> None:
        for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
            setattr(cls, name, inspect.unwrap(getattr(cls, name)))
        cls.step = torch.no_grad()(inspect.unwrap(cls.step))  # type: ignore[method-assign] # unwrap drops no_grad


class SGD(_Eager, torch.optim.SGD):
    """:class:`torch.optim.SGD`."""


class Adam(_Eager, torch.optim.Adam):
    """:class:`torch.optim.Adam`."""


class AdamW(_Eager, torch.optim.AdamW):
    """:class:`torch.optim.AdamW`."""


class NAdam(_Eager, torch.optim.NAdam):
    """:class:`torch.optim.NAdam`."""


class RMSprop(_Eager, torch.optim.RMSprop):
    """:class:`torch.optim.RMSprop`."""


def build_optimizer(model: nn.Module, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Return the optimizer of a model: torch's own, except that it does not import the compiler (:class:`_Eager`).

    Args:
        model: its parameters that require a gradient are optimized.
        options: the section ``optimizer``: name (sgd, adam, adamw, nadam, rmsprop), lr, weight_decay, decay
            (``all``: every parameter decays, as in most published recipes; ``weights``: only tensors of two or
            more dimensions, so neither biases nor the gain and bias of a normalizer), and the optimizer's own keys.

    Raises:
        ValueError: an unknown optimizer, or a model without a trainable parameter.
    """
    groups = _parameter_groups(model, options["weight_decay"], options["decay"])
    name, lr = options["name"], options["lr"]
    if name == "sgd":
        return SGD(groups, lr=lr, momentum=options["momentum"], nesterov=options["nesterov"])
    if name == "rmsprop":
        return RMSprop(
            groups, lr=lr, alpha=options["alpha"], momentum=options["momentum"], eps=options["eps"]
        )
    betas = (options.get("beta1", 0.9), options.get("beta2", 0.999))
    if name == "adam":
        return Adam(groups, lr=lr, betas=betas, eps=options["eps"])
    if name == "adamw":
        return AdamW(groups, lr=lr, betas=betas, eps=options["eps"])
    if name == "nadam":
        return NAdam(groups, lr=lr, betas=betas, eps=options["eps"])
    raise ValueError(f"unknown optimizer {name!r}; allowed: sgd, adam, adamw, nadam, rmsprop")


def build_preconditioner(model: nn.Module, options: Mapping[str, Any]) -> BatchNormPreconditioner | None:
    """Return the preconditioner, which rewrites the model's gradients before the optimizer's step, or None.

    Args:
        model: gets hooks if there is a preconditioner.
        options: the section ``optimizer``: ``precondition`` (none, bnp) and, for bnp, the section ``bnp`` with the
            options of :class:`BatchNormPreconditioner` and its revision.

    Raises:
        ValueError: an unknown preconditioner, or a model that cannot be preconditioned.
    """
    name = options.get("precondition", "none")
    if name == "none":
        return None
    if name == "bnp":
        own = {key: value for key, value in (options.get("bnp") or {}).items() if key != "revision"}
        return BatchNormPreconditioner(model, **own)
    raise ValueError(f"unknown preconditioner {name!r}; allowed: none, bnp")


def _parameter_groups(model: nn.Module, weight_decay: float, decay: str) -> list[dict[str, Any]]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter that requires a gradient: nothing to optimize")
    if decay == "all" or weight_decay == 0:
        return [{"params": parameters, "weight_decay": weight_decay}]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
