"""What `import memory` gives, and what it costs."""

import subprocess
import sys

import memory

DRIVERS = ("alembic", "boto3", "botocore", "psycopg", "pynamodb", "redis", "requests", "rich", "sqlalchemy", "typer")


def modules_after(statements: str) -> set[str]:
    code = f"{statements}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_memory_loads_no_driver() -> None:
    assert modules_after("import memory").isdisjoint(DRIVERS)


def test_opening_a_store_loads_its_own_driver_only() -> None:
    loaded = modules_after("import memory; memory.connect('sqlite://').close()")
    assert loaded & set(DRIVERS) == {"sqlalchemy"}
    assert modules_after("import memory; memory.connect('memory://').close()").isdisjoint(DRIVERS)


def test_every_public_name_is_there_and_documented() -> None:
    for name in memory.__all__:
        assert getattr(memory, name).__doc__
