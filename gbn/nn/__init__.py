"""Norm layers: generalized batch normalization, its controls, related methods, and a factory for all of them.

``GeneralizedBatchNorm2d(64, quadrangle="cvar", alpha=0.75)`` is a drop-in replacement for
``torch.nn.BatchNorm2d(64)``; ``norm_layer("gbn", quadrangle="cvar", alpha=0.75)`` builds the layers of a network.
"""

from gbn.methods import METHODS, Method
from gbn.nn.adapters import as_timm, as_torchvision
from gbn.nn.batchnorm import BatchNormAct1d, BatchNormAct2d, BatchNormAct3d
from gbn.nn.controls import (
    MatchedBatchNorm1d,
    MatchedBatchNorm2d,
    MatchedBatchNorm3d,
    ReparametrizedBatchNorm1d,
    ReparametrizedBatchNorm2d,
    ReparametrizedBatchNorm3d,
)
from gbn.nn.factory import NormFactory, norm_layer
from gbn.nn.functional import generalized_batch_norm
from gbn.nn.generalized import GeneralizedBatchNorm1d, GeneralizedBatchNorm2d, GeneralizedBatchNorm3d
from gbn.nn.instance_enhancement import (
    InstanceEnhancementBatchNorm1d,
    InstanceEnhancementBatchNorm2d,
    InstanceEnhancementBatchNorm3d,
)
from gbn.nn.measured_controls import (
    InstanceEnhancementTrackingBatchNorm1d,
    InstanceEnhancementTrackingBatchNorm2d,
    InstanceEnhancementTrackingBatchNorm3d,
    MeasuredMatchedBatchNorm1d,
    MeasuredMatchedBatchNorm2d,
    MeasuredMatchedBatchNorm3d,
    MeasuredReparametrizedBatchNorm1d,
    MeasuredReparametrizedBatchNorm2d,
    MeasuredReparametrizedBatchNorm3d,
    TrackingBatchNorm1d,
    TrackingBatchNorm2d,
    TrackingBatchNorm3d,
)
from gbn.nn.mixture import MixtureNorm1d, MixtureNorm2d, MixtureNorm3d
from gbn.nn.mixture_controls import (
    MixtureMatchedBatchNorm1d,
    MixtureMatchedBatchNorm2d,
    MixtureMatchedBatchNorm3d,
    MixtureReparametrizedBatchNorm1d,
    MixtureReparametrizedBatchNorm2d,
    MixtureReparametrizedBatchNorm3d,
)
from gbn.nn.noise import add_constant_noise
from gbn.nn.placement import ROLES, Placement
from gbn.nn.simple import (
    Activation,
    GroupNormAct,
    InstanceNormAct1d,
    InstanceNormAct2d,
    InstanceNormAct3d,
    LayerNormAct,
)
from gbn.nn.statistics import calibrate, precise_statistics, tracking_layers

__all__ = [
    "METHODS",
    "ROLES",
    "Activation",
    "BatchNormAct1d",
    "BatchNormAct2d",
    "BatchNormAct3d",
    "GeneralizedBatchNorm1d",
    "GeneralizedBatchNorm2d",
    "GeneralizedBatchNorm3d",
    "GroupNormAct",
    "InstanceEnhancementBatchNorm1d",
    "InstanceEnhancementBatchNorm2d",
    "InstanceEnhancementBatchNorm3d",
    "InstanceEnhancementTrackingBatchNorm1d",
    "InstanceEnhancementTrackingBatchNorm2d",
    "InstanceEnhancementTrackingBatchNorm3d",
    "InstanceNormAct1d",
    "InstanceNormAct2d",
    "InstanceNormAct3d",
    "LayerNormAct",
    "MatchedBatchNorm1d",
    "MatchedBatchNorm2d",
    "MatchedBatchNorm3d",
    "MeasuredMatchedBatchNorm1d",
    "MeasuredMatchedBatchNorm2d",
    "MeasuredMatchedBatchNorm3d",
    "MeasuredReparametrizedBatchNorm1d",
    "MeasuredReparametrizedBatchNorm2d",
    "MeasuredReparametrizedBatchNorm3d",
    "Method",
    "MixtureMatchedBatchNorm1d",
    "MixtureMatchedBatchNorm2d",
    "MixtureMatchedBatchNorm3d",
    "MixtureNorm1d",
    "MixtureNorm2d",
    "MixtureNorm3d",
    "MixtureReparametrizedBatchNorm1d",
    "MixtureReparametrizedBatchNorm2d",
    "MixtureReparametrizedBatchNorm3d",
    "NormFactory",
    "Placement",
    "ReparametrizedBatchNorm1d",
    "ReparametrizedBatchNorm2d",
    "ReparametrizedBatchNorm3d",
    "TrackingBatchNorm1d",
    "TrackingBatchNorm2d",
    "TrackingBatchNorm3d",
    "add_constant_noise",
    "as_timm",
    "as_torchvision",
    "calibrate",
    "generalized_batch_norm",
    "norm_layer",
    "precise_statistics",
    "tracking_layers",
]
