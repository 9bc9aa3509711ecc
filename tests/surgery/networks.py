"""Small networks with trained-looking batch normalization."""

import torch
from torch import Tensor, nn


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give norms the parameters and averages of a trained network, and return the model in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def fill(tensor: Tensor, low: float, high: float) -> None:
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for layer in model.modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        if layer.affine:
            fill(layer.weight, 0.5, 1.5)
            fill(layer.bias, -0.5, 0.5)
        if layer.running_mean is not None and layer.running_var is not None:
            fill(layer.running_mean, -0.5, 0.5)
            fill(layer.running_var, 0.5, 2.0)
            assert layer.num_batches_tracked is not None
            layer.num_batches_tracked.fill_(7)
    return model.eval()


class Block(nn.Module):
    """A residual block whose activation is one module used twice, as in torchvision."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + x)


def network(seed: int = 0) -> nn.Sequential:
    """A network of about every kind of neighborhood; takes (N, 3, H, W)."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, eps=1e-3, momentum=0.2), nn.ReLU()),
        Block(8),
        nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2),
        nn.BatchNorm2d(6, momentum=None),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
        nn.BatchNorm1d(10),
    )
    return randomize(model, seed)  # type: ignore[return-value]


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(9))
