"""The pairs that have fused kernels; a registered pair without them runs on the reference, and its tests with it."""

from gbn import risk
from gbn.kernels.plan import lowers

#: Names of quadrangles.
FUSED = [name for name in risk.QUADRANGLES if lowers(risk.quadrangle(name).S, risk.quadrangle(name).D)]
