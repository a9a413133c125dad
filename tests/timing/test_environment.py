"""The environment: complete, stable, and silent about whose machine it is."""

from __future__ import annotations

import getpass
import json
import platform
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cdvft_bench import __version__
from cdvft_bench.timing.machine import environment
from cdvft_bench.timing.machine.environment import read_environment


def test_it_says_what_runs_here() -> None:
    e = read_environment()
    assert e.cpu
    assert e.cores >= 1
    assert e.memory_gib is None or e.memory_gib > 0.1
    assert e.threads == torch.get_num_threads()
    assert e.python == platform.python_version()
    assert e.torch == torch.__version__
    assert e.numpy == np.__version__
    assert e.packages["peft"]
    assert len(e.gpus) == torch.cuda.device_count()
    assert e.system.startswith(platform.system())
    assert e.cpu_capability
    assert e.fft_library in ("MKL", "PocketFFT")
    assert e.matmul_precision in ("highest", "high", "medium")
    assert len(e.date) == 10


def test_it_names_no_machine_and_nobody() -> None:
    e = replace(read_environment(), date="")
    text = json.dumps(asdict(e))
    for private in (platform.node(), getpass.getuser(), str(Path.home())):
        if len(private) > 4:  # shorter ones are found in any text
            assert private not in text
    assert not any("host" in field or "user" in field for field in asdict(e))


def test_the_key_changes_with_everything_but_the_date() -> None:
    e = read_environment()
    assert e.key == read_environment().key
    assert replace(e, date="2001-01-01").key == e.key
    others = {
        "cpu": "other",
        "cores": e.cores + 1,
        "memory_gib": 1.5,
        "threads": e.threads + 1,
        "gpus": ("one",),
        "driver": "1",
        "cuda": "0.1",
        "system": "Other 1",
        "python": "3.0",
        "torch": "0",
        "numpy": "0",
        "packages": {"peft": "0"},
        "revision": "other",
        "cpu_capability": "x",
        "fft_library": "x",
        "matmul_precision": "x",
    }
    assert set(others) | {"date"} == set(asdict(e))
    keys = {replace(e, **{name: value}).key for name, value in others.items()}
    assert len(keys | {e.key}) == len(others) + 1


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with this module in it."""
    module = tmp_path / "cdvft_bench" / "timing" / "machine" / "environment.py"
    module.parent.mkdir(parents=True)
    module.write_text("# code\n")
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "code.py").write_text("# code\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    monkeypatch.setattr(environment, "__file__", str(module))
    return tmp_path


def test_the_revision_tells_changes(checkout: Path) -> None:
    clean = environment._revision()
    assert clean is not None
    assert len(clean) == 12
    (checkout / "notes.txt").write_text("not code")
    assert environment._revision() == clean
    (checkout / "reference" / "code.py").write_text("# changed\n")
    assert environment._revision() == clean + "+changes"


def test_another_project_s_checkout_is_not_ours(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = checkout / "venv" / "cdvft_bench" / "timing" / "machine"
    installed.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(installed / "environment.py"))
    assert environment._revision().startswith(f"{__version__}+")
    shutil.rmtree(checkout / "cdvft_bench" / "timing")
    assert environment._revision().startswith(f"{__version__}+")


def test_outside_a_checkout_the_code_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    found = []
    for place in ("one", "two"):
        package = tmp_path / place / "cdvft_bench"
        (package / "timing" / "machine").mkdir(parents=True)
        (package / "profiles").mkdir()
        (package / "a.py").write_text("# code\n")
        (package / "profiles" / "b.py").write_text(place)  # a record is no code
        (package / "a.pyc").write_text(place)
        monkeypatch.setattr(environment, "__file__", str(package / "timing" / "machine" / "environment.py"))
        found.append(environment._revision())
        (package / "a.py").write_text("# changed\n")
        assert environment._revision() != found[-1]
    assert found[0] == found[1]
    assert re.fullmatch(re.escape(__version__) + r"\+[0-9a-f]{12}", found[0])


def test_a_revision_that_is_given_counts_in_any_checkout(monkeypatch) -> None:
    """Another session's checkout may lie where the code of this one was unpacked."""
    monkeypatch.setenv(environment.REVISION, "abc123")
    assert environment.read_environment().revision == "abc123"


def test_a_revision_is_named_where_the_repository_is_absent(monkeypatch) -> None:
    monkeypatch.setattr(environment, "_run", lambda *_: None)
    assert (environment.read_environment().revision or "").startswith(f"{__version__}+")
    monkeypatch.setenv(environment.REVISION, " abc123 ")
    assert environment.read_environment().revision == "abc123"
