"""The command ``gbn bench train``."""

from gbn.cli import main

if __name__ == "__main__":
    main("bench", "train")
