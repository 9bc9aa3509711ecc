"""Recordings of each normalizer's input and behavior during training, to explain a curve.

At some points of the curve a :class:`LayerRecorder` records for every normalizer of the network:

* activations, over one fixed batch of training images without augmentation, in training mode at the weights
  after the update: :mod:`gbn.engine.recording.activations` lists them; also ``dead``, the share of channels that a
  ReLU zeroes on the whole batch;
* ``gain`` and ``bias`` after the update;
* the update that led there, from the gradients given to the optimizer (after any clipping), where w is the weight,
  before the update, of the convolution or linear layer whose output the normalizer receives:
  ``gradient_weight``, ``gradient_gain``, ``gradient_bias`` (2-norms of dL/dw, ...), ``weight_norm`` = \\|w\\|,
  ``relative_update`` = \\|w_new - w\\| / \\|w\\|, and ``effective_rate`` = lr / \\|w\\|^2, the learning
  rate of the direction w / \\|w\\| under gradient descent if a normalizer makes the scale of w irrelevant (van
  Laarhoven, L2 Regularization versus Batch and Weight Normalization, arXiv 1706.05350).

Recording changes no number of the run: the forward pass uses copies of the buffers with dropout off, modes are
restored, no random stream advances, and gradients and parameters are only read. (This can't be guaranteed for a
third-party layer that keeps state outside its buffers.) The training clock is stopped meanwhile.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.data import DeviceSet, subset
from gbn.engine.recording.activations import describe_input, describe_output, norm_of
from gbn.tasks.evaluation import restored_modes

#: Incremented when the definition of a quantity changes: recordings of different revisions are not compared.
REVISION = 1

#: The quantiles over channels that summarize a per-channel quantity: low, median, high.
QUANTILES = (0.1, 0.5, 0.9)

#: Significant digits kept: these are summaries of a sample, and files stay small.
DIGITS = 4

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def recording_grid(grid: Sequence[int], points: int) -> list[int]:
    """Return `points` of the ascending updates `grid`, evenly spread over it, including the first and last.

    >>> recording_grid([5, 11, 22, 47, 100], 3)
    [5, 22, 100]
    """
    if points == 1 or len(grid) == 1:
        return [grid[-1]]
    last = len(grid) - 1
    return sorted({grid[round(i * last / (points - 1))] for i in range(points)})


def normalizers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers made by the norm factory, by module path, in order of registration."""
    return {path: layer for path, layer in model.named_modules() if hasattr(layer, "norm_site")}


