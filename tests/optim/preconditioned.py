"""What the tests of preconditioning share."""

import torch
from torch import nn

from gbn.optim import BatchNormPreconditioner

BARE = {"rho": 0.0, "eps": 0.0, "eps_relative": 0.0, "fan_in_scale": "none"}


def train_once(model, x, loss=None, rate=0.1, **options):
    """One step of gradient descent on a nonlinear loss; the gradients that it took."""
    with BatchNormPreconditioner(model, **{**BARE, **options}) as preconditioner:
        model.zero_grad()
        (loss or (lambda out: out.square().sum() + out.sin().sum()))(model(x)).backward()
        preconditioner.precondition()
    gradients = [p.grad.clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p -= rate * p.grad
    return gradients


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 5)
    )
