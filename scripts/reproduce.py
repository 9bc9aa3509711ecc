"""The command ``gbn reproduce``."""

from gbn.cli import main

if __name__ == "__main__":
    main("reproduce")
