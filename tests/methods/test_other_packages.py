"""Adding a method is adding one file, of another package too: every command finds it, and the checks judge it."""

import json
from pathlib import Path

import pytest

from tests.fresh import Fresh

METHOD = '''
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import adapter_dtype, elementwise, reduction
from cdvft_bench.analytic.linear import frozen_backward, frozen_forward
from cdvft_bench.methods.base import Method, register


class Shifted(nn.Module):
    def __init__(self, base, halved):
        super().__init__()
        self.base, self.halved = base.requires_grad_(False), halved
        self.shift = nn.Parameter(torch.zeros(base.out_features, dtype=base.weight.dtype))

    def forward(self, x):
        return self.base(x) + (self.shift / 2 if self.halved else self.shift)


@register
@dataclass(frozen=True)
class Shift(Method):
    """A trained vector added to the outputs.

    Attributes:
        halved: whether half of it is.
    """

    name: ClassVar[str] = "shift"
    title: ClassVar[str] = "Shift"
    source: ClassVar[str] = "a test"

    halved: bool = False

    @classmethod
    def examples(cls, rng, layer):
        yield cls(halved=rng.random() < 0.5)

    def parameters(self, layer):
        return layer.d_out

    def cost(self, layer, tokens, dtype="float32", *, device):
        n = tokens * layer.d_out
        half = elementwise("div", layer.d_out, dtype, reads=layer.d_out, launches=int(self.halved))
        add = elementwise("add", n, dtype, reads=n + layer.d_out)
        to_shift = reduction("sum", n, layer.d_out, dtype)
        return Cost(
            parameters=layer.d_out,
            tensors=1,
            forward=(*frozen_forward(layer, tokens, dtype), half, add),
            backward=(*frozen_backward(layer, tokens, dtype), to_shift, half),
            parameter_dtype=dtype,
        )

    def adapt_linear(self, base):
        return Shifted(base, self.halved)
'''
GRID = """
[grid]
name = "mine"
description = "one small layer"
budget_s = 0.02
timeout_s = 60

[[block]]
kind = "layer"
subjects = ["32x24"]
sequence = [8]
pass = ["forward"]

[[block.method]]
name = "frozen"

[[block.method]]
name = "shift"
halved = [true, false]
"""
COMMANDS = """
import json, sys
from click.testing import CliRunner
from cdvft_bench.cli import main
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    print(json.dumps([done.exit_code, done.output]))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An installed package with one method."""
    home = tmp_path / "site"
    (home / "shifting").mkdir(parents=True)
    (home / "shifting" / "__init__.py").write_text("")
    (home / "shifting" / "shift.py").write_text(METHOD)
    metadata = home / "shifting-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shifting\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[cdvft_bench.methods]\nshift = shifting.shift\n")
    return home


def calls(fresh: Fresh, home: Path, *commands: list[str]) -> list[tuple[int, str]]:
    """Exit code and output of commands in one process that finds the package."""
    done = fresh.run(COMMANDS, json.dumps(commands), path=str(home))
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_every_command_finds_it(package: Path, fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(package)
    (package / "grid.toml").write_text(GRID)
    case = ["shift", "halved=true", "--layer", "32x24", "--tokens", "8", "--json"]
    predicted, counted, timed, swept, exported, page, checked = calls(
        fresh,
        package,
        ["predict", *case],
        ["count", *case],
        ["time", *case, "--budget", "0.02"],
        ["sweep", "grid.toml", "--store", "mine.sqlite"],
        ["export", "mine.sqlite", "rows.csv"],
        ["dev", "methods", "shift"],
        ["dev", "exact", "shift", "--cases", "20"],
    )
    for code, output in (predicted, counted, timed, swept, exported, page, checked):
        assert code == 0, output
    assert json.loads(predicted[1])["parameters"] == json.loads(counted[1])["parameters"] == 24
    assert json.loads(predicted[1])["forward"]["operators"] == {"add": 1, "addmm": 1, "div": 1}
    assert json.loads(timed[1])["timing"]["ratios"]
    assert "Shift halved=True" in (package / "rows.csv").read_text()
    assert "## Shift" in page[1]
    assert "Module: `shifting.shift`" in page[1]
    assert "A trained vector added to the outputs." in page[1]
    assert "shift: 20 cases, 0 differences" in checked[1]


@pytest.mark.slow  # a report judges all claims anew
def test_it_stands_in_a_report(package: Path, fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(package)
    (package / "grid.toml").write_text(GRID)
    swept, reported = calls(
        fresh,
        package,
        ["sweep", "grid.toml", "--store", "mine.sqlite"],
        ["report", "mine.sqlite", "--output", "made"],
    )
    assert (swept[0], reported[0]) == (0, 0), reported[1]
    assert "Shift halved=True" in (package / "made" / "tables" / "records.csv").read_text()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (", to_shift, half)", ", to_shift)", "backward: launches: formula"),
        ("cls(halved=rng.random() < 0.5)", "cls()", "no example varies halved"),
        ("base.requires_grad_(False)", "base", "must say writes_base = True"),
    ],
)
def test_a_wrong_file_is_told(package: Path, fresh: Fresh, old: str, new: str, told: str) -> None:
    assert old in METHOD
    (package / "shifting" / "shift.py").write_text(METHOD.replace(old, new))
    ((code, output),) = calls(fresh, package, ["dev", "exact", "shift", "--cases", "20"])
    assert code == 1
    assert told in output


def test_a_broken_package_takes_no_method_away(package: Path, fresh: Fresh) -> None:
    for text, reason in [
        ("import shifting.nothing", "ModuleNotFoundError"),
        (METHOD.replace('"shift"', '"lora"'), "are both called 'lora'"),
        (METHOD.replace("@dataclass(frozen=True)\n", ""), "Shift is no frozen dataclass"),
        (METHOD.replace('    source: ClassVar[str] = "a test"\n', ""), "Shift has no source"),
    ]:
        (package / "shifting" / "shift.py").write_text(text)
        code = (
            "import warnings\n"
            "with warnings.catch_warnings(record=True) as told:\n"
            "    warnings.simplefilter('always')\n"
            "    from cdvft_bench.methods import method_names\n"
            "    assert 'lora' in method_names() and 'shift' not in method_names()\n"
            "print(*[w.message for w in told])"
        )
        done = fresh.run(code, path=str(package))
        assert "entry point shift = shifting.shift are left out" in done.stdout
        assert reason in done.stdout
