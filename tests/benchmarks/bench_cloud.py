"""What the Griptape Cloud store adds to its requests: ``python tests/benchmarks/bench_cloud.py``, from the checkout's root.

Each operation beside a bare `requests.Session` that makes the same calls, with the same bodies, on the test server, which runs in
a process of its own on this machine. There a request takes about a millisecond, so this is the adapter at its worst: over a
network the ratio nears 1. Both sides take turns, so that a slow moment hits both.
"""

import itertools

import requests

from memory import Conversation, Run, Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.adapters.cloud.records import message_body
from tests.benchmarks.measuring import CLOUD_KEY, cloud_server, in_turns, report

TEXT = "x" * 400  # input and output: a run of 800 bytes
BODY = message_body(Run(TEXT, TEXT).to_record(1000), "0" * 32, 0)  # what the adapter sends for such a run


class Bare:
    """A session that makes the calls, and decodes what comes."""

    def __init__(self, host: str) -> None:
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {CLOUD_KEY}"
        self.api = f"{host}/api"

    def do(self, method: str, path: str, body: object = None, **parameters: int | str) -> object:
        response = self.session.request(method, self.api + path, json=body, params=parameters or None, timeout=30)
        response.raise_for_status()
        return response.json()

    def find(self, alias: str) -> object:
        return self.do("GET", "/threads", alias=alias, page=1, page_size=100)


def fill(store: Store, conversation_id: str, runs: int) -> str:
    with store.begin() as uow:
        uow.conversations.add(Conversation(conversation_id, {"customer": "ada"}))
        uow.runs.append(conversation_id, *[Run(TEXT, TEXT) for _ in range(runs)])
    found: str = store.repository._service.find("default", conversation_id)[0].id  # type: ignore[attr-defined]
    return found


def bench_writing(store: Store, bare: Bare, theirs: str) -> None:
    numbers = itertools.count()

    def append(runs: int) -> None:
        with store.begin() as uow:
            uow.runs.append("ours", *[Run(TEXT, TEXT) for _ in range(runs)])

    def append_bare(runs: int) -> None:
        bare.find("theirs")
        for _ in range(runs):
            metadata = BODY["metadata"] | {"run_id": f"run-{next(numbers)}"}
            bare.do("POST", f"/threads/{theirs}/messages", BODY | {"metadata": metadata})

    report("append one run: 2 requests", *in_turns(500, lambda: append(1), lambda: append_bare(1)))
    report("commit ten runs: 11 requests", *in_turns(100, lambda: append(10), lambda: append_bare(10)))


def bench_reading(store: Store, bare: Bare, ours: str) -> None:
    total = store.begin().conversations.get("ours").run_count
    first, last_page = (total - 20) // 100 + 1, (total - 1) // 100 + 1

    def last() -> None:
        store.begin().runs.last("ours", 20)

    def last_bare() -> None:
        bare.find("ours")
        for number in range(first, last_page + 1):
            bare.do("GET", f"/threads/{ours}/messages", page=number, page_size=100)

    last()
    report(
        "get: 1 request",
        *in_turns(500, lambda: store.begin().conversations.get("ours"), lambda: bare.find("ours")),
    )
    report(f"last 20 runs: {1 + last_page + 1 - first} requests", *in_turns(200, last, last_bare))


def bench_queries(store: Store, bare: Bare, conversations: int) -> None:
    for n in range(conversations - 2):
        with store.begin() as uow:
            uow.conversations.add(Conversation(f"c{n}", {"customer": f"customer-{n}", "n": n}))
            uow.runs.append(f"c{n}", Run("in", "out"))

    def list_bare() -> None:
        for number in range(1, conversations // 100 + 1):
            bare.do("GET", "/threads", page=number, page_size=100)

    requests_made = f"{conversations:,} conversations: {conversations // 100} requests"
    newest = lambda: store.begin().conversations.find(limit=50)  # noqa: E731
    report(f"newest 50 of {requests_made}", *in_turns(5, newest, list_bare))
    report(f"count of {requests_made}", *in_turns(5, store.begin().conversations.count, list_bare))


def bench(host: str) -> None:
    store, bare = Store(GriptapeCloudRepository(host, CLOUD_KEY)), Bare(host)
    ours, theirs = fill(store, "ours", 1000), fill(store, "theirs", 1000)
    bench_writing(store, bare, theirs)
    bench_reading(store, bare, ours)
    bench_queries(store, bare, 1_000)
    store.close()
    bare.session.close()


def main() -> None:
    with cloud_server() as host:
        bench(host)


if __name__ == "__main__":
    main()
