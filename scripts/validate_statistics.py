"""The command ``gbn study statistics``."""

from gbn.cli import main

if __name__ == "__main__":
    main("study", "statistics")
