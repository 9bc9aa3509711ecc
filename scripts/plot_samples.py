"""The command ``gbn plot samples``."""

from gbn.cli import main

if __name__ == "__main__":
    main("plot", "samples")
