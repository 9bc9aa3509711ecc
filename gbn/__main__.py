"""``python -m gbn``: the command ``gbn``."""

from gbn.cli import main

if __name__ == "__main__":
    main()
