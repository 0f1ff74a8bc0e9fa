"""How often the long tests do what they do."""

import os


def rounds(n: int) -> int:
    """Return a number of rounds, times what the environment asks for."""
    return n * int(os.environ.get("MEMORY_TEST_ROUNDS", "1"))
