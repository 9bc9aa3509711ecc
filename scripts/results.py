"""The command ``gbn results``."""

from gbn.cli import main

if __name__ == "__main__":
    main("results")
