"""Cardiac MRI: slices, masks of structures, and whose they are."""
