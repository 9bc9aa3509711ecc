"""The command ``gbn plot convergence``."""

from gbn.cli import main

if __name__ == "__main__":
    main("plot", "convergence")
