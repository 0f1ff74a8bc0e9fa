"""Reading heads, metadata and runs: what they say once staged commits are seen for what they are."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from threading import Lock
from typing import Any, Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.models import UNREADABLE, Held, Kept
from memory.adapters.dynamodb.table import Requests, Table
from memory.domain.records import RunRecord
from memory.errors import CorruptRecordError, StoreUnavailableError
from memory.port.forking import ForkAware, watch
from memory.port.repository import Window

COMMITTED: Final = "committed"
_HEADS_KEPT: Final = 4_096
_READS: Final = 5  # of something that is being changed meanwhile
_ALL: Final = 2**53


class ChangedError(Exception):
    """What was read does not fit together: it was changed meanwhile, and is to be read again."""


class HeadChangedError(ChangedError):
    """What was read is no longer what the head tells of: a part of it may have been removed while it was read."""


class LastSeen(ForkAware):
    """The heads that this store wrote or met last: guesses, of a bounded number."""

    def __init__(self) -> None:
        self._heads: OrderedDict[keys.Key, Held] = OrderedDict()
        self._lock = Lock()
        watch(self)

    def after_fork_in_child(self) -> None:
        self._heads = OrderedDict()  # another thread may have been changing it
        self._lock = Lock()

    def get(self, namespace: str, conversation_id: str) -> Held | None:
        """Return what a head said when it was met last; None if that is not known."""
        return self._heads.get(keys.head(namespace, conversation_id))

    def put(self, namespace: str, conversation_id: str, held: Held) -> None:
        """Remember what a head says."""
        key = keys.head(namespace, conversation_id)
        with self._lock:
            self._heads.pop(key, None)
            if held.stage is None and held.stamp is not None:
                self._heads[key] = replace(held, kept=held.kept and held.kept.without_text())
            if len(self._heads) > _HEADS_KEPT:
                self._heads.popitem(last=False)


class Reader:
    """Reads the conversations of one table, and remembers what their heads said."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.seen = LastSeen()

    # heads

    def held(self, namespace: str, ids: Iterable[str]) -> dict[str, Held]:
        """Return what is at the places of these heads."""
        places = {keys.head(namespace, conversation_id): conversation_id for conversation_id in ids}
        if len(places) == 1:
            (key,) = places
            items = {key: self._table.get(key)}
        else:
            items = self._table.get_many(places)
        return {
            conversation_id: self.met(namespace, conversation_id, items.get(key))
            for key, conversation_id in places.items()
        }

    def met(self, namespace: str, conversation_id: str, item: Any) -> Held:
        """Return what the item of a head says (None: there is none), and remember it."""
        held: Held = Held() if item is None else self._decoded(item, self._table.models.held)
        if item is not None and item.id != conversation_id:
            raise CorruptRecordError(f"the head of conversation {conversation_id!r} is stored as that of {item.id!r}")
        self.seen.put(namespace, conversation_id, held)
        return held

    def copy(self, item: Any) -> Kept | None:
        """Return what the copy of a head says."""
        kept: Kept | None = self._decoded(item, self._table.models.kept)
        return kept

    def kept(self, namespace: str, ids: Iterable[str]) -> dict[str, Kept]:
        """Return the conversations that there are, with their metadata."""
        wanted, found = list(ids), dict[str, Kept]()
        for _ in range(_READS):
            settled, wanted = self._settled(namespace, self.held(namespace, wanted))
            found |= settled
            if not wanted:
                break
        else:
            raise CorruptRecordError(f"the heads of {wanted[:3]} are locked by commits that nothing is known of")
        return self.with_texts(namespace, found)

    def resolved(self, namespace: str, held: Held) -> Kept | None:
        """Return the conversation that a head stands for.

        Raises:
            ChangedError: its commit has ended meanwhile: read the head again.
        """
        settled, again = self._settled(namespace, {"": held})
        if again:
            raise ChangedError
        return settled.get("")

    def _settled(self, namespace: str, heads: dict[str, Held]) -> tuple[dict[str, Kept], list[str]]:
        """Return what the heads stand for, and whose must be read again: their commit has ended meanwhile."""
        stages = {held.stage for held in heads.values() if held.stage is not None}
        states = self._states(namespace, stages) if stages else {}
        found, again = dict[str, Kept](), list[str]()
        for conversation_id, held in heads.items():
            if held.stage is not None and held.stage not in states:
                again.append(conversation_id)
                continue
            kept = held.then if held.stage is not None and states[held.stage] == COMMITTED else held.kept
            if kept is not None:
                found[conversation_id] = kept
        return found, again

    def _states(self, namespace: str, stages: set[str]) -> dict[str, str]:
        """Return in what state commits that are being staged are; what has ended is not there any more."""
        items = self._table.get_many([keys.stage(namespace, stage) for stage in stages])
        return {key[1].hex(): item.state for key, item in items.items()}

    # metadata

    def with_texts(self, namespace: str, found: dict[str, Kept]) -> dict[str, Kept]:
        """Return these conversations with the metadata that is in parts."""
        missing = {conversation_id: kept for conversation_id, kept in found.items() if not kept.has_text}
        for _ in range(_READS):
            if not missing:
                return found
            texts = self._texts(namespace, missing)
            found |= {
                conversation_id: missing[conversation_id].with_text(text) for conversation_id, text in texts.items()
            }
            changed = [conversation_id for conversation_id in missing if conversation_id not in texts]
            if not changed:
                return found
            # Its parts were replaced meanwhile: what does the head say now?
            settled, _ = self._settled(namespace, self.held(namespace, changed))
            for conversation_id in changed:
                found.pop(conversation_id)
            found |= settled
            missing = {conversation_id: kept for conversation_id, kept in settled.items() if not kept.has_text}
        raise CorruptRecordError(f"the metadata of {list(missing)[:3]} is stored, but parts of it are missing")

    def with_text(self, namespace: str, kept: Kept) -> Kept:
        """Return a conversation with its metadata, as long as that is there.

        Raises:
            ChangedError: it is not there any more.
        """
        if kept.has_text:
            return kept
        texts = self._texts(namespace, {kept.record.id: kept})
        if not texts:
            raise ChangedError
        return kept.with_text(texts[kept.record.id])

    def _texts(self, namespace: str, wanted: dict[str, Kept]) -> dict[str, str]:
        places: dict[str, list[keys.Key]] = {
            conversation_id: [
                (keys.conversation(namespace, conversation_id), keys.metadata_part(kept.metadata_set, part))
                for part in range(1, kept.parts + 1)
            ]
            for conversation_id, kept in wanted.items()
        }
        items = self._table.get_many([key for each in places.values() for key in each])
        return {
            conversation_id: "".join(items[key].text for key in each)
            for conversation_id, each in places.items()
            if all(key in items for key in each)
        }

    # runs

    def runs(
        self, namespace: str, conversation_id: str, window: Window, now: int
    ) -> tuple[Kept | None, list[RunRecord]]:
        """Return a conversation (None if there is none, or it has expired) and those of its runs that are in the window."""
        for left in reversed(range(_READS)):
            try:
                return self._runs(namespace, conversation_id, window, now)
            except HeadChangedError as error:
                if not left:
                    what = f"conversation {conversation_id!r} was changed each time its runs were read: read them again"
                    raise StoreUnavailableError(what) from error
            except ChangedError:
                continue
        raise CorruptRecordError(f"runs of conversation {conversation_id!r} are stored, but parts of them are missing")

    def _runs(
        self, namespace: str, conversation_id: str, window: Window, now: int
    ) -> tuple[Kept | None, list[RunRecord]]:
        partition = keys.conversation(namespace, conversation_id)
        limit = _ALL if window.limit is None else min(window.limit, _ALL)
        is_all = window.after == 0 and limit == _ALL
        if limit and window.before is None and (window.from_end or is_all):
            return self._last_runs(namespace, conversation_id, window.after, limit, now)
        if self._is_short(namespace, conversation_id, limit) and window.after == 0 and window.before is None:
            kept, runs = self._last_runs(namespace, conversation_id, 0, limit + 1, now)
            if len(runs) <= limit:
                return kept, runs
        kept = self.resolved(namespace, self.held(namespace, [conversation_id])[conversation_id])
        if kept is None or kept.is_expired(now):
            return None, []
        low = max(kept.first, window.after + 1)
        high = min(kept.record.last_position, _ALL if window.before is None else window.before - 1)
        if low > high or not limit:
            return kept, []
        runs = self._between(partition, kept, low, high, limit, backwards=window.from_end)
        wanted = range(low, high + 1)
        self._check_still(namespace, kept, runs, wanted[-limit:] if window.from_end else wanted[:limit])
        return kept, runs

    def _is_short(self, namespace: str, conversation_id: str, limit: int) -> bool:
        """Tell whether a conversation most probably has no more runs than that: then one query brings all of them."""
        held = self.seen.get(namespace, conversation_id)
        return held is not None and held.kept is not None and 0 < held.kept.record.run_count <= limit < _ALL

    def _last_runs(
        self, namespace: str, conversation_id: str, after: int, limit: int, now: int
    ) -> tuple[Kept | None, list[RunRecord]]:
        """Read the head and the last runs by one query: backwards from the head."""
        partition = keys.conversation(namespace, conversation_id)
        first = None if limit == _ALL else limit + 1
        requests = Requests()
        items = self._table.query(
            partition, keys.RUNS, keys.HEAD, backwards=True, limit=first, then=first, requests=requests
        )
        head = next(items, None)
        if head is None or head.sk != keys.HEAD:
            return None, []
        kept = self.resolved(namespace, self.met(namespace, conversation_id, head))
        if kept is None or kept.is_expired(now):
            return None, []
        low, high = max(kept.first, after + 1), kept.record.last_position
        runs: list[RunRecord] = []
        for run, parts in whole_runs(items, backwards=True):
            if keys.set_of(run.sk) != kept.run_set:
                if not runs and keys.set_of(run.sk) > kept.run_set:  # remains of others, of unknown number
                    runs = self._between(partition, kept, low, high, limit, backwards=True)[::-1]
                    requests.count += 1
                break
            position = keys.position_of(run.sk)
            if position < low:
                break
            if position <= high:  # else it is being staged
                runs.append(self._run_record(run, parts))
                if len(runs) == limit:
                    break
        runs.reverse()
        if requests.count > 1:
            self._check_still(namespace, kept, runs, range(low, high + 1)[-limit:])
        return kept, runs

    def _check_still(self, namespace: str, kept: Kept, runs: list[RunRecord], wanted: range) -> None:
        """Make sure that runs that took several requests are all there were: none were swept out between two of them.

        Args:
            namespace: the conversation's.
            kept: what its head said before.
            runs: what was found.
            wanted: the positions of all that are in the window, if none between the first and the last was removed.

        Raises:
            HeadChangedError: some may have been swept out.
        """
        record = kept.record
        has_gaps = record.run_count != record.last_position - kept.first + 1
        if not has_gaps and [run.position for run in runs] == list(wanted):
            return  # nothing is missing: seen without another request
        still = self.resolved(namespace, self.held(namespace, [record.id])[record.id])
        if still is None or (still.run_set, still.first) != (kept.run_set, kept.first):
            raise HeadChangedError

    def _between(
        self, partition: bytes, kept: Kept, low: int, high: int, limit: int, *, backwards: bool
    ) -> list[RunRecord]:
        if low > high:
            return []
        asked = None if limit >= _ALL or limit > high - low else limit
        items = self._table.query(
            partition,
            keys.run(kept.run_set, low),
            keys.run(kept.run_set, high, keys.LAST_PART),
            backwards=backwards,
            limit=asked,
            then=asked,
        )
        runs: list[RunRecord] = []
        for run, parts in whole_runs(items, backwards=backwards):
            runs.append(self._run_record(run, parts))
            if len(runs) == limit:
                break
        return runs[::-1] if backwards else runs

    def every_run(self, partition: bytes, kept: Kept) -> Iterator[RunRecord]:
        """Yield all runs of a conversation, in order."""
        low, high = (
            keys.run(kept.run_set, kept.first),
            keys.run(kept.run_set, kept.record.last_position, keys.LAST_PART),
        )
        for run, parts in whole_runs(self._table.query(partition, low, high), backwards=False):
            yield self._run_record(run, parts)

    def _run_record(self, item: Any, parts: list[str]) -> RunRecord:
        def read(item: Any) -> RunRecord:
            values = item.attribute_values
            texts: list[Any] = [values.get("input"), values.get("output"), values.get("metadata")]
            if "parts" in values:
                text, sizes = "".join(parts), json.loads(values["sizes"])
                ends = [sum(sizes[:n]) for n in range(4)]
                texts = [text[begin:end] for begin, end in pairwise(ends)]
                if len(text) != ends[-1]:
                    raise ValueError("its parts have another size")
            if None in texts:
                raise ValueError("something of it is missing")
            return RunRecord(
                keys.position_of(values["sk"]), values["id"], texts[0], texts[1], texts[2], values["created"]
            )

        record: RunRecord = self._decoded(item, read)
        return record

    def _decoded(self, item: Any, read: Any) -> Any:
        try:
            return read(item)
        except UNREADABLE as error:
            what = f"the item ({item.pk!r}, {item.sk!r})"
            raise CorruptRecordError(f"{what} is stored but cannot be read: {error}") from error


def whole_runs(items: Iterator[Any], *, backwards: bool) -> Iterator[tuple[Any, list[str]]]:
    """Yield each run with the texts of its parts, which come after it, or before it when reading backwards.

    What is found of the next run is not waited for: that could be another request.

    Raises:
        ChangedError: a part is missing, or belongs to what stood there before.
    """
    waiting: Any = None
    parts: dict[int, Any] = {}
    for item in items:
        run = item
        if part := keys.part_of(item.sk):
            parts[part] = item
            if waiting is None or len(parts) < waiting.parts:
                continue
            run, waiting = waiting, None
        elif waiting is not None:
            raise ChangedError
        elif item.parts and not backwards:
            waiting, parts = item, {}
            continue
        yield run, _texts_of(run, parts)
        parts = {}
    if waiting is not None:
        raise ChangedError


def _texts_of(run: Any, parts: dict[int, Any]) -> list[str]:
    texts = []
    for number in range(1, (run.parts or 0) + 1):
        part = parts.get(number)
        if part is None or part.part_set != run.part_set or keys.position_of(part.sk) != keys.position_of(run.sk):
            raise ChangedError
        texts.append(part.text)
    return texts
