from pathlib import Path

import memory
from tests.cli.conftest import Cli
from tests.test_transfer import fill_with_odd_things


def test_a_schema_is_asked_for_and_then_all_comes_across_to_the_last_byte(cli: Cli, postgres_url: str) -> None:
    with memory.connect("sqlite:///conversations.db") as store:
        fill_with_odd_things(store)
    cli("export", "first.jsonl")

    refused = cli("import", "first.jsonl", "--store", postgres_url)
    assert refused.code == 1
    assert "memory migrate" in refused.err
    assert refused.out == ""
    assert cli("migrate", "--status", "--store", postgres_url).code == 1
    assert cli("migrate", "--store", postgres_url).code == 0
    assert cli("migrate", "--status", "--store", postgres_url).code == 0

    assert cli("import", "first.jsonl", "--store", postgres_url).out == "imported 19 conversations and 631 runs\n"
    assert cli("import", "first.jsonl", "--store", postgres_url).out.endswith(" and 16 more)\n")
    assert cli("import", "first.jsonl", "--store", postgres_url, "--on-conflict", "replace").code == 0
    cli("export", "second.jsonl", "--store", postgres_url)
    assert Path("second.jsonl").read_bytes() == Path("first.jsonl").read_bytes()
