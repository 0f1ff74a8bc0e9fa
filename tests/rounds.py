"""How long tests go on that find more the longer they run."""

import os


def rounds(n: int) -> int:
    """Return how many rounds to play: so many, times ``MEMORY_TEST_ROUNDS``."""
    return n * int(os.environ.get("MEMORY_TEST_ROUNDS", "1"))
