"""How many rounds a test that tries things at random goes: a few in each run of the suite, many when somebody asks for them."""

import os


def rounds(n: int) -> int:
    return n * int(os.environ.get("MEMORY_TEST_ROUNDS", "1"))
