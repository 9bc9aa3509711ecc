"""The command ``gbn select rates``."""

from gbn.cli import main

if __name__ == "__main__":
    main("select", "rates")
