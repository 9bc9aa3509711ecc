import random

import pytest


@pytest.fixture
def flips():
    """Turns over single bits of a file, one after the other and each alone; it is whole again at the end."""

    def turn(path, count, seed=0):
        whole = path.read_bytes()
        draw = random.Random(f"{seed}/{path.name}")
        for _ in range(count):
            place, bit = draw.randrange(len(whole)), draw.randrange(8)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            yield f"bit {bit} of byte {place}"
        path.write_bytes(whole)

    return turn
