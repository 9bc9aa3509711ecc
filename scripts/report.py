"""The command ``gbn report``."""

from gbn.cli import main

if __name__ == "__main__":
    main("report")
