"""The command ``gbn train``."""

from gbn.cli import main

if __name__ == "__main__":
    main("train")
