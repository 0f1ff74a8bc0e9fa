"""Griptape's own local driver, in a process of its own: importing griptape changes `json` for the whole process.

``python griptape_local.py FILE load`` prints what it loads; with ``store`` it writes back what it has loaded, and with texts it
stores one more run for each.
"""

import json
import sys
from typing import Any

from griptape.artifacts import TextArtifact  # type: ignore[import-untyped]
from griptape.drivers.memory.conversation.local import (  # type: ignore[import-untyped]
    LocalConversationMemoryDriver,
)
from griptape.memory.structure import Run  # type: ignore[import-untyped]


def text_of(artifact: Any) -> str:
    return str(artifact.value) if isinstance(artifact.value, str) else str(artifact.type)


def main() -> None:
    file, command, *texts = sys.argv[1:]
    driver = LocalConversationMemoryDriver(persist_file=file)
    runs, metadata = driver.load()
    if command == "store":
        new = [
            Run(id=f"griptape-{text}", input=TextArtifact(text), output=TextArtifact(text.upper())) for text in texts
        ]
        driver.store([*runs, *new], metadata)
    loaded = [[run.id, text_of(run.input), text_of(run.output)] for run in runs]
    sys.stdout.write(json.dumps({"runs": loaded, "metadata": metadata}))


if __name__ == "__main__":
    main()
