"""Initial values that depend only on the seed and on a parameter's own name.

PyTorch draws initial values in the order in which modules are built, so one more parameter anywhere changes
all that follow. Here each tensor has its own random stream, named by its qualified name: two arms that differ only
in their norms start from the same convolutions, so their comparison is paired.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gbn.seeding import derive


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> nn.Module:
    """Set the initial values of ``model`` in place and return it; the global random state is not touched.

    * Weights of convolutions and linear layers: He normal, fan in, gain for ReLU (He et al. 2015).
    * The classifier, the linear layer that is the model's attribute ``head``: uniform within
      +-1/sqrt(fan in), PyTorch's default, since no ReLU follows it. Its bias and all others: zero.
    * Other modules with parameters of their own and a ``reset_parameters``: whatever it draws from the module's own
      stream. A parameter with the same values under two streams is not random (the gain and bias of a norm): it
      keeps the value from its constructor, and so do buffers.
    * Other modules without ``reset_parameters`` keep the values from their constructor.
    * In a network with the attribute ``initial_std``, all weights of convolutions and linear layers are drawn from
      N(0, initial_std^2) instead (DCGAN's recipe), and their biases are zero.
    * Modules with a ``seed_stream`` (layers that draw numbers in training) get a stream under their own name.

    Values are drawn on the CPU in float32 and copied, so every device and precision starts from the same values.

    Args:
        model: the network; a tensor shared by two modules takes the first one's name.
        seed: the run's seed.
    """
    head, std = getattr(model, "head", None), getattr(model, "initial_std", None)
    for name, module in _with_own_parameters(model):
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and "weight" in module._parameters:
            _dense(name, module, seed, is_head=module is head, std=std)
        else:
            _foreign(name, module, seed)
    for name, module in model.named_modules():
        if callable(getattr(module, "seed_stream", None)):
            module.seed_stream(derive(seed, "stream", name))
    return model


def _with_own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that own parameters which no earlier module owns, with their qualified names."""
    seen: set[Tensor] = set()
    for name, module in model.named_modules():
        own = {parameter for parameter in module._parameters.values() if parameter is not None}
        if own - seen:
            yield name, module
        seen |= own


def _qualified(module_name: str, parameter_name: str) -> str:
    return f"{module_name}.{parameter_name}" if module_name else parameter_name


def _dense(name: str, module: nn.Module, seed: int, *, is_head: bool, std: float | None) -> None:
    weight, bias = module._parameters["weight"], module._parameters["bias"]
    assert weight is not None
    generator = torch.Generator().manual_seed(derive(seed, "init", _qualified(name, "weight")))
    value = torch.empty(weight.shape)
    if std is not None:
        value.normal_(0, std, generator=generator)
    elif is_head:
        bound = weight[0].numel() ** -0.5
        value.uniform_(-bound, bound, generator=generator)
    else:
        nn.init.kaiming_normal_(value, mode="fan_in", nonlinearity="relu", generator=generator)
    weight.copy_(value)
    if bias is not None:
        bias.zero_()


def _foreign(name: str, module: nn.Module, seed: int) -> None:
    if not callable(getattr(module, "reset_parameters", None)):
        return
    first = _reset_values(module, derive(seed, "init", name))
    second = _reset_values(module, derive(seed, "init", name, "again"))
    for key, value in first.items():
        if not torch.equal(value, second[key]):
            parameter = module._parameters[key]
            assert parameter is not None
            parameter.copy_(value)


def _reset_values(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return what ``reset_parameters`` draws from ``seed``, using a CPU copy to preserve buffers and random state."""
    twin = copy.deepcopy(module).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        twin.reset_parameters()  # type: ignore[operator]
    return {key: value for key, value in twin._parameters.items() if value is not None}
