"""The command ``gbn plot segmentation``."""

from gbn.cli import main

if __name__ == "__main__":
    main("plot", "segmentation")
