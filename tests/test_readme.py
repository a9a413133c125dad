"""What the README shows runs as it stands there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cdvft_bench.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_commands_are_known() -> None:
    """Every command in the running text; what they do is tested elsewhere."""
    named = re.findall(r"`(?:cdvft-bench )?((?:count|report|sweep|verify|trace|run) [^`]+)`", README)
    assert len(named) > 6
    for line in named:
        name, *arguments = shlex.split(line)
        main.commands[name].make_context(name, arguments)


def test_the_workflow_is_one_and_its_steps_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks("yaml")
    workflow = yaml.safe_load(text)
    assert set(workflow) == {"name", True, "jobs"}  # YAML 1.1 reads "on" as a truth value
    for job in workflow["jobs"].values():
        assert set(job) == {"runs-on", "steps"}
        assert all(len({"uses", "run"} & set(step)) == 1 for step in job["steps"])
        assert all(set(step) <= {"uses", "run", "with", "if", "name"} for step in job["steps"])
    install, *commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert install == "pip install -c constraints.txt ."
    monkeypatch.chdir(tmp_path)
    for line in commands:
        name, *arguments = shlex.split(line)
        assert name == "cdvft-bench"
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
    assert (tmp_path / "claims.xml").exists()
    assert "path: claims.xml" in text


def test_ci_calls_the_readmes_test_command() -> None:
    script = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    assert ".venv-tox/bin/tox" in script
    assert ".venv-tox/bin/tox" in blocks("sh")[1]


def test_the_first_two_blocks_are_single_lines() -> None:
    assert all(len(block.strip().splitlines()) == 1 for block in blocks("sh")[:2])
