"""Generation of images by a generator against a discriminator."""
