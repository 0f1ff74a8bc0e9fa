"""A process that appends: ``python appending.py HOST NAME TIMES``."""

import sys

from memory import Run, Store
from memory.adapters.cloud import GriptapeCloudRepository


def main() -> None:
    host, name, times = sys.argv[1:]
    repository = GriptapeCloudRepository(host, "key-of-org-a")
    repository._http.attempts = 30
    repository._http.sleep = lambda _: None  # the faults are the test's, not a busy service's
    with Store(repository) as store:
        for n in range(int(times)):
            with store.begin() as uow:
                uow.runs.append("a", Run(f"{name}{n}", "out"))


if __name__ == "__main__":
    main()
