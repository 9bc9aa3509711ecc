"""The condition numbers of a small network's Hessians during training, with and without preconditioning.

A fully connected ReLU network is trained on MNIST images averaged down to 7x7, without normalization and with plain
SGD, once as it is and once preconditioned. At some states the Hessian of the loss is computed in float64 for the
weights and bias of each unit: H, and P H, where P is the matrix by which preconditioning multiplies gradients. The
condition number only counts eigenvalues above 1e-12 times the largest.
"""

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.data import load
from gbn.optim import BatchNormPreconditioner
from gbn.plot_style import Picture

UNITS, BATCH, RATES = 32, 64, {"none": 0.05, "bnp": 0.05}
FLOOR = 1e-12
STATES = (0, 10, 30, 100, 300)
COLUMNS = ("trained", "seed", "update", "loss", "layer", "unit", "plain", "preconditioned")
MADE = ("device_kind", "torch", "commit", "date")


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


def medians(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int, int], tuple[float, float, float]]:
    """Return (trained, layer, update) -> medians over units and seeds: both condition numbers and their ratio."""
    found: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    for row in rows:
        key = (row["trained"], int(row["layer"]), int(row["update"]))
        found.setdefault(key, []).append((float(row["plain"]), float(row["preconditioned"])))
    return {
        key: (
            statistics.median(plain for plain, _ in pairs),
            statistics.median(after for _, after in pairs),
            statistics.median(plain / after for plain, after in pairs),
        )
        for key, pairs in found.items()
    }


def summary(rows: Sequence[dict[str, Any]], origin: Sequence[str]) -> str:
    """Return the table, from the CSV's rows."""
    lines = [
        "# Condition numbers of Hessians, with and without preconditioning",
        "",
        "Made from `hessian.csv` by `python scripts/hessian_condition.py --render "
        "results/preconditioning/hessian.csv`; change no number here. What is measured: the head of that script.",
        "Medians over the units of a layer and over seeds; the last column is the median of the units' own ratios.",
        "",
        "| trained by | layer | update | H | P H | H / P H |",
        "|---|---|---|---|---|---|",
    ]
    for (trained, layer, update), (plain, after, ratio) in sorted(medians(rows).items()):
        lines.append(f"| {trained} | {layer} | {update} | {plain:.3g} | {after:.3g} | {ratio:.3g} |")
    return "\n".join([*lines, "", *origin, ""])


def picture(rows: Sequence[dict[str, Any]]) -> Picture:
    """Left: each unit of the first layer and of the others at the start; right: medians along training."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from gbn.plot_style import COLORS, DPI, RC, WIDTH

    at_start = [row for row in rows if int(row["update"]) == 0 and row["trained"] == "none"]
    table = medians(rows)
    layers = sorted({layer for _, layer, _ in table})
    with mpl.rc_context(dict(RC)):
        figure = Figure(figsize=(WIDTH, 0.42 * WIDTH), dpi=DPI, layout="constrained")
        units, course = figure.subplots(1, 2, width_ratios=(1, 1.25))
        for layer, marker in zip(layers, "os^", strict=False):
            points = [
                (float(r["plain"]), float(r["preconditioned"])) for r in at_start if int(r["layer"]) == layer
            ]
            units.plot(
                *zip(*points, strict=True),
                marker,
                ms=3,
                alpha=0.6,
                color=COLORS[layer],
                label=f"layer {layer}",
                linestyle="none",
            )
        highest = max(float(row["plain"]) for row in at_start)
        units.plot([1, highest], [1, highest], color="0.5", linewidth=0.8)
        units.set(xscale="log", yscale="log", xlabel="condition number of H", ylabel="of P H")
        units.set_title("a point a unit, at the start; line: no change", fontsize=7)
        units.legend(frameon=False, fontsize=6.5)
        updates = sorted({update for _, _, update in table})
        for layer in layers:
            for trained, style in (("none", "-"), ("bnp", "--")):
                for which in (0, 1):
                    course.plot(
                        [max(update, 3) for update in updates],  # 0 does not fit on a logarithmic axis
                        [table[trained, layer, update][which] for update in updates],
                        linestyle=style,
                        marker="o" if which == 0 else "x",
                        ms=3,
                        linewidth=1,
                        color=COLORS[layer],
                    )
        course.set(xscale="log", yscale="log", xlabel="update (0 is drawn at 3)", ylabel="median over units")
        course.set_title("along training: solid without, dashed with preconditioning", fontsize=7)
        for marker, name in (("o", "H"), ("x", "P H")):
            course.plot([], [], marker=marker, ms=3, color="0.3", linestyle="none", label=name)
        course.legend(frameon=False, fontsize=6.5, loc=(0.02, 0.62))
        return Picture("bnp-hessian", figure)


def rendered(rows: Sequence[dict[str, Any]]) -> tuple[str, Picture]:
    """Return the table and the figure of a CSV's rows."""
    origin = [f"- {key.replace('_', ' ')}: {rows[0][key]}" for key in MADE]
    return summary(rows, origin), picture(rows)
