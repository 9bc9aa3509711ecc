"""The command ``gbn profile``."""

from gbn.cli import main

if __name__ == "__main__":
    main("profile")
