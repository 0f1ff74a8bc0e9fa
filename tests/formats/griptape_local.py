"""Griptape's own local driver, in a process of its own: importing griptape changes `json` for the whole process.

``python griptape_local.py load FILE...`` prints what it loads of each; ``store FILE TEXT...`` prints that too, and writes it back
with one more run for each text.
"""

import functools
import json
import sys
from typing import Any

import griptape.utils  # type: ignore[import-untyped]
from griptape.artifacts import TextArtifact  # type: ignore[import-untyped]
from griptape.drivers.memory.conversation.local import (  # type: ignore[import-untyped]
    LocalConversationMemoryDriver,
)
from griptape.memory.structure import Run  # type: ignore[import-untyped]


def text_of(artifact: Any) -> str:
    return str(artifact.value) if isinstance(artifact.value, str) else str(artifact.type)


# It looks for the same optional packages again with every run that it reads: half of the time.
griptape.utils.is_dependency_installed = functools.cache(griptape.utils.is_dependency_installed)


def load(file: str, *new: str, stores: bool = False) -> dict[str, Any]:
    driver = LocalConversationMemoryDriver(persist_file=file)
    runs, metadata = driver.load()
    if stores:
        more = [Run(id=f"griptape-{text}", input=TextArtifact(text), output=TextArtifact(text.upper())) for text in new]
        driver.store([*runs, *more], metadata)
    return {"runs": [[run.id, text_of(run.input), text_of(run.output)] for run in runs], "metadata": metadata}


def main() -> None:
    command, *arguments = sys.argv[1:]
    loaded = [load(file) for file in arguments] if command == "load" else [load(*arguments, stores=True)]
    sys.stdout.write(json.dumps(loaded))


if __name__ == "__main__":
    main()
