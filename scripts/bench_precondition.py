"""The command ``gbn bench precondition``."""

from gbn.cli import main

if __name__ == "__main__":
    main("bench", "precondition")
