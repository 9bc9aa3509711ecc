"""The command ``gbn wandb``."""

from gbn.cli import main

if __name__ == "__main__":
    main("wandb")
