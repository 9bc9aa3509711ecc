"""The command ``gbn bench gpu``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed

from gbn.cli import main

if __name__ == "__main__":
    main("bench", "gpu")
