"""Kinds of problems: the loss, the metrics, the updates and the evaluation of each, a folder per task."""