class LayerRecorder:
    """Records the normalizers of one model.

    Args:
        model: the model in training; its normalizers are the layers made by :func:`gbn.nn.norm_layer`.
        data: the training set.
        calibration: indices of training images, int64 (c,).
        images: size of the recording batch, drawn from ``calibration`` in proportion to the classes; all of them
            if there are fewer.
        autocast: creates the precision context of a forward pass.

    Raises:
        ValueError: there are fewer than two images to record with.
    """

    def __init__(
        self,
        model: nn.Module,
        data: DeviceSet,
        calibration: Tensor,
        images: int,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        count = min(images, len(calibration))
        if count < 2:
            raise ValueError(
                f"trainer.record.layers needs at least 2 images, got {count}: raise trainer.record.images "
                "and trainer.evaluation.calibration_images, or train without recording"
            )
        self.model, self.data, self.autocast = model, data, autocast
        self.indices = subset(data.labels.cpu(), count, calibration)
        self.layers = normalizers(model)
        self._weights: dict[str, Tensor] | None = None  # by the normalizer that they feed, found on first use
        self._before: dict[str, Tensor] = {}
        self._update: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def before_step(self, loss_scale: float = 1.0) -> None:
        """Read gradients and save weights; call it between the backward pass and the optimizer's step.

        Args:
            loss_scale: the factor by which the gradients are currently scaled (mixed precision).
        """
        if self._weights is None:
            self._weights = self._feeding()
        self._before = {path: weight.detach().clone() for path, weight in self._weights.items()}
        self._update = {}
        for path, layer in self.layers.items():
            norm = norm_of(layer)
            parts = {
                "gradient_weight": self._weights.get(path),
                "gradient_gain": getattr(norm, "weight", None),
                "gradient_bias": getattr(norm, "bias", None),
            }
            self._update[path] = {
                name: torch.linalg.vector_norm(part.grad.float()) / loss_scale
                for name, part in parts.items()
                if part is not None and part.grad is not None
            }

    @torch.no_grad()
    def record(self, update: int, rate: float) -> dict[str, Any]:
        """Return the recording after the update for which :meth:`before_step` was called.

        Args:
            update: number of updates made.
            rate: learning rate of the last one.

        Returns:
            Plain data, a line of ``layers.jsonl``: ``layers`` maps a module path to its quantities, each [low,
            median, high] of :data:`QUANTILES` over channels, or a single number. NaN means undefined.
        """
        measured = self._activations()
        for path, layer in self.layers.items():
            norm = norm_of(layer)
            for name, part in (("gain", "weight"), ("bias", "bias")):
                if isinstance(value := getattr(norm, part, None), Tensor):
                    measured[path][name] = value.detach().float().flatten()
        for path, before in self._before.items():
            assert self._weights is not None
            norm_before = torch.linalg.vector_norm(before.float())
            change = torch.linalg.vector_norm((self._weights[path].detach() - before).float())
            self._update[path] |= {
                "weight_norm": norm_before,
                "relative_update": change / norm_before,
                "effective_rate": rate / norm_before.square(),
            }
        layers = {
            path: _summaries(measured[path]) | _numbers(self._update.get(path, {})) for path in self.layers
        }
        self._before, self._update = {}, {}
        return {
            "update": update,
            "revision": REVISION,
            "images": len(self.indices),
            "lr": rate,
            "layers": layers,
        }

    def _activations(self) -> dict[str, dict[str, Tensor]]:
        """Return the per-channel quantities of each normalizer."""
        found: dict[str, dict[str, Tensor]] = {path: {} for path in self.layers}

        def watch(path: str, layer: nn.Module, hooks: ExitStack) -> None:
            site: Any = layer.norm_site

            def before(module: nn.Module, args: tuple[Any, ...]) -> None:
                found[path] |= describe_input(module, args[0])

            def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
                found[path] |= describe_output(site.act, output)

            for handle in (layer.register_forward_pre_hook(before), layer.register_forward_hook(after)):
                hooks.callback(handle.remove)

        with ExitStack() as hooks:
            for path, layer in self.layers.items():
                watch(path, layer, hooks)
            self._forward(self.indices, training=True)
        return found

    def _feeding(self) -> dict[str, Tensor]:
        """Return the weight of the convolution or linear layer that feeds a normalizer, by the normalizer's path.

        A normalizer fed by anything else, the sum of a residual block say, has none.
        """
        made: dict[
            int, tuple[Tensor, nn.Module]
        ] = {}  # by the id of a layer's output, kept so that ids stay unique
        found: dict[str, Tensor] = {}

        def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            made[id(output)] = (output, module)

        def note(path: str) -> Callable[..., None]:
            def before(module: nn.Module, args: tuple[Any, ...]) -> None:
                weight = made[id(args[0])][1].weight if id(args[0]) in made else None
                if isinstance(weight, nn.Parameter):
                    found[path] = weight

            return before

        with ExitStack() as hooks:
            for module in self.model.modules():
                if isinstance(module, _LINEAR):
                    hooks.callback(module.register_forward_hook(after).remove)
            for path, layer in self.layers.items():
                hooks.callback(layer.register_forward_pre_hook(note(path)).remove)
            self._forward(self.indices[:2], training=False)
        return found

    def _forward(self, indices: Tensor, training: bool) -> None:
        """Run a forward pass that leaves buffers, modes and random streams unchanged."""
        images, _ = self.data.batch(indices)
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        devices = [images.device] if images.device.type == "cuda" else []
        with restored_modes(self.model), torch.random.fork_rng(devices), self.autocast():
            self.model.eval()
            for layer in self.layers.values():
                layer.train(training)
            torch.func.functional_call(self.model, buffers, (images,))


def _summaries(channels: dict[str, Tensor]) -> dict[str, Any]:
    """Return [low, median, high] over channels, ignoring undefined values, and the share of dead channels."""
    if not channels:
        return {}
    # A single tensor, so a GPU is waited for once; a third-party layer's gain or bias may have another length.
    longest = max(len(values) for values in channels.values())
    padded = [F.pad(values, (0, longest - len(values)), value=torch.nan) for values in channels.values()]
    table = torch.stack(padded).cpu()
    table[table.isinf()] = torch.nan
    levels = torch.nanquantile(table, torch.tensor(QUANTILES), dim=1).T.tolist()
    found: dict[str, Any] = {
        name: [_rounded(level) for level in three] for name, three in zip(channels, levels, strict=True)
    }
    if "active" in channels:
        found["dead"] = _rounded(float((channels["active"] == 0).float().mean()))
    return found


def _numbers(scalars: dict[str, Tensor]) -> dict[str, float]:
    return {name: _rounded(float(value)) for name, value in scalars.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
