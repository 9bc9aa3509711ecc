"""The command ``gbn archive``."""

from gbn.cli import main

if __name__ == "__main__":
    main("archive")
