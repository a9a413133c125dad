"""The guide's blocks of code run as they stand there: Python in one process, TOML as files, commands one by one."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdvft_bench.cli import main
from tests.fresh import Fresh

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def test_python_runs_from_top_to_bottom(fresh: Fresh) -> None:
    fresh.run("\n".join(blocks("python")))  # in a process of its own: a method that it registers is nobody else's


@pytest.mark.timeout(900)
def test_commands_run_on_the_files_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("toml"):
        name = re.match(r"# file: (\S+)\n", block)
        assert name is not None
        Path(name[1]).write_text(block)
    for line in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "cdvft-bench"
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    assert "Two campaigns compared" in Path("compared.html").read_text()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", GUIDE.read_text()):
        assert (GUIDE.parent / target).exists(), target
