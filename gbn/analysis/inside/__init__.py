"""Inside the network: what layers recorded along training, and the variance of the weight gradient."""
