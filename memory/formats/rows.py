"""Write runs as rows of a table, for analysis: CSV, or Parquet if pyarrow is installed."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import IO, Any, Final

from memory.domain.values import compact
from memory.errors import ConfigurationError
from memory.formats.said import Exported, text

COLUMNS: Final = (
    "conversation_id", "position", "run_id", "created_at", "input", "output", "run_metadata", "conversation_metadata",
)  # fmt: skip
"""``input`` and ``output`` are text, or JSON if they are anything else; the metadata is JSON. A null is empty."""

_BATCH: Final = 1_000


def rows_of(found: Exported) -> Iterator[tuple[Any, ...]]:
    """Yield a row for each run."""
    metadata = compact(found.conversation.metadata)
    for run in found.runs:
        said = [None if value is None else text(value) for value in (run.input, run.output)]
        yield (found.conversation.id, run.position, run.id, run.created_at, *said, compact(run.metadata), metadata)


def header() -> str:
    """Return the first line of a file of CSV."""
    return _line(COLUMNS)


def write(found: Exported) -> Iterator[str]:
    """Yield the lines of a conversation's runs as CSV, each with its line breaks in quotes."""
    for id, position, run_id, created_at, *others in rows_of(found):
        yield _line((id, position, run_id, created_at.isoformat(), *others))


def _line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def write_parquet(all_found: Iterable[Exported], file: IO[bytes]) -> int:
    """Write the runs of all conversations as a file of Parquet, batch by batch; return how many conversations there are.

    Raises:
        ConfigurationError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ConfigurationError("--to parquet needs pyarrow: pip install 'conversation-memory[parquet]'") from error
    kinds = {"position": pa.int64(), "created_at": pa.timestamp("us", tz="UTC")}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    count = 0

    def counted(found: Exported) -> Iterator[tuple[Any, ...]]:
        nonlocal count
        count += 1
        return rows_of(found)

    rows = chain.from_iterable(map(counted, all_found))
    with parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _BATCH)):
            columns = [list(column) for column in zip(*batch, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))
    return count
