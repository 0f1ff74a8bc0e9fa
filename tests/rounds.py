"""How long the long tests are."""

import os


def rounds(n: int) -> int:
    """Return so many rounds, times ``MEMORY_TEST_ROUNDS``."""
    return n * int(os.environ.get("MEMORY_TEST_ROUNDS", "1"))
