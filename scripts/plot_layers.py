"""The command ``gbn plot layers``."""

from gbn.cli import main

if __name__ == "__main__":
    main("plot", "layers")
