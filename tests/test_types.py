"""Types, strict: beside the other tests, since mypy takes one core for most of a minute."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not find_spec("mypy") or not find_spec("pandas-stubs"), reason="mypy or pandas-stubs is missing")
def test_types() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
