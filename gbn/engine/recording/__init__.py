"""Recordings of each normalizer's input and behavior during training, to explain a curve."""
