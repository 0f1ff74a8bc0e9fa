"""What the Griptape Cloud store adds to its requests: ``python tests/benchmarks/bench_cloud.py``, from the checkout's root.

Each operation beside a bare `requests.Session` that makes the same calls, with the same bodies, on the test server, which runs in
a process of its own on this machine. There a request takes about a millisecond, so this is the adapter at its worst: over a
network the ratio nears 1. Both sides take turns, so that a slow moment hits both.
"""

import itertools
import subprocess
import sys

import requests

from memory import Conversation, Run, Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.adapters.cloud.records import message_body
from tests.benchmarks.measuring import in_turns, report

KEY = "key-of-org-a"
TEXT = "x" * 400  # input and output: a run of 800 bytes
BODY = message_body(Run(TEXT, TEXT).to_record(), "0" * 32, 0, 1000, "plain")  # what the adapter sends for such a run


class Bare:
    """A session that makes the calls, and decodes what comes."""

    def __init__(self, host: str) -> None:
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {KEY}"
        self.api = f"{host}/api"

    def do(self, method: str, path: str, body: object = None, **parameters: int) -> object:
        response = self.session.request(method, self.api + path, json=body, params=parameters or None, timeout=30)
        response.raise_for_status()
        return response.json()


def fill(store: Store, conversation_id: str, runs: int) -> str:
    with store.begin() as uow:
        uow.conversations.add(Conversation(conversation_id, {"customer": "ada"}))
    with store.begin() as uow:
        uow.runs.append(conversation_id, *[Run(TEXT, TEXT) for _ in range(runs)])
    found: str = store.repository._conversations.threads.find("default", conversation_id)[0].id  # type: ignore[attr-defined]
    return found


def bench_writing(store: Store, bare: Bare, theirs: str) -> None:
    numbers = itertools.count()

    def append(runs: int) -> None:
        with store.begin() as uow:
            uow.runs.append("ours", *[Run(TEXT, TEXT) for _ in range(runs)])

    def append_bare(runs: int) -> None:
        for _ in range(runs):
            metadata = BODY["metadata"] | {"run_id": f"run-{next(numbers)}"}
            bare.do("POST", f"/threads/{theirs}/messages", BODY | {"metadata": metadata})

    report("append one run: 1 request", *in_turns(1000, lambda: append(1), lambda: append_bare(1)))
    report("commit ten runs: 10 requests", *in_turns(100, lambda: append(10), lambda: append_bare(10)))


def bench_reading(store: Store, bare: Bare, ours: str) -> None:
    thread = f"/threads/{ours}"

    def last() -> None:
        store.begin().runs.last("ours", 20)

    def last_bare() -> None:
        bare.do("GET", thread)
        bare.do("GET", f"{thread}/messages", page=number, page_size=size)

    last()
    number, size = covering_page(store, ours)
    report(
        "get: 1 request",
        *in_turns(1000, lambda: store.begin().conversations.get("ours"), lambda: bare.do("GET", thread)),
    )
    report("last 20 runs: 2 requests", *in_turns(1000, last, last_bare))


def bench_queries(store: Store, bare: Bare) -> None:
    for n in range(300):
        with store.begin() as uow:
            uow.conversations.add(Conversation(f"c{n}", {"customer": f"customer-{n}", "n": n}))

    def count_bare() -> None:
        for number in range(1, 5):
            bare.do("GET", "/threads", page=number, page_size=100)

    report("count 302 conversations: 4 requests", *in_turns(50, store.begin().conversations.count, count_bare))


def bench(host: str) -> None:
    store, bare = Store(GriptapeCloudRepository(host, KEY)), Bare(host)
    ours, theirs = fill(store, "ours", 1000), fill(store, "floor", 1000)
    bench_writing(store, bare, theirs)
    bench_reading(store, bare, ours)
    bench_queries(store, bare)
    store.close()
    bare.session.close()


def covering_page(store: Store, thread_id: str) -> tuple[int, int]:
    """Return the number and size of the page that the adapter reads for the last 20."""
    conversations = store.repository._conversations  # type: ignore[attr-defined]
    total = conversations.threads.get(thread_id).count
    size, numbers = conversations.messages._lists.covering(total - 20, total)
    return numbers[0] + 1, size


def main() -> None:
    command = [sys.executable, "-m", "tests.cloud_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        bench(server.stdout.readline().strip())
        server.stdin.close()


if __name__ == "__main__":
    main()
