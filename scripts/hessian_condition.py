"""The command ``gbn study hessian``."""

from gbn.cli import main

if __name__ == "__main__":
    main("study", "hessian")
