"""The command ``gbn study variance``."""

from gbn.cli import main

if __name__ == "__main__":
    main("study", "variance")
