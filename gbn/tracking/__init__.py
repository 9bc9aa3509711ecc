"""Runs in Weights & Biases: mirrored while they train, or uploaded afterwards."""
