"""Every piece of Python in the README and the docs runs, from top to bottom of its page; every command and every link works."""

import re
import shlex
import sys
from json import JSONEncoder
from pathlib import Path
from types import ModuleType

import pytest

from memory import Store
from memory.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return [block for block in BLOCK.findall(page.read_text(encoding="utf-8")) if block[0] in ("python", "console")]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_code_and_the_commands_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        JSONEncoder, "default", JSONEncoder.default
    )  # Griptape's page changes it: put it back afterwards
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")  # no page sends traces, whatever key there is
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # some libraries look up the module of a class
    names = vars(module)
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page.name, "exec"), names)
        else:
            for line in text.splitlines():
                run_command(line)
    for store in [value for value in names.values() if isinstance(value, Store)]:
        store.close()


def run_command(line: str) -> None:
    """Run a command of ours; the others (making an environment, `pytest` itself) are what `.ci/run` does."""
    if line.startswith("memory "):
        assert main(shlex.split(line)[1:]) == 0, line


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for file, heading in LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not heading or heading in headings(target), f"{file}#{heading}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in lines}
