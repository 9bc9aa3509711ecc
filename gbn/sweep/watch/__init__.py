"""A sweep while it runs: the state of each run, the time left, and what a terminal shows of it."""
