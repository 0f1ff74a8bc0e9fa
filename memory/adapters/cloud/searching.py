"""Queries: the service filters threads by alias only, so a query reads the list of all of them, page by page."""

import operator
from collections.abc import Iterator

from memory.adapters.cloud.reading import Threads
from memory.domain.records import ConversationRecord
from memory.port.paging import Order, Place
from memory.port.planner import Search


class ThreadSearch(Search):
    """The conversations of a namespace, all in memory for one query: one request for each 100 threads of the organization."""

    def __init__(self, threads: Threads, namespace: str) -> None:
        self._threads = threads
        self._namespace = namespace

    def walk(self, order: Order, after: Place | None, wanted: int, most: int | None) -> Iterator[ConversationRecord]:  # noqa: ARG002  # the whole list must be read either way
        found = self._threads.conversations(self._namespace)
        records = [one.record(id_) for id_, one in found.items() if not self._threads.is_expired(one)]
        beyond = operator.lt if order.descending else operator.gt
        places = [(place, one) for one in records if order.has(place := order.place(one))]
        rest = [(place, one) for place, one in places if after is None or beyond(place, after)]
        rest.sort(key=operator.itemgetter(0), reverse=order.descending)
        return (one for _, one in rest)
