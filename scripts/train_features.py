"""The command ``gbn study features``."""

from gbn.cli import main

if __name__ == "__main__":
    main("study", "features")
