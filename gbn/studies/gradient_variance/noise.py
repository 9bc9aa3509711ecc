"""The variation of the weight gradient from batch to batch, under several normalizers at equal weights.

The arms (such as the ways in which a gradient passes through a quantile) see the same weights, the same batches and
the same dropout; :mod:`gbn.studies.gradient_variance.moments` summarizes their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from gbn.seeding import derive
from gbn.studies.gradient_variance.moments import GROUPS, GradientSums
from gbn.tasks.evaluation import restored_modes

__all__ = ["measure", "weights_of"]


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return layer -> weight of convolutions and linear layers: every parameter with two or more dimensions.

    Gains and biases are left out: those of a normalizer are not weights that it could be invariant to.
    """
    return {name.removesuffix(".weight"): p for name, p in model.named_parameters() if p.ndim >= 2}


def measure(
    models: Mapping[str, nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    groups: int = GROUPS,
    seed: int = 0,
    unnormalized: Iterable[str] = ("head",),
) -> GradientSums:
    """Compute gradients of several models, equal in every parameter, on the same batches, in training mode.

    The parameters' own precision is used: no autocast, whatever the run was trained with.

    Parameters, buffers (running averages), modes and the global random stream are left unchanged; dropout draws the
    same for every model.

    Args:
        models: by arm.
        batches: images and labels; all of one size.
        loss: of (the model's output, labels), a scalar.
        groups: see :class:`GradientSums`.
        seed: of the stream that dropout draws from.
        unnormalized: layers not followed by a normalizer (absent ones are ignored), see :class:`GradientSums`.

    Raises:
        ValueError: models differ in a parameter, there is no model, or batches have different sizes.
    """
    _require_equal(models)
    weights = {arm: list(weights_of(model).values()) for arm, model in models.items()}
    first = weights_of(next(iter(models.values())))
    sums: GradientSums | None = None
    with restored_modes(*models.values()):
        for model in models.values():
            model.train()
        for index, (images, labels) in enumerate(batches):
            if sums is None:
                sizes = {layer: weight.numel() for layer, weight in first.items()}
                sums = GradientSums(
                    list(models),
                    sizes,
                    groups=groups,
                    batch_size=len(labels),
                    unnormalized=unnormalized,
                )
            elif len(labels) != sums.batch_size:
                raise ValueError(
                    f"a batch of {len(labels)} after batches of {sums.batch_size}: give batches of one size"
                )
            rows = [
                _gradient(model, weights[arm], images, labels, loss, derive(seed, "dropout", index))
                for arm, model in models.items()
            ]
            sums.add(torch.stack(rows), torch.cat([weight.flatten() for weight in first.values()]))
    if sums is None:
        raise ValueError("no batch was given: a variance needs at least two")
    return sums


def _gradient(
    model: nn.Module,
    weights: Sequence[nn.Parameter],
    images: Tensor,
    labels: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    seed: int,
) -> Tensor:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        value = loss(torch.func.functional_call(model, buffers, (images,)), labels)
        parts = torch.autograd.grad(value, weights)
    return torch.cat([part.flatten() for part in parts])


def _require_equal(models: Mapping[str, nn.Module]) -> None:
    if not models:
        raise ValueError("no model was given")
    (first, model), *others = models.items()
    expected = dict(model.named_parameters())
    for arm, other in others:
        given = dict(other.named_parameters())
        differing = sorted(given.keys() ^ expected.keys()) or [
            name for name, value in given.items() if not torch.equal(value, expected[name])
        ]
        if differing:
            raise ValueError(
                f"arms {first!r} and {arm!r} differ in {', '.join(differing)}: gradients are compared at equal "
                "weights only (gbn.studies.gradient_variance.states.at_weights copies them)"
            )
