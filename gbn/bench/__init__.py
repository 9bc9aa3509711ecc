"""Code shared by the benchmark scripts: cases, the correctness gate, timing, files, goals.

Only needs torch and the layers (gbn.kernels, gbn.nn, gbn.models, gbn.risk), and matplotlib for the chart: a borrowed
GPU machine has no Hydra.
"""
