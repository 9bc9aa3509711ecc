"""Builds the parts of a run from its configuration: network, batches, evaluation."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gbn.config.models import CustomModelConfig
from gbn.config.schema import Config, CustomDatasetConfig, DatasetConfig, LabeledConfig
from gbn.config.slices import CardiacConfig, SlicesConfig
from gbn.config.tasks import ClassificationConfig, GenerationConfig, SegmentationConfig
from gbn.data import (
    DeviceSet,
    ForeignImages,
    ImageSet,
    TrainLoader,
    data_root,
    fitted,
    load,
    load_custom,
    split,
    subset,
)
from gbn.data.segmentation.framing import Framing
from gbn.data.segmentation.segmentation_set import SegmentationSet, SliceSet
from gbn.data.segmentation.warp import Warp
from gbn.models import build, initialize
from gbn.nn import add_constant_noise, norm_layer
from gbn.nn.simple import GroupNormAct, largest_divisor
from gbn.store.identity import part_label
from gbn.tasks.classification.evaluation import Evaluator
from gbn.tasks.classification.task import Classification
from gbn.tasks.generation.evaluation import GenerationEvaluator, real_features
from gbn.tasks.generation.features import feature_network
from gbn.tasks.generation.task import MEAN, STD, Generation
from gbn.tasks.segmentation.evaluation import SegmentationEvaluator
from gbn.tasks.segmentation.task import Segmentation
from gbn.tasks.updates import precision_context

__all__ = ["build_data", "build_model", "data_digest", "load_data", "load_slices"]


def build_model(config: Config, images: ImageSet | SegmentationSet) -> nn.Module:
    """Return the network with its normalizers and the seed's initial values, on the CPU.

    Raises:
        ValueError: an option does not fit the network: a placement matches no norm, or groups don't divide the
            channels of a layer; a network of another package cannot be built, or does not map these images to logits.
    """
    norm = norm_layer(config.norm.method, **config.norm.options())
    options = config.model.model_dump(exclude={"name", "revision"})
    if config.optimizer.precondition != "none" and not isinstance(config.model, CustomModelConfig):
        options["bias"] = True  # preconditioning moves part of each step into the bias, even before a norm
    model = build(
        config.model.name,
        norm,
        in_channels=images.in_channels,
        num_classes=images.num_classes,
        image_size=images.image_size,
        **options,
    )
    model = norm.place(model)
    if "groups" in config.norm.fields:
        _check_groups(model, config.norm.groups)
    model = initialize(model, config.seed)
    if isinstance(config.model, CustomModelConfig) or isinstance(config.dataset, CustomDatasetConfig):
        _check_logits(config, model, images)
    if config.trainer.attack.constant is None:
        return model
    return add_constant_noise(model, *config.trainer.attack.constant)


def _check_logits(config: Config, model: nn.Module, images: ImageSet | SegmentationSet) -> None:
    """Nothing is known of the images, or of the network, before they meet: the schema could not check them."""
    shape = (images.in_channels, images.image_size, images.image_size)
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            made = model(torch.zeros(2, *shape))
        wrong = None if isinstance(made, Tensor) else f"it returns a {type(made).__name__}"
        if wrong is None and made.shape != (2, images.num_classes):
            wrong = f"for 2 of them it returns {tuple(made.shape)}"
    except Exception as error:  # their code
        wrong = " ".join(str(error).split()) or type(error).__name__
    model.train()
    if wrong:
        network, data = (part_label(part.model_dump()) for part in (config.model, config.dataset))
        raise ValueError(
            f"model={network} does not map images {shape} of dataset={data} to logits of {images.num_classes} "
            f"classes: {wrong}"
        )


def _check_groups(model: nn.Module, groups: int) -> None:
    """Check that groups divide channels: a layer would silently use fewer, and the run's id would be wrong."""
    layers = {name: one for name, one in model.named_modules() if type(one) is GroupNormAct}
    for name, layer in layers.items():
        if layer.num_groups != groups:
            common = math.gcd(*(one.num_channels for one in layers.values()))
            raise ValueError(
                f"norm.groups={groups} does not divide the {layer.num_channels} channels of {name}: "
                f"norm.groups={largest_divisor(common, groups)} fits all layers of this network"
            )


def build_data(
    config: Config, images: ImageSet | SegmentationSet, device: torch.device
) -> tuple[Any, Any, Any]:
    """Return (loader, evaluator, task) of a run, with the images on the device."""
    if isinstance(config.task, SegmentationConfig):
        assert isinstance(images, SegmentationSet)
        return _for_segmentation(config, config.task, images, device)
    assert isinstance(images, ImageSet)
    if isinstance(config.task, GenerationConfig):
        return _for_generation(config, config.task, images, device)
    return _for_classification(config, config.task, images, device)


def _for_classification(
    config: Config, options: ClassificationConfig, images: ImageSet, device: torch.device
) -> tuple[TrainLoader, Evaluator, Classification]:
    """Build the same for a classifier."""
    assert isinstance(config.dataset, LabeledConfig)
    shared: dict[str, Any] = {"device": device, "channels_last": config.trainer.channels_last}
    train = DeviceSet(
        images.train_images,
        images.train_labels,
        images.mean,
        images.std,
        augmentation=config.dataset.augment,
        **shared,
    )
    test = DeviceSet(images.test_images, images.test_labels, images.mean, images.std, **shared)
    training, validation = split(images.train_labels, config.dataset.validation, config.seed)
    if config.dataset.subset is not None:
        training = subset(images.train_labels, config.dataset.subset, training)
    evaluation = config.trainer.evaluation
    calibration = min(evaluation.calibration_images, len(training))
    task = Classification(options.label_smoothing)
    evaluator = Evaluator(
        task,
        train,
        test,
        validation=validation,
        calibration=subset(images.train_labels, calibration, training),
        slice_images=evaluation.images,
        exact=evaluation.exact,
        autocast=precision_context(config.trainer.precision, device),
    )
    loader = TrainLoader(
        train, training, config.trainer.batch_size, config.seed, _foreign(config, images, shared)
    )
    return loader, evaluator, task


