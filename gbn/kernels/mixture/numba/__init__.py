"""Fused kernels of mixture normalization for float32 on the CPU: compiled by numba, run by torch's own threads."""
