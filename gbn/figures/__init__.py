"""Figures that need nothing but arrays: :mod:`style` (what all figures look like), :mod:`segmentation`.

Below the engine, which draws while it trains, and the analysis, which draws what was trained. Imports no torch.
"""
