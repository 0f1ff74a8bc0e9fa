"""Write conversations as transcripts in Markdown, with what else is known of them in a front matter of YAML."""

import json
from collections.abc import Iterator

from memory.domain.timestamps import format_timestamp
from memory.domain.values import Json
from memory.formats.artifacts import text_of
from memory.formats.said import Exported, answers_of, text


def write(found: Exported) -> Iterator[str]:
    """Yield the transcript of a conversation, in pieces. The values of the front matter are JSON, which is YAML too."""
    conversation, record = found.conversation, found.conversation.record
    about: dict[str, Json] = {"id": conversation.id}
    if record is not None:
        times = {"created_at": record.created_at, "updated_at": record.updated_at, "expires_at": record.expires_at}
        about |= {name: format_timestamp(time) for name, time in times.items() if time is not None}
    yield "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in about.items())
    yield f"metadata: {json.dumps(conversation.metadata)}\n---\n"
    for run in found.runs:
        heading = f"{run.position}, {run.created_at:%Y-%m-%d %H:%M:%S}"
        if run.input is not None:
            yield f"\n## User ({heading})\n\n{_block(run.input)}\n"
        for answer in answers_of(run):
            yield f"\n## Assistant ({heading})\n\n{_block(answer)}\n"


def _block(value: Json) -> str:
    """Return text as it is, and other values as a block of JSON."""
    return text(value) if text_of(value) is not None else f"```json\n{json.dumps(value, indent=2)}\n```"
