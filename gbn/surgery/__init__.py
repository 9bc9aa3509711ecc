"""Operations on anybody's network: swap its norms for others, keep its function, and turn it back for shipping.

``gbn.convert(model, "gbn_cvar")`` swaps, ``gbn.revert`` swaps back, ``gbn.calibrate`` measures running statistics on
data, ``gbn.freeze`` holds them; ``gbn.to_batchnorm`` and ``gbn.fold`` leave no layer of this package in a network.
"""

from gbn.nn.statistics import calibrate
from gbn.surgery.affine import Affine, NotAffine, evaluation_affine
from gbn.surgery.convert import Change, Conversion, convert, revert
from gbn.surgery.freeze import freeze, unfreeze
from gbn.surgery.ship import Folding, fold, to_batchnorm

__all__ = [
    "Affine",
    "Change",
    "Conversion",
    "Folding",
    "NotAffine",
    "calibrate",
    "convert",
    "evaluation_affine",
    "fold",
    "freeze",
    "revert",
    "to_batchnorm",
    "unfreeze",
]
