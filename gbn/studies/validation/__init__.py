"""Validation of the intervals and tests on simulated runs whose truth is known."""
