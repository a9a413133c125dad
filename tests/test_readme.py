"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdvft_bench.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run(capsys) -> None:
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "2304 " in capsys.readouterr().out


COMMANDS = [line.partition("#")[0] for block in blocks("sh") for line in block.splitlines() if "#" in line]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_known(line) -> None:
    name, *arguments = shlex.split(line)
    assert name == "cdvft-bench"
    if arguments[0] in ("predict", "doctor"):
        assert CliRunner().invoke(main, arguments).exit_code == 0
    else:  # its options parse; what it runs is tested elsewhere
        command = main.commands[arguments[0]]
        command.make_context(arguments[0], arguments[1:])


def test_ci_calls_the_readmes_test_command() -> None:
    script = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    assert ".venv-tox/bin/tox" in script
    assert ".venv-tox/bin/tox" in blocks("sh")[1]


def test_the_first_two_blocks_are_single_lines() -> None:
    assert all(len(block.strip().splitlines()) == 1 for block in blocks("sh")[:2])
