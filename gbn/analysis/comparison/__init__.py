"""Every figure that a table, a plot or a claim is made of."""
