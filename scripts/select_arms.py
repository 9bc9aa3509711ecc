"""The command ``gbn select arms``."""

from gbn.cli import main

if __name__ == "__main__":
    main("select", "arms")
