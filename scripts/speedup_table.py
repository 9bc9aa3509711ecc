"""The command ``gbn table``."""

from gbn.cli import main

if __name__ == "__main__":
    main("table")
