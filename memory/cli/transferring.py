"""`memory export`, with a progress bar on a terminal."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from memory.cli.files import STANDARD, open_binary, open_output
from memory.cli.progress import progress
from memory.core.store import Store
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.errors import ConfigurationError, InvalidValueError
from memory.formats.griptape_local import stem_of
from memory.formats.rows import header, write_parquet
from memory.formats.said import Exported
from memory.formats.targets import TARGETS, Target, writer
from memory.transfer import dump, read_whole
from memory.transfer.verifying import has_any

GC_THRESHOLD: Final = 200_000
"""Objects until the garbage collector runs: records form no cycles, and at Python's 700 it took a sixth of the time."""


def check_namespace(store: Store) -> None:
    """Check that a namespace that was named has conversations: a mistyped name must not look like an empty namespace."""
    if not has_any(store):
        raise ConfigurationError(
            f"there are no conversations in the namespace {store.namespace_name!r}: `memory namespaces` lists the namespaces"
        )


def export_file(
    store: Store, name: str, criterion: Criterion | None, order: str, *, all_namespaces: bool = False
) -> int:
    """Export the conversations that match; return how many."""
    exported = 0
    total = partial(count, store, criterion, all_namespaces=all_namespaces)
    with open_output(name) as stream, progress(name, total) as advance:
        for piece in dump(store, criterion, all_namespaces=all_namespaces, order=order):
            stream.write(piece)
            if piece.endswith("\n"):
                exported += 1
                advance(exported)
        stream.flush()
    return exported


@dataclass(frozen=True, slots=True)
class Exporting:
    """An export of the conversations of one namespace that match, in the format of another program."""

    store: Store
    target: Target
    criterion: Criterion | None
    order: str

    def run(self, name: str) -> int:
        """Write a file, or a folder with a file for each conversation; return how many conversations were written."""
        if self.target == "parquet":
            return self._parquet(name)
        if TARGETS[self.target].ending is None:
            return self._lines(name)
        if name != STANDARD and (name.endswith(os.sep) or Path(name).is_dir()):
            return self._folder(Path(name))
        with self.store.begin() as uow:
            found = list(islice(uow.conversations.iterate(self.criterion, order=self.order), 2))
        if len(found) != 1:
            raise InvalidValueError(
                f"{'several conversations match' if found else 'no conversation matches'}, but a file holds one: "
                "choose it by --where 'id == \"...\"', or name a folder, with / at its end"
            )
        return int(self._one(found[0], name))

    def _parquet(self, name: str) -> int:
        if name == STANDARD:
            raise ConfigurationError("--to parquet needs a file: it is no text")
        with open_binary(name) as file:
            return write_parquet(self._all(), file)

    def _lines(self, name: str) -> int:
        write, exported = writer(self.target), 0
        with open_output(name) as stream, progress(name, partial(count, self.store, self.criterion)) as advance:
            if self.target == "csv":
                stream.write(header())
            for found in self._all():
                stream.writelines(write(found))
                exported += 1
                advance(exported)
            stream.flush()
        return exported

    def _folder(self, folder: Path) -> int:
        folder.mkdir(parents=True, exist_ok=True)
        exported = 0
        with self.store.begin() as uow, progress(str(folder), partial(count, self.store, self.criterion)) as advance:
            for conversation in uow.conversations.iterate(self.criterion, order=self.order):
                file = folder / f"{stem_of(conversation.id)}{TARGETS[self.target].ending}"
                exported += self._one(conversation, str(file))
                advance(exported)
        return exported

    def _one(self, conversation: Conversation, name: str) -> bool:
        """Write the file of a conversation; return False, without writing, if the conversation no longer exists."""
        with self._reading(conversation) as found:
            if found is None:
                return False
            with open_output(name) as stream:
                stream.writelines(writer(self.target)(found))
                stream.flush()
        return True

    def _all(self) -> Iterator[Exported]:
        """Yield the conversations that match, each as it is at one moment; one that no longer exists is left out."""
        with self.store.begin() as uow:
            for conversation in uow.conversations.iterate(self.criterion, order=self.order):
                with self._reading(conversation) as found:
                    if found is not None:
                        yield found

    @contextmanager
    def _reading(self, found: Conversation) -> Iterator[Exported | None]:
        with read_whole(self.store, found.id, found.record) as whole:
            if whole is None:
                yield None
            else:
                runs = (Run.from_record(found.id, run) for run in whole.runs)
                yield Exported(Conversation.from_record(whole.record), runs)


def count(store: Store, criterion: Criterion | None, *, all_namespaces: bool = False) -> int:
    """Return how many conversations match."""
    stores = map(store.namespace, store.namespaces()) if all_namespaces else [store]
    return sum(each.begin().conversations.count(criterion) for each in stores)
