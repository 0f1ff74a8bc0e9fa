import re
from importlib import import_module
from pathlib import Path

import pytest

from memory.cli import main
from memory.errors import ConfigurationError
from memory.formats import registry
from memory.formats.registry import FORMATS, Source, check_options, read

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_reader_and_stands_in_the_help_and_the_docs(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    format_ = FORMATS[name]
    assert callable(import_module(format_.module).read)
    assert main(["import", "--help"]) == 0
    told = capsys.readouterr().out
    assert re.search(rf"^  {name} +{re.escape(format_.source)}$", told, re.MULTILINE)
    assert main(["formats"]) == 0
    assert re.search(rf"^{name} +{re.escape(format_.source)}$", capsys.readouterr().out, re.MULTILINE)
    for option in (*format_.needs, *format_.takes):
        assert f"  --{option.replace('_', '-')} " in told
    assert name == "memory" or f"--from {name}" in (DOCS / "importing.md").read_text()


def test_options_are_checked_before_anything_is_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, told in [
        (["--from", "nobody"], "there is no format 'nobody': use one of memory, griptape-local, "),
        (["--from", "griptape-dynamodb"], "--from griptape-dynamodb needs --partition-key and --value-attribute"),
        (["--from", "chatgpt", "--sort-key", "x"], "--from chatgpt does not take --sort-key"),
        (["--index", "x"], "--index needs --from: the format of the sources"),
    ]:
        assert main(["import", "missing", *arguments]) == 1
        assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name="redis")

    monkeypatch.setattr(registry, "import_module", fail)
    with pytest.raises(ConfigurationError, match=r"needs the module redis: pip install 'conversation-memory\[redis\]'"):
        read("griptape-redis", Source("redis://x", 0, None, {"index": "x"}))
    with pytest.raises(ModuleNotFoundError):
        read("chatgpt", Source("x", 0))


def test_a_file_format_needs_a_file() -> None:
    with pytest.raises(ConfigurationError, match="x is not a file"):
        list(read("griptape-local", Source("x", 0)))
    assert check_options("griptape-local", {"id": "x"}).is_file
