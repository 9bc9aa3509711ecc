"""The command ``gbn claims``."""

from gbn.cli import main

if __name__ == "__main__":
    main("claims")
