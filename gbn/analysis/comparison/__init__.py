"""Every figure that a table, a plot or a claim uses."""
