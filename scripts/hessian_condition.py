"""The condition number of a layer's Hessian with and without batch normalization preconditioning, along training.

    python scripts/hessian_condition.py
    python scripts/hessian_condition.py --render results/preconditioning/hessian.csv

A fully connected ReLU network is trained on MNIST images that are averaged down to 7x7, without normalization and
with plain SGD, once as it is and once preconditioned. At some states the Hessian of the loss over 2,000 training
images is computed in float64 for the weights and the bias of each unit: H, and P H, P being what preconditioning
multiplies gradients with. Its condition number is that of the eigenvalues above 1e-12 of the largest. Writes
hessian.csv and .md into results/preconditioning and the figure results/figures/bnp-hessian.png, made from the CSV.
"""

import argparse
import csv
import itertools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench.environment import environment
from torch import Tensor, nn

from gbn.data import load
from gbn.optim import BatchNormPreconditioner

STATES = (0, 10, 30, 100, 300)
UNITS, BATCH, RATES = 32, 64, {"none": 0.05, "bnp": 0.05}
COLUMNS = ("trained", "seed", "update", "loss", "layer", "unit", "plain", "preconditioned")
FLOOR = 1e-12


def images_and_labels(count: int) -> tuple[Tensor, Tensor]:
    """`count` training images as (count, 49) in float64, averaged to 7x7 and standardised as a whole; labels."""
    found = load("mnist", None, False)
    images = torch.as_tensor(found.train_images[:count]).reshape(count, 1, 28, 28).double()
    images = F.avg_pool2d(images, 4).flatten(1)
    return (images - images.mean()) / images.std(), torch.as_tensor(found.train_labels[:count]).long()


def network(inputs: int, classes: int, seed: int) -> nn.Sequential:
    """Two hidden layers, He initialisation, biases zero, float64."""
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
    """The Hessians of the mean loss in (weights, bias) of each unit of the linear layer `place`.

    Beyond its pre-activation a, a ReLU network is linear almost everywhere, so with J = d logits / d a and the
    softmax's p each is the mean of J'(diag(p) - p p')J h h', h being the layer's inputs with a one appended.

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
    """What preconditioning multiplies a unit's gradient (weights, bias) with: unit gradients, rewritten by it."""
    columns = h.shape[1]
    layer = nn.Linear(columns, columns + 1, dtype=torch.float64)
    unit = torch.eye(columns + 1, dtype=torch.float64)
    with BatchNormPreconditioner(layer, rho=0.0, **options) as preconditioner:
        layer(h)
        layer.weight.grad, layer.bias.grad = unit[:, :-1].clone(), unit[:, -1].clone()
        preconditioner.precondition()
    return torch.cat((layer.weight.grad, layer.bias.grad[:, None]), dim=1)


def condition(hessian: Tensor, matrix: Tensor | None = None) -> float:
    """Largest over smallest eigenvalue of H, or of P H, of those above :data:`FLOOR` of the largest; NaN: none."""
    if matrix is not None:
        factor = torch.linalg.cholesky((matrix + matrix.T) / 2)
        hessian = factor.T @ hessian @ factor
    values = torch.linalg.eigvalsh(hessian)
    values = values[values > FLOOR * values[-1]]
    return float(values[-1] / values[0]) if len(values) else float("nan")


def measure(seeds: Sequence[int], count: int, states: Sequence[int]) -> list[dict[str, Any]]:
    """A row a unit, state, seed and way of training."""
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
    model.eval()  # so that no hook takes these images for a step's
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
    """(trained, layer, update) -> medians over units and seeds: of both condition numbers, and of their ratio."""
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
    """The table, from the CSV's rows."""
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


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Left: each unit of the first layer and of the others at the start; right: medians along training."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from gbn.figures.style import COLOURS, DPI, RC, WIDTH

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
                color=COLOURS[layer],
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
                        [max(update, 3) for update in updates],  # 0 has no place on a logarithmic axis
                        [table[trained, layer, update][which] for update in updates],
                        linestyle=style,
                        marker="o" if which == 0 else "x",
                        ms=3,
                        linewidth=1,
                        color=COLOURS[layer],
                    )
        course.set(xscale="log", yscale="log", xlabel="update (0 is drawn at 3)", ylabel="median over units")
        course.set_title("along training: solid without, dashed with preconditioning", fontsize=7)
        for marker, name in (("o", "H"), ("x", "P H")):
            course.plot([], [], marker=marker, ms=3, color="0.3", linestyle="none", label=name)
        course.legend(frameon=False, fontsize=6.5, loc=(0.02, 0.62))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def main(argv: list[str] | None = None) -> int:
    """Measure, write, render; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, default=2, help="networks (default 2)")
    parser.add_argument("--images", type=int, default=2000, help="images of the loss (default 2000)")
    parser.add_argument("--states", type=int, nargs="+", default=list(STATES), help="updates to look at")
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="gets preconditioning/ and figures/"
    )
    parser.add_argument("--render", type=Path, metavar="CSV", help="make table and figure again, no more")
    args = parser.parse_args(argv)
    path = args.render or args.out / "preconditioning" / "hessian.csv"
    if args.render is None:
        rows = measure(range(args.seeds), args.images, sorted(args.states))
        path.parent.mkdir(parents=True, exist_ok=True)
        known = environment(torch.device("cpu"), "system")
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, [*COLUMNS, "device_kind", "torch", "commit", "date"], lineterminator="\n"
            )
            writer.writeheader()
            for row in rows:
                shown = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
                writer.writerow(shown | {k: known[k] for k in ("device_kind", "torch", "commit", "date")})
    with open(path, newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    origin = [
        f"- {key.replace('_', ' ')}: {read[0][key]}" for key in ("device_kind", "torch", "commit", "date")
    ]
    path.with_suffix(".md").write_text(summary(read, origin), encoding="utf-8", newline="\n")
    draw(read, path.parents[1] / "figures" / "bnp-hessian.png")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
