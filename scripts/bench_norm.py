"""The command ``gbn bench norm``."""

from gbn.cli import main

if __name__ == "__main__":
    main("bench", "norm")
