"""Several experiments together: AlgoPerf's performance profiles, and the mean speed-up over tasks."""
