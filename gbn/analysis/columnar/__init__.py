"""Thousands of runs as columns: read in bulk (points, ingest), kept (cache), asked (columns)."""
