"""The threads and messages themselves: what each operation of the contract does to them, under one lock."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from threading import RLock
from typing import Any, TypeAlias

from tests.cloud_server.assumptions import Assumptions

Json: TypeAlias = dict[str, Any]
_TEXTS = ("input", "output")


class RefusedError(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Message:
    message_id: str
    index: int
    input: str
    output: str
    metadata: Json
    created_at: int
    updated_at: int
    created_by: str


@dataclass
class Thread:
    thread_id: str
    organization_id: str
    name: str
    alias: str | None
    metadata: Json
    created_at: int
    updated_at: int
    created_by: str
    number: int  # in the order of creation
    next_index: int
    messages: list[Message] = field(default_factory=list)


class Service:
    """The state. Times are microseconds since 1970, of a clock that a test may set."""

    def __init__(self, assumptions: Assumptions) -> None:
        self.assumptions = assumptions
        self.clock: Callable[[], int] = lambda: time.time_ns() // 1000
        self.threads: dict[str, Thread] = {}
        self._lock = RLock()
        self._threads_made = 0

    def answer(self, organization: str, method: str, path: list[str], query: Mapping[str, str], body: Any) -> Any:
        """Do what a request asks; return the body of the answer, None for 204."""
        with self._lock:
            match method, path:
                case "GET", ["threads"]:
                    return self._list_threads(organization, query)
                case "POST", ["threads"]:
                    return self._create_thread(organization, body)
                case _, ["threads", thread_id]:
                    return self._on_thread(organization, method, thread_id, body)
                case "GET", ["threads", thread_id, "messages"]:
                    return self._list_messages(self._thread(organization, thread_id), query)
                case "POST", ["threads", thread_id, "messages"]:
                    return self._create_message(self._thread(organization, thread_id), body)
                case _, ["messages", message_id]:
                    return self._on_message(organization, method, message_id, body)
                case _:
                    raise RefusedError(404, "no such path")

    # threads

    def _list_threads(self, organization: str, query: Mapping[str, str]) -> Json:
        threads = [thread for thread in self.threads.values() if thread.organization_id == organization]
        threads.sort(key=lambda thread: thread.number, reverse=self.assumptions.thread_order == "newest")
        found = [thread for thread in threads if self._passes(thread, query)]
        shown, pagination = self._page(found, query)
        return {"threads": [self.show_thread(thread) for thread in shown], "pagination": pagination}

    def _passes(self, thread: Thread, query: Mapping[str, str]) -> bool:
        alias, wanted = thread.alias or "", query.get("alias")
        if wanted is not None:
            passes = {
                "exact": alias == wanted,
                "prefix": alias.startswith(wanted),
                "any case": alias.casefold() == wanted.casefold(),
            }
            if not passes[self.assumptions.alias_filter]:
                return False
        return (
            thread.name.startswith(query.get("starts_with", ""))
            and query.get("created_by", thread.created_by) == thread.created_by
        )

    def _create_thread(self, organization: str, body: Any) -> Json:
        fields = self._checked(body, {"name": str, "alias": str, "messages": list, "metadata": dict}, ("name",))
        self._check_alias(organization, fields.get("alias"), None)
        self._threads_made += 1
        now = self.clock()
        thread = Thread(
            str(uuid.uuid4()),
            organization,
            fields["name"],
            fields.get("alias"),
            self._kept(fields.get("metadata", {})),
            now,
            now,
            f"user-of-{organization}",
            self._threads_made,
            self.assumptions.first_index,
        )
        messages = fields.get("messages", [])
        if self.assumptions.atomic or len(messages) < 2:
            self._check_messages(messages)
        self.threads[thread.thread_id] = thread
        for number, message in enumerate(messages):
            if not self.assumptions.atomic and number:
                raise RefusedError(500, "the service failed after the first message")
            self._add(thread, message)
        return self.show_thread(thread)

    def _on_thread(self, organization: str, method: str, thread_id: str, body: Any) -> Json | None:
        if method == "DELETE" and thread_id not in self.threads and self.assumptions.deleted_twice == 204:
            return None
        thread = self._thread(organization, thread_id)
        if method == "DELETE":
            del self.threads[thread_id]
            return None
        if method == "PATCH":
            self._update_thread(thread, body)
        elif method != "GET":
            raise RefusedError(404, "no such method")
        return self.show_thread(thread)

    def _update_thread(self, thread: Thread, body: Any) -> None:
        fields = self._checked(body, {"name": str, "alias": str, "messages": list, "metadata": dict}, ())
        self._check_alias(thread.organization_id, fields.get("alias"), thread)
        self._check_messages(fields.get("messages", []))
        thread.name, thread.alias = fields.get("name", thread.name), fields.get("alias", thread.alias)
        if "metadata" in fields:
            thread.metadata = self._updated(thread.metadata, fields["metadata"])
        if "messages" in fields:
            thread.messages, thread.next_index = [], self.assumptions.first_index
            for message in fields["messages"]:
                self._add(thread, message)
        self._touch(thread)

    def _touch(self, thread: Thread) -> None:
        thread.updated_at = max(thread.updated_at, self.clock())  # a service's clock does not go back

    def _check_alias(self, organization: str, alias: str | None, own: Thread | None) -> None:
        if alias is None or not self.assumptions.unique_alias:
            return
        taken = [one for one in self.threads.values() if (one.organization_id, one.alias) == (organization, alias)]
        if any(one is not own for one in taken):
            raise RefusedError(409, "a thread of this alias exists")

    def _thread(self, organization: str, thread_id: str) -> Thread:
        self._check_form(thread_id)
        thread = self.threads.get(thread_id)
        if thread is None:
            raise RefusedError(404, "no such thread")
        if thread.organization_id != organization:
            raise RefusedError(self.assumptions.foreign, "not yours")
        return thread

    def show_thread(self, thread: Thread) -> Json:
        no_alias = {"empty": "", "null": None, "id": thread.thread_id}[self.assumptions.no_alias]
        return {
            "thread_id": thread.thread_id,
            "organization_id": thread.organization_id,
            "name": thread.name,
            "alias": no_alias if thread.alias is None else thread.alias,
            "metadata": thread.metadata,
            "message_count": self._number(len(thread.messages)),
            "messages_length": self._number(sum(len(one.input) + len(one.output) for one in thread.messages)),
            "created_at": _moment(thread.created_at),
            "updated_at": _moment(thread.updated_at),
            "created_by": thread.created_by,
        }

    # messages

    def _list_messages(self, thread: Thread, query: Mapping[str, str]) -> Json:
        messages = list(thread.messages)
        if self.assumptions.message_order == "descending":
            messages.reverse()
        shown, pagination = self._page(messages, query)
        return {"messages": [self._show_message(thread, message) for message in shown], "pagination": pagination}

    def _create_message(self, thread: Thread, body: Any) -> Json:
        self._check_messages([body])
        message = self._add(thread, body)
        self._touch(thread)
        return self._show_message(thread, message)

    def _on_message(self, organization: str, method: str, message_id: str, body: Any) -> Json | None:
        self._check_form(message_id)
        for thread in self.threads.values():
            for message in thread.messages:
                if message.message_id == message_id:
                    if thread.organization_id != organization:
                        raise RefusedError(self.assumptions.foreign, "not yours")
                    return self._with_message(thread, message, method, body)
        if method == "DELETE" and self.assumptions.deleted_twice == 204:
            return None
        raise RefusedError(404, "no such message")

    def _with_message(self, thread: Thread, message: Message, method: str, body: Any) -> Json | None:
        if method == "DELETE":
            self._remove(thread, message)
            return None
        if method == "PATCH":
            fields = self._checked(body, {"input": str, "output": str, "metadata": dict}, ())
            self._check_lengths(fields)
            message.input, message.output = fields.get("input", message.input), fields.get("output", message.output)
            if "metadata" in fields:
                message.metadata = self._updated(message.metadata, fields["metadata"])
            message.updated_at = self.clock()
        elif method != "GET":
            raise RefusedError(404, "no such method")
        return self._show_message(thread, message)

    def _add(self, thread: Thread, body: Json) -> Message:
        now = self.clock()
        metadata = self._kept(body.get("metadata", {}))
        message = Message(
            str(uuid.uuid4()), thread.next_index, body["input"], body["output"], metadata, now, now, thread.created_by
        )
        thread.messages.append(message)
        thread.next_index += 1
        return message

    def _remove(self, thread: Thread, message: Message) -> None:
        thread.messages.remove(message)
        if self.assumptions.renumbers:
            for index, left in enumerate(thread.messages, self.assumptions.first_index):
                left.index = index
        if self.assumptions.renumbers or self.assumptions.reuses_last_index:
            last = thread.messages[-1].index if thread.messages else self.assumptions.first_index - 1
            thread.next_index = last + 1

    def _show_message(self, thread: Thread, message: Message) -> Json:
        return {
            "message_id": message.message_id,
            "thread_id": thread.thread_id,
            "index": self._number(message.index),
            "input": message.input,
            "output": message.output,
            "metadata": message.metadata,
            "created_at": _moment(message.created_at),
            "updated_at": _moment(message.updated_at),
            "created_by": message.created_by,
        }

    # what both have in common

    def _page(self, items: list[Any], query: Mapping[str, str]) -> tuple[list[Any], Json]:
        first = self.assumptions.first_page
        number = _whole(query.get("page", str(first)), first, self.assumptions.invalid)
        size = _whole(query.get("page_size", str(self.assumptions.page_size)), 1, self.assumptions.invalid)
        if size > self.assumptions.largest_page:
            if self.assumptions.refuses_large_pages:
                raise RefusedError(self.assumptions.invalid, f"page_size is at most {self.assumptions.largest_page}")
            size = self.assumptions.largest_page
        pages, begin = ceil(len(items) / size), (number - first) * size
        pagination: Json = {"page_number": number, "page_size": size, "total_count": len(items), "total_pages": pages}
        pagination = {name: self._number(value) for name, value in pagination.items()}
        ends = {"next_page": (number + 1, number + 1 < first + pages), "previous_page": (number - 1, number > first)}
        for name, (value, there) in ends.items():
            if self.assumptions.links and there:
                pagination[name] = self._number(value)
        return items[begin : begin + size], pagination

    def _checked(self, body: Any, types: dict[str, type], required: tuple[str, ...]) -> Json:
        if not isinstance(body, dict):
            raise RefusedError(self.assumptions.invalid, "the body is no object")
        if not self.assumptions.ignores_unknown and not types.keys() >= body.keys():
            raise RefusedError(self.assumptions.invalid, f"unknown fields: {body.keys() - types.keys()}")
        if missing := [name for name in required if name not in body]:
            raise RefusedError(self.assumptions.invalid, f"missing: {missing}")
        for name, kind in types.items():
            if name in body and not isinstance(body[name], kind):
                raise RefusedError(self.assumptions.invalid, f"{name} is no {kind.__name__}")
        for name in ("name", "alias"):
            if name in types and name in body and not 1 <= len(body[name]) <= 200:
                raise RefusedError(self.assumptions.invalid, f"{name} has 1 to 200 characters")
        self._check_size(body.get("metadata", {}))
        return {name: body[name] for name in types if name in body}

    def _check_messages(self, messages: list[Any]) -> None:
        most = self.assumptions.most_messages
        if most is not None and len(messages) > most:
            raise RefusedError(413, f"at most {most} messages at once")
        for message in messages:
            self._check_lengths(self._checked(message, {"input": str, "output": str, "metadata": dict}, _TEXTS))

    def _check_lengths(self, fields: Json) -> None:
        longest = self.assumptions.largest_text
        if longest is not None and any(len(fields.get(name, "")) > longest for name in _TEXTS):
            raise RefusedError(413, f"a text has at most {longest} characters")

    def _check_size(self, metadata: Json) -> None:
        longest = self.assumptions.largest_metadata
        if longest is not None and len(json.dumps(metadata)) > longest:
            raise RefusedError(413, f"metadata has at most {longest} characters")

    def _check_form(self, id_: str) -> None:
        try:
            uuid.UUID(id_)
        except ValueError as error:
            raise RefusedError(self.assumptions.malformed_id, "no such id") from error

    def _updated(self, before: Json, new: Json) -> Json:
        new = self._kept(new)
        return new if self.assumptions.replaces_metadata else _merged(before, new)

    def _kept(self, value: Any) -> Any:
        return value if self.assumptions.keeps_json else _mangled(value)

    def _number(self, value: int) -> float:
        return value if self.assumptions.whole_numbers else float(value)


def _merged(before: Any, new: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(new, dict):
        return new
    return before | {key: _merged(before.get(key), value) for key, value in new.items()}


def _mangled(value: Any) -> Any:
    """Return the value as many services keep it."""
    if isinstance(value, dict):
        return {key.replace("\x00", ""): _mangled(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_mangled(one) for one in value]
    if isinstance(value, str):
        return value.replace("\x00", "").encode(errors="replace").decode()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return float(value) if abs(value) < 2**1000 else None
    return value


def _whole(text: str, least: int, status: int) -> int:
    try:
        number = float(text)
    except ValueError as error:
        raise RefusedError(status, "no number") from error
    if not number.is_integer() or number < least:
        raise RefusedError(status, f"no whole number from {least}")
    return int(number)


def _moment(microseconds: int) -> str:
    return (
        datetime.fromtimestamp(microseconds / 1_000_000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )
