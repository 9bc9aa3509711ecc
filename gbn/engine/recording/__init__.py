"""Recordings: what each normalizer sees and does along training, to explain a curve."""
