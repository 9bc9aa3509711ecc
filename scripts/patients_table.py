"""The command ``gbn patients``."""

from gbn.cli import main

if __name__ == "__main__":
    main("patients")
