"""Variance of the weight gradient under several normalizers at equal weights."""
