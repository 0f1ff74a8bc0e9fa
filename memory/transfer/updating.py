"""A conversation that grew since it was imported: add what is new, and keep what the application added or changed."""

from memory.core.store import Store
from memory.domain.records import ConversationRecord, RunRecord, decode_metadata, encode_metadata
from memory.domain.values import Json, decode
from memory.errors import CorruptRecordError
from memory.port.changes import Change, ChangeSet
from memory.transfer.reading import get_record, retry_on_conflict, runs_of, version_of


def has_more(stored: ConversationRecord | None, imported: Change) -> bool:
    """Whether a file's conversation has more runs than the stored one, or was changed later."""
    if stored is None or imported.create is None:
        return False
    is_later = imported.create.updated_at > stored.updated_at and imported.create.created_at == stored.created_at
    return len(imported.append) > stored.run_count or is_later


def update(store: Store, imported: Change) -> int | None:
    """Add to a stored conversation what is new in the imported one; return how many runs were added, None if nothing is new."""

    def attempt() -> int | None:
        change = changed_since(store, imported)
        if change is None:
            return None
        store.commit(ChangeSet.of([change], store.repository.clock()))
        return len(change.append)

    return retry_on_conflict(attempt)


def changed_since(store: Store, imported: Change) -> Change | None:
    """Return the change that adds what is new in an imported conversation to the stored one; None if nothing is new.

    Runs are compared by their ids. A run that the store does not have is appended. A run that has got more answers since is
    replaced by the imported one; it keeps the metadata that the application added. All other runs stay as they are. Metadata
    is added under keys that the store does not have.
    """
    record = get_record(store, imported.id)
    if record is None or imported.create is None:
        return None
    stored = {run.id: run for run in runs_of(store, record)}
    added = tuple(run._replace(position=0) for run in imported.append if run.id not in stored)
    grown = tuple(
        _grown(stored[run.id], run) for run in imported.append if run.id in stored and _has_grown(stored[run.id], run)
    )
    before = decode_metadata(record.metadata, f"the metadata of conversation {record.id!r}")
    after = decode_metadata(imported.create.metadata, "the imported metadata")
    is_same = after.keys() <= before.keys()
    if is_same and not added and not grown:
        return None
    return Change(
        imported.id,
        expected=version_of(record),
        metadata=None if is_same else encode_metadata({**after, **before}),
        replace_runs=grown,
        append=added,
    )


def _has_grown(stored: RunRecord, imported: RunRecord) -> bool:
    before, after = [_answers(run) for run in (stored, imported)]
    return len(after) > len(before) and after[: len(before)] == before


def _answers(run: RunRecord) -> list[Json]:
    try:
        output = decode(run.output)
    except ValueError as error:
        raise CorruptRecordError(f"the output of run {run.position} is stored but cannot be read: {error}") from error
    return [] if output is None else output if isinstance(output, list) else [output]


def _grown(stored: RunRecord, imported: RunRecord) -> RunRecord:
    """Return the imported run in the place of the stored one."""
    before, after = [
        decode_metadata(run.metadata, f"the metadata of run {stored.position}") for run in (stored, imported)
    ]
    return imported._replace(position=stored.position, metadata=encode_metadata({**before, **after}))
