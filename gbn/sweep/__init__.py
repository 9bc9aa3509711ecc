"""Many runs on one machine: a pool of processes, its signals, a journal, a view of it while it works."""
