"""Measurements beside the training runs, each with its own script."""
