"""Somebody else's module, judged by somebody else's ledger."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from cdvft_bench.claims import verify
from cdvft_bench.claims.table import to_junit
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import write_file
from tests.fresh import Fresh

MODULES = """
import math, torch
from torch import nn

class Thin(nn.Module):
    def __init__(self, base, rank=4, dense=False, slow=False):
        super().__init__()
        self.base, self.dense, self.slow = base, dense, slow
        self.a = nn.Parameter(torch.randn(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        if self.dense:
            return self.base(x) + x @ (self.b @ self.a).T
        if self.slow:
            for _ in range(x.shape[-1]):
                self.a * 1.0
        return self.base(x) + x @ self.a.T @ self.b.T

class Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, a, b):
        ctx.save_for_backward(x, a, b)
        return x @ a.T @ b.T

    @staticmethod
    def backward(ctx, g):
        x, a, b = ctx.saved_tensors
        dw = g.flatten(0, -2).T @ x.flatten(0, -2)
        return g @ b @ a, b.T @ dw, dw @ a.T

class Behind(Thin):
    def forward(self, x):
        return self.base(x) + Dense.apply(x, self.a, self.b)

class Whole(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        self.w = nn.Parameter(torch.randn(d_out, d_in))

    def forward(self, x):
        return x @ self.w.T

class Broken(Thin):
    def forward(self, x):
        raise RuntimeError("two\\nlines")

def cost(d_in, d_out, tokens, rank=4, dense=False, slow=False):
    return {"parameters": rank * (d_in + d_out), "flops.forward.mac": tokens * rank * (d_in + d_out)}

def wrong(d_in, d_out, tokens, **arguments):
    return {"parameters": 1, "flops.forward.mac": 1}

class Gone(Thin):
    def __init__(self, base):
        import os
        os._exit(3)

def one(p=3): return torch.full((p,), 1.0)
def two(p=3): return torch.full((p,), 2.0)
"""

HEAD = '[ledger]\ntitle = "mine"\nversion = 1\n'


def claim(name: str, **entry: str) -> str:
    entry = {"id": f'"{name}"', "statement": '"s"', "source": '{ paper = "p", section = "s" }', **entry}
    return "[[claim]]\n" + "".join(f"{k} = {v}\n" for k, v in entry.items())


@pytest.fixture
def write(tmp_path: Path, request: pytest.FixtureRequest) -> object:
    # A module name of its own: Python imports a name once.
    module = "mine_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    (tmp_path / f"{module}.py").write_text(MODULES)

    def to_file(*claims: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text((HEAD + "\n".join(claims)).replace("mine:", f"{module}:"))
        return path

    return to_file


THIN = '{ module = "mine:Thin", arguments = { rank = 4 }, formula = "mine:cost" }'


def test_laws_of_a_module_are_judged_by_both_witnesses(write) -> None:  # type: ignore[no-untyped-def]
    axis = 'over = "d", values = [64, 128, 192, 256, 320]'
    path = write(
        claim(
            "parameters",
            quantity='"parameters"',
            subject=THIN,
            layer='"64x32"',
            law='{ kind = "equals", expected = 384 }',
            witnesses='["formula", "count"]',
        ),
        claim(
            "linear",
            quantity='{ name = "flops", scope = "adapter", convention = "mac" }',
            subject=THIN,
            law=f'{{ kind = "linear", {axis} }}',
            tolerance="0.01",
            witnesses='["formula", "count"]',
        ),
        claim(
            "absent",
            quantity='"largest_allocation"',
            subject=THIN,
            layer='"256x256"',
            law='{ kind = "absent" }',
            witnesses='["count"]',
        ),
        claim(
            "whole",
            quantity='"parameters"',
            subject='{ module = "mine:Whole", build = "widths" }',
            law=f'{{ kind = "exponent", expected = 2, {axis} }}',
            tolerance="0.01",
            witnesses='["count"]',
        ),
    )
    found = verify(path)
    assert [v.word for v in found.verdicts] == ["holds"] * 4, [v.detail for v in found.verdicts]
    assert found.as_pinned


def test_a_module_that_builds_the_change_is_caught(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        claim(
            "absent",
            quantity='"largest_allocation"',
            subject='{ module = "mine:Thin" }',
            layer='"256x256"',
            law='{ kind = "absent" }',
            witnesses='["count"]',
            verdict='"holds only if"',
            assumption='"not built"',
            open='{ "subject.dense" = [false, true] }',
            only_if='{ "subject.dense" = [false] }',
        ),
        claim(
            "pinned",
            quantity='"largest_allocation"',
            layer='"256x256"',
            subject='{ module = "mine:Thin", arguments = { dense = true } }',
            law='{ kind = "absent" }',
            witnesses='["count"]',
        ),
        claim(
            "backward",
            quantity='"largest_allocation"',
            layer='"256x256"',
            subject='{ module = "mine:Behind" }',
            law='{ kind = "absent" }',
            witnesses='["count"]',
            verdict='"fails"',
        ),
    )
    found = verify(path)
    assert [v.word for v in found.verdicts] == ["holds only if", "fails", "fails"]
    assert [v.as_pinned for v in found.verdicts] == [True, False, True]
    assert "off by +" in found.verdicts[1].detail


def test_a_law_that_a_module_breaks(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        claim(
            "slow",
            quantity='{ name = "flops", scope = "adapter", convention = "flop" }',
            subject='{ module = "mine:Thin", arguments = { slow = true } }',
            tokens="1",
            law='{ kind = "linear", over = "d", values = [32, 48, 64, 96, 128] }',
            tolerance="0.01",
            witnesses='["count"]',
        ),
    )
    verdict = verify(path).verdicts[0]
    assert verdict.word == "fails"
    assert "n^2" in verdict.readings[0].results[0].text


def test_witnesses_that_disagree_are_named(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        claim(
            "apart",
            quantity='"parameters"',
            subject='{ module = "mine:Thin", formula = "mine:wrong" }',
            layer='"64x32"',
            law='{ kind = "equals", expected = 384 }',
            witnesses='["formula", "count"]',
            verdict='"fails"',
        ),
    )
    verdict = verify(path).verdicts[0]
    assert "the sources disagree: count for it, formula against" in verdict.detail
    assert verdict.as_pinned


def test_a_missing_witness_is_named(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        claim(
            "silent",
            quantity='"parameters"',
            subject='{ module = "mine:Thin" }',
            layer='"64x32"',
            law='{ kind = "equals", expected = 384 }',
            witnesses='["formula", "count"]',
        ),
    )
    found = verify(path)
    assert found.verdicts[0].word == "not measured"
    assert "not available: formula (the module comes with no closed form; to supply it: give 'formula'" in (
        found.verdicts[0].detail
    )
    assert not found.as_pinned


def test_two_functions(write) -> None:  # type: ignore[no-untyped-def]
    entry = {"law": '{ kind = "identity" }', "tolerance": "1e-6", "witnesses": '["count"]'}
    path = write(
        claim("same", quantity='{ name = "difference", left = "mine:one", right = "mine:one", p = 5 }', **entry),
        claim("not", quantity='{ name = "difference", left = "mine:one", right = "mine:two" }', **entry),
    )
    assert [v.word for v in verify(path).verdicts] == ["holds", "fails"]


def test_foreign_errors_are_one_line(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        claim(
            "boom",
            quantity='{ name = "launches" }',
            subject='{ module = "mine:Broken" }',
            layer='"64x32"',
            law='{ kind = "at_most", expected = 9 }',
            witnesses='["count"]',
        ),
    )
    with pytest.raises(UserError) as caught:
        verify(path)
    message = str(caught.value)
    assert "claim 'boom': module" in message
    assert "RuntimeError: two lines" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("body", "cause"), [("import sys; sys.exit(3)", "SystemExit: 3"), ("1 / 0", "ZeroDivisionError: division by zero")]
)
def test_a_module_that_ends_at_import_is_a_clear_error(write, tmp_path: Path, body, cause) -> None:  # type: ignore[no-untyped-def]
    path = write(
        claim(
            "gone",
            quantity='{ name = "launches" }',
            subject=f'{{ module = "ends_{cause[:4]}:Layer" }}',
            layer='"64x32"',
            law='{ kind = "at_most", expected = 9 }',
            witnesses='["count"]',
        ),
    )
    (path.parent / f"ends_{cause[:4]}.py").write_text(body)
    with pytest.raises(UserError, match=f"does not import \\({cause}\\); install it, or put it in the ledger's folder"):
        verify(path)


def test_the_pin_has_values_too(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        claim(
            "rank",
            quantity='"parameters"',
            subject=THIN,
            layer='"64x32"',
            law='{ kind = "equals", expected = 384 }',
            witnesses='["count"]',
            verdict='"holds only if"',
            assumption='"rank"',
            open='{ "subject.rank" = [2, 4, 8] }',
            only_if='{ "subject.rank" = [8] }',
        ),
    )
    verdict = verify(path).verdicts[0]
    assert dict(verdict.needed) == {"subject.rank": (4,)}
    assert verdict.pinned == "the ledger expects it to hold only with subject.rank = 8, it does with 4"


def test_module_command_and_junit(write, tmp_path: Path, fresh: Fresh) -> None:  # type: ignore[no-untyped-def]
    path = write(
        claim(
            "good",
            quantity='"parameters"',
            subject=THIN,
            layer='"64x32"',
            law='{ kind = "equals", expected = 384 }',
            witnesses='["formula"]',
        ),
        claim(
            "bad",
            quantity='"parameters"',
            subject=THIN,
            layer='"64x32"',
            law='{ kind = "equals", expected = 383 }',
            witnesses='["formula"]',
        ),
    )
    command = ["verify", "--markdown", "table", "--ledger"]
    module = "import runpy; runpy.run_module('cdvft_bench', run_name='__main__')"
    done = fresh.run(module, *command, str(path), check=False)
    assert done.returncode == 1
    assert "not as pinned" in done.stdout
    missing = fresh.run(module, *command, str(tmp_path / "none.toml"), check=False)
    assert missing.returncode == 2
    assert len(missing.stderr.splitlines()) == 1

    found = verify(path)
    write_file(tmp_path / "junit.xml", to_junit(found))
    suite = ET.parse(tmp_path / "junit.xml").find("testsuite")
    assert suite is not None
    assert suite.attrib["failures"] == "1"
    failure = suite.find("testcase[@name='bad']/failure")
    assert failure is not None
    assert failure.attrib["message"] == "the ledger expects 'holds', the verdict is 'fails'"


def test_forked_processes_give_the_same_verdicts_and_one_that_dies_is_told_of(write) -> None:  # type: ignore[no-untyped-def]
    def of(name: str, subject: str, expected: int) -> str:
        law = f'{{ kind = "equals", expected = {expected} }}'
        return claim(name, quantity='"parameters"', subject=subject, layer='"64x32"', law=law, witnesses='["count"]')

    path = write(of("right", THIN, 384), of("wrong", THIN, 383), of("right-too", THIN, 384))
    alone, beside = verify(path), verify(path, workers=2)
    assert [v.word for v in beside.verdicts] == ["holds", "fails", "holds"]
    assert beside.verdicts == alone.verdicts
    path = write(of("right", THIN, 384), of("gone", '{ module = "mine:Gone" }', 384))
    with pytest.raises(UserError, match=r"mine\.toml: a process that judged claims was killed.*give --workers 1"):
        verify(path, workers=2)
    path = write(of("broken", '{ module = "mine:Broken", arguments = { ranks = 4 } }', 384))
    with pytest.raises(UserError, match="claim 'broken'"):
        verify(path, workers=2)
