"""The Hessians of a small network's units during training, for scripts/hessian_condition.py."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.data import load
from gbn.optim import BatchNormPreconditioner

UNITS, BATCH, RATES = 32, 64, {"none": 0.05, "bnp": 0.05}
FLOOR = 1e-12


def images_and_labels(count: int) -> tuple[Tensor, Tensor]:
    """Return `count` training images, (count, 49) in float64, averaged to 7x7 and standardized; and labels."""
    found = load("mnist", None, False)
    images = torch.as_tensor(found.train_images[:count]).reshape(count, 1, 28, 28).double()
    images = F.avg_pool2d(images, 4).flatten(1)
    return (images - images.mean()) / images.std(), torch.as_tensor(found.train_labels[:count]).long()


def network(inputs: int, classes: int, seed: int) -> nn.Sequential:
    """Return a network with two hidden layers, He initialization and zero biases, in float64."""
    sizes = [inputs, UNITS, UNITS, classes]
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layer = nn.Linear(fan_in, fan_out, dtype=torch.float64)
        nn.init.kaiming_normal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def unit_hessians(model: nn.Sequential, x: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """Return the Hessians of the mean loss in (weights, bias) of each unit of the linear layer `place`.

    After a unit's pre-activation a, a ReLU network is linear almost everywhere, so with J = d logits / d a and the
    softmax's p each is the mean of J'(diag(p) - p p')J h h', where h is the layer's inputs with a one appended.

    Returns:
        (units, columns + 1, columns + 1) and the inputs (images, columns).
    """
    with torch.no_grad():
        h = model[:place](x)
        a = model[place](h)
    a = a.requires_grad_()
    logits = model[place + 1 :](a)
    by_class = [
        torch.autograd.grad(logits[:, k].sum(), a, retain_graph=True)[0] for k in range(logits.shape[1])
    ]
    jacobian = torch.stack(by_class, dim=1)
    p = logits.detach().softmax(1)
    mean = torch.einsum("nk,nku->nu", p, jacobian)
    curvature = torch.einsum("nk,nku->nu", p, jacobian.square()) - mean.square()
    extended = torch.cat((h, torch.ones(len(h), 1, dtype=h.dtype)), dim=1)
    return torch.einsum("nu,ni,nj->uij", curvature / len(h), extended, extended), h


def preconditioner_matrix(h: Tensor, **options: Any) -> Tensor:
    """Return the matrix by which preconditioning multiplies a unit's gradient (weights, bias)."""
    columns = h.shape[1]
    layer = nn.Linear(columns, columns + 1, dtype=torch.float64)
    unit = torch.eye(columns + 1, dtype=torch.float64)
    with BatchNormPreconditioner(layer, rho=0.0, **options) as preconditioner:
        layer(h)
        layer.weight.grad, layer.bias.grad = unit[:, :-1].clone(), unit[:, -1].clone()
        preconditioner.precondition()
    return torch.cat((layer.weight.grad, layer.bias.grad[:, None]), dim=1)


def condition(hessian: Tensor, matrix: Tensor | None = None) -> float:
    """Return largest over smallest eigenvalue of H, or P H, above :data:`FLOOR` of the largest; NaN if none."""
    if matrix is not None:
        factor = torch.linalg.cholesky((matrix + matrix.T) / 2)
        hessian = factor.T @ hessian @ factor
    values = torch.linalg.eigvalsh(hessian)
    values = values[values > FLOOR * values[-1]]
    return float(values[-1] / values[0]) if len(values) else float("nan")


def measure(seeds: Sequence[int], count: int, states: Sequence[int]) -> list[dict[str, Any]]:
    """Return one row per unit, state, seed and kind of training."""
    x, y = images_and_labels(count)
    rows = []
    for seed in seeds:
        for trained in RATES:
            model = network(x.shape[1], 10, seed)
            optimizer = torch.optim.SGD(model.parameters(), lr=RATES[trained])
            order = torch.Generator().manual_seed(seed)
            preconditioner = BatchNormPreconditioner(model) if trained == "bnp" else None
            for update in range(max(states) + 1):
                if update in states:
                    rows += _state(model, x, y, {"trained": trained, "seed": seed, "update": update})
                batch = torch.randint(len(x), (BATCH,), generator=order)
                optimizer.zero_grad()
                F.cross_entropy(model(x[batch]), y[batch]).backward()
                if preconditioner is not None:
                    preconditioner.precondition()
                optimizer.step()
    return rows


def _state(model: nn.Sequential, x: Tensor, y: Tensor, known: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    with torch.no_grad():
        loss = float(F.cross_entropy(model(x), y))
    model.eval()  # so that no hook mistakes these images for a training step's
    for number, place in enumerate(range(0, len(model), 2), start=1):
        hessians, h = unit_hessians(model, x, place)
        matrix = preconditioner_matrix(h, fan_in_scale="none")
        for unit, hessian in enumerate(hessians):
            if bool(hessian.any()):  # a dead unit has none
                known = known | {"loss": loss, "layer": number, "unit": unit}
                rows.append(
                    known | {"plain": condition(hessian), "preconditioned": condition(hessian, matrix)}
                )
    model.train()
    return rows