def _for_generation(
    config: Config, options: GenerationConfig, images: ImageSet, device: torch.device
) -> tuple[TrainLoader, GenerationEvaluator, Generation]:
    """Build the same for a generator: real images in [-1, 1] to train on, and others to compare with."""
    assert isinstance(config.dataset, LabeledConfig)
    colors = images.in_channels
    train = DeviceSet(
        images.train_images,
        images.train_labels,
        [MEAN] * colors,
        [STD] * colors,
        augmentation=config.dataset.augment,
        device=device,
        channels_last=config.trainer.channels_last,
    )
    training, _ = split(images.train_labels, config.dataset.validation, config.seed)
    if config.dataset.subset is not None:
        training = subset(images.train_labels, config.dataset.subset, training)
    task = Generation(options.noise)
    network = feature_network(options.features, device)
    real, labels = images.test_images, images.test_labels
    if network.reference == "train":
        real, labels = images.train_images, images.train_labels
    evaluation = config.trainer.evaluation
    evaluator = GenerationEvaluator(
        task,
        network,
        real_features(network, real.to(device), labels, options.real_images, images.digest),
        seed=config.seed,
        images=evaluation.images,
        calibration=evaluation.calibration_images,
        exact=evaluation.exact,
        autocast=precision_context(config.trainer.precision, device),
        device=device,
    )
    return TrainLoader(train, training, config.trainer.batch_size, config.seed), evaluator, task


def load_data(config: Config) -> Any:
    """Load the data set of a configuration: an ImageSet or a SegmentationSet.

    Raises:
        DataError: the set is missing or broken.
        ValueError: the loader of another package cannot be loaded or returns something else.
    """
    chosen = config.dataset
    if isinstance(chosen, CustomDatasetConfig):
        assert chosen.target is not None
        return load_custom(chosen.target, chosen.kwargs, chosen.root, chosen.download)
    if isinstance(chosen, DatasetConfig):
        return load(chosen.name, chosen.root, chosen.download)
    return load_slices(chosen)


def data_digest(config: Config, images: ImageSet | SegmentationSet) -> str:
    """Return the digest of all files that a run is trained and tested on (:mod:`gbn.store.trained_on`).

    Raises:
        DataError: the data set of an attack is missing or broken.
    """
    attack = config.trainer.attack.dataset
    if attack is None or not isinstance(config.dataset, LabeledConfig):
        return images.digest
    foreign = load(attack, config.dataset.root, config.dataset.download).digest
    return f"2:{hashlib.sha256(f'{images.digest} {foreign}'.encode()).hexdigest()}"


def load_slices(options: SlicesConfig) -> SegmentationSet:
    """Load a set with masks as configured.

    Raises:
        DataError: the set is missing or broken; the message is one line that names the file.
    """
    framing = Framing(options.side, options.window, options.normalise, options.empty_slices)
    root = data_root(options.root)
    if isinstance(options, CardiacConfig):
        from gbn.data.segmentation.acdc import Patients, cardiac

        patients = Patients(
            options.patients, options.frames, options.split, options.test_fold, options.validation_fold
        )
        return cardiac(root, options.structures, patients, framing)
    from gbn.data.segmentation.sunnybrook import sunnybrook

    return sunnybrook(root, options.structures, framing=framing)


def _warp(options: SlicesConfig) -> Warp | None:
    """Return the configured warps."""
    if options.augment == "none":
        return None
    ranges = options.warp.model_dump()
    if options.augment == "affine":
        ranges["alpha"] = 0.0
    elif options.augment == "elastic":
        ranges |= dict.fromkeys(("rotation", "shift", "shear", "zoom"), 0.0)
    return Warp(**ranges)


def _for_segmentation(
    config: Config, options: SegmentationConfig, images: SegmentationSet, device: torch.device
) -> tuple[TrainLoader, SegmentationEvaluator, Segmentation]:
    """Build the same for masks."""
    assert isinstance(config.dataset, SlicesConfig)
    channels_last = config.trainer.channels_last
    train = SliceSet(
        images.train, device=device, channels_last=channels_last, augmentation=_warp(config.dataset)
    )
    task = Segmentation(images.structures, images.unit, options.cross_entropy, options.dice_over)
    evaluation = config.trainer.evaluation
    evaluator = SegmentationEvaluator(
        task,
        images,
        train,
        calibration=evaluation.calibration_images,
        slices=evaluation.images,
        exact=evaluation.exact,
        autocast=precision_context(config.trainer.precision, device),
        channels_last=channels_last,
    )
    indices = torch.arange(len(train))
    return TrainLoader(train, indices, config.trainer.batch_size, config.seed), evaluator, task


def _foreign(
    config: Config, images: ImageSet, shared: dict[str, Any]
) -> Callable[[Tensor, int], Tensor] | None:
    """Return what appends an attack's foreign images to a batch; None without an attack."""
    attack = config.trainer.attack
    if attack.dataset is None:
        return None
    assert isinstance(config.dataset, LabeledConfig)
    foreign = load(attack.dataset, config.dataset.root, config.dataset.download).train_images
    foreign = fitted(foreign, images.in_channels, images.image_size)
    return ForeignImages(
        foreign, images.mean, images.std, count=attack.images, seed=config.seed, **shared
    ).appended
