"""The command ``gbn watch``."""

from gbn.cli import main

if __name__ == "__main__":
    main("watch")
