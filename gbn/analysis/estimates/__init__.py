"""Numbers in, numbers out: time to a target, pairs, Holm's correction, power, resampling, survival."""
