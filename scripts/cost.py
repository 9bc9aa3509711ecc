"""The command ``gbn cost``."""

from gbn.cli import main

if __name__ == "__main__":
    main("cost")
