"""Segmentation of structures that may lie within each other."""
