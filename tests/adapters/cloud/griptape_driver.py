"""Griptape's own driver, in a process of its own: importing griptape changes `json` for the whole process.

``python griptape_driver.py URL ALIAS load`` prints what it loads; with ``store`` and texts it stores one run for each after those
that it has loaded.
"""

import json
import sys

from griptape.artifacts import TextArtifact  # type: ignore[import-untyped]
from griptape.drivers.memory.conversation.griptape_cloud import (  # type: ignore[import-untyped]
    GriptapeCloudConversationMemoryDriver,
)
from griptape.memory.structure import Run  # type: ignore[import-untyped]


def main() -> None:
    url, alias, command, *texts = sys.argv[1:]
    driver = GriptapeCloudConversationMemoryDriver(base_url=url, api_key="key-of-org-a", alias=alias)
    runs, metadata = driver.load()
    if command == "store":
        new = [
            Run(id=f"griptape-{text}", input=TextArtifact(text), output=TextArtifact(text.upper())) for text in texts
        ]
        driver.store([*runs, *new], metadata)
    loaded = [[run.id, run.input.to_text(), run.output.to_text()] for run in runs]
    sys.stdout.write(json.dumps({"runs": loaded, "metadata": metadata}))


if __name__ == "__main__":
    main()
