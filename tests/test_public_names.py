"""What `import memory` gives, and what it costs."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import memory

DRIVERS = (
    "alembic",
    "boto3",
    "botocore",
    "opentelemetry",
    "psycopg",
    "pydantic",
    "pynamodb",
    "redis",
    "requests",
    "rich",
    "sqlalchemy",
    "typer",
)


def modules_after(statements: str) -> set[str]:
    code = f"{statements}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_memory_loads_no_driver() -> None:
    assert modules_after("import memory").isdisjoint(DRIVERS)


def test_importing_memory_loads_nothing_that_most_applications_do_not_need() -> None:
    loaded = modules_after("import memory")
    assert loaded.isdisjoint(
        [
            "anyio",
            "asyncio",
            "decimal",
            "hashlib",
            "importlib.metadata",
            "memory.aio",
            "memory.core.events",
            "memory.domain.criteria",
            "memory.port.planner",
            "memory.port.urls",
            "random",
            "urllib.parse",
            "uuid",
        ]
    )


def test_an_unknown_scheme_alone_needs_the_metadata_of_packages() -> None:
    assert "importlib.metadata" not in modules_after("import memory; memory.connect('memory://').close()")


def test_opening_a_store_loads_its_own_driver_only() -> None:
    loaded = modules_after("import memory; memory.connect('sqlite://').close()")
    assert loaded & set(DRIVERS) == {"sqlalchemy"}
    assert modules_after("import memory; memory.connect('memory://').close()").isdisjoint(DRIVERS)


def test_the_page_of_public_names_is_right() -> None:
    page = Path(__file__).parents[1] / "docs" / "api.md"
    rows = re.findall(r"^\| `(memory[\w.]*)` \| (.*) \|$", page.read_text(), re.MULTILINE)
    assert len(rows) == page.read_text().count("\n| `memory") > 10
    for module, names in rows:
        if module not in (
            "memory.bridges.griptape",
            "memory.port",
        ):  # Griptape changes json; the port is described elsewhere
            for name in re.findall(r"`(\w+)[`(]", names):
                assert hasattr(import_module(module), name), (module, name)


def test_dir_shows_what_is_public_and_nothing_else() -> None:
    assert dir(memory) == sorted(memory.__all__)


def test_every_public_name_is_there_and_documented() -> None:
    for name in memory.__all__:
        assert getattr(memory, name).__doc__
