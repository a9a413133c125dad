"""``pytest --claims`` collects a ledger's claims as tests."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import cdvft_bench.claims.judge  # noqa: F401 - pytester forgets what is first imported inside it, and numpy loads once

pytest_plugins = ["pytester"]

# Where the package's entry point is installed, pytest loads the plugin by itself.
LOAD = [] if entry_points(group="pytest11", name="cdvft_bench_claims") else ["-p", "cdvft_bench.claims.plugin"]

LEDGER = """
[ledger]
title = "mine"
version = 1
[[claim]]
id = "good"
statement = "it has 192 parameters"
source = { paper = "p", section = "s" }
quantity = "parameters"
subject = { method = "cdvft", m = 2 }
layer = "64x64"
law = { kind = "equals", expected = 192 }
witnesses = ["formula"]
[[claim]]
id = "bad"
statement = "it has 191 parameters"
source = { paper = "p", section = "s" }
quantity = "parameters"
subject = { method = "cdvft", m = 2 }
layer = "64x64"
law = { kind = "equals", expected = 191 }
witnesses = ["formula"]
[[claim]]
id = "silent"
statement = "it is accurate"
source = { paper = "p", section = "s" }
quantity = "accuracy"
subject = { method = "cdvft", m = 2 }
law = { kind = "at_most", expected = 1 }
witnesses = ["accuracy"]
verdict = "not measured"
"""


def test_claims_are_tests(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", mine=LEDGER)
    pytester.makepyfile("def test_other(): pass")
    result = pytester.runpytest_inprocess(*LOAD, "--claims", "mine.toml", "-rs")
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*it has 191 parameters*", "*not as pinned: the ledger expects 'holds'*"])
    result.stdout.fnmatch_lines(["*not available: accuracy (no recorded fine-tuning run of cdvft*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    chosen = pytester.runpytest_inprocess(*LOAD, "--claims", "mine.toml", "-k", "good")
    chosen.assert_outcomes(passed=1, deselected=3)


def test_a_bad_ledger_is_one_error(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", mine=LEDGER.replace('"parameters"', '"beauty"', 1))
    result = pytester.runpytest_inprocess(*LOAD, "--claims", "mine.toml")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*claim 'good': quantity 'beauty' is not known*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_missing_ledger_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(*LOAD, "--claims", "none.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_without_the_option_nothing_is_collected(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", mine=LEDGER)
    assert pytester.runpytest_inprocess(*LOAD).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys; import cdvft_bench.claims.plugin; "
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'transformers', 'peft', 'fvcore', 'rich', 'msgspec'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
