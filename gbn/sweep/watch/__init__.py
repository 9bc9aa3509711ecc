"""Live view of a sweep: the state of each run, the time left, and the display on a terminal."""
