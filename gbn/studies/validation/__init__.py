"""Do the intervals and tests keep what they promise? Simulated runs whose truth is known."""
