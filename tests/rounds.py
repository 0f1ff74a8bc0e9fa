"""How often an attack is repeated: a little in CI, ``MEMORY_TEST_ROUNDS`` times as much at night (`.ci/nightly`)."""

import os


def rounds(n: int) -> int:
    return n * int(os.environ.get("MEMORY_TEST_ROUNDS", "1"))
