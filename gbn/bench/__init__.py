"""What `bench_norm.py` and `bench_train.py` share: cases, the correctness gate, timing, files, goals.

Needs torch and the layers only (gbn.kernels, gbn.nn, gbn.models, gbn.risk), matplotlib for the chart: a borrowed
GPU machine has no Hydra.
"""
