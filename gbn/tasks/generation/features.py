"""The fixed networks whose features FID and KID compare: Inception with its standard weights, or this project's own.

Both take uint8 images (N, 3, H, W), as in image files, and return float32 features (N, d) on their device.
"""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gbn.config.features import INCEPTION_SHA256, description, folder


class FeatureError(RuntimeError):
    """A feature network is not available; the message is one line that says what to do."""


class FeatureNetwork(Protocol):
    """The network with which quality is measured.

    Attributes:
        suffix: suffix of the measures' names, ``own_<digest>`` or ``inception``.
        reference: "train" or "test": the real images with which generated ones are compared; never those that the
            network was trained on.
    """

    suffix: str
    reference: str

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (N, d) of uint8 images (N, 3, H, W)."""
        ...


class OwnFeatures:
    """The input of the last linear layer of a CIFAR-10 classifier, trained by ``gbn study features``.

    Args:
        device: where it computes, in float32.
        directory: folder of ``own.json`` and its weights; None for ``results/features``.

    Raises:
        FeatureError: the weights are missing, damaged, or not those that ``own.json`` describes.
    """

    def __init__(self, device: torch.device, directory: Path | None = None) -> None:
        about = description("own", directory)
        file = (directory or folder()) / about["file"]
        self.network = _classifier(about, _verified(file, about["sha256"])).to(device).eval()
        self.suffix, self.reference = f"own_{about['digest']}", str(about["reference"])
        self.size = int(about["image_size"])
        shape = (1, -1, 1, 1)
        self.mean = torch.tensor(about["mean"], device=device).view(shape)
        self.std = torch.tensor(about["std"], device=device).view(shape)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (N, d) of uint8 images (N, 3, 32, 32).

        Raises:
            ValueError: images of another size.
        """
        if images.shape[1:] != (3, self.size, self.size) or images.dtype != torch.uint8:
            raise ValueError(
                f"task.features=own takes uint8 images (N, 3, {self.size}, {self.size}), {images.dtype} "
                f"{tuple(images.shape)} were given: use task.features=inception for others"
            )
        return self.network((images.float() / 255 - self.mean) / self.std)


class InceptionFeatures:
    """The pooled features of Inception-V3 with the weights by which FID was defined, using torch-fidelity.

    Args:
        device: where it computes, in float32.

    Raises:
        FeatureError: torch-fidelity or the weights are not available.
    """

    suffix = "inception"
    reference = "train"  # the usual reference for CIFAR-10: all training images

    def __init__(self, device: torch.device) -> None:
        weights = _inception_weights()
        module = fidelity("feature_extractor_inceptionv3")
        path = str(weights)
        self.network = module.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=path
        ).to(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (N, 2048) of uint8 images (N, 3, H, W)."""
        return self.network(images)[0].float()


def feature_network(name: str, device: torch.device) -> FeatureNetwork:
    """Return the network that ``task.features`` names.

    Raises:
        FeatureError: it is not available.
    """
    return OwnFeatures(device) if name == "own" else InceptionFeatures(device)


def fidelity(module: str) -> Any:
    """Import and return a module of torch-fidelity.

    Raises:
        FeatureError: torch-fidelity is not installed.
    """
    import importlib

    from gbn.data.torchvision_shim import import_torchvision

    import_torchvision()  # first: a torchvision without its compiled library breaks torch-fidelity's import
    try:
        return importlib.import_module(f"torch_fidelity.{module}")
    except ModuleNotFoundError as error:
        raise FeatureError(
            "task=generation measures with torch-fidelity, which is not installed: pip install torch-fidelity"
        ) from error


def _verified(file: Path, sha256: str) -> Path:
    if not file.is_file():
        raise FeatureError(f"{file} is missing: take it from the checkout, or train a network of your own")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        raise FeatureError(
            f"{file} has the digest {found[:8]}, but the file next to it says {sha256[:8]}, so measures would get a "
            "wrong name: take both from the checkout, or train a network with `gbn study features --replace`"
        )
    return file


def _classifier(about: dict[str, Any], weights: Path) -> nn.Module:
    """Return the classifier without its last linear layer."""
    from gbn.models import build
    from gbn.nn import norm_layer

    network = build(
        norm_layer=norm_layer("bn"),
        in_channels=3,
        num_classes=about["classes"],
        image_size=about["image_size"],
        **about["network"],
    )
    network.head = nn.Identity()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network


def _inception_weights() -> Path:
    """Return the path of the weights, downloading them if necessary."""
    url = fidelity("feature_extractor_inceptionv3").URL_INCEPTION_V3
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=INCEPTION_SHA256, progress=False)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise FeatureError(
                f"the Inception weights are not available ({reason}): download {url} to {file}, or use "
                "task.features=own"
            ) from error
    return file
