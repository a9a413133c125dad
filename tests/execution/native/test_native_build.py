"""How the kernels come to a machine: compiled once, kept, loaded, or missing with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution import FastCDVFTLinear, Problem, change, native
from cdvft_bench.execution.native import build, kernels
from tests.execution.test_paths import factors

pytestmark = pytest.mark.skipif(
    bool(native.missing(torch.float32)), reason=f"no compiled kernels: {native.missing(torch.float32)}"
)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine on which nothing has been compiled yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.forget()
    yield tmp_path
    kernels.forget()


def test_kernels_are_compiled_once_a_machine(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.missing(torch.float64) == ""
    (kept,) = (fresh / "cdvft_bench").iterdir()
    kernels.forget()
    with monkeypatch.context() as without:
        without.setattr(build, "_compile", None)
        assert native.missing(torch.float64) == ""
    assert list((fresh / "cdvft_bench").iterdir()) == [kept]
    damaged = fresh / "damaged.so"
    assert build._loaded(damaged) is None
    damaged.write_bytes(b"no library")
    assert build._loaded(damaged) is None  # and is compiled again


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler", "there is no C compiler 'no-such-compiler'"),
        ("gcc 'x", "No closing quotation"),
        ("false", "'false' failed: status 1"),
        ("sh -c 'echo In a function; echo error: no space >&2; exit 3'", "failed: error: no space"),
    ],
)
def test_without_a_compiler_the_path_says_so(fresh: Path, monkeypatch: Any, compiler: str, reason: str) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(UserError, match=reason):
        change(torch.randn(2, 32), *factors(32, 32, 2, 32), 32, path="native")
    assert "native" not in Problem(32, 32, 32).paths
    folder = fresh / "cdvft_bench"
    assert not folder.exists() or not list(folder.iterdir())
    layer = FastCDVFTLinear(nn.Linear(32, 32), "auto")
    assert layer(torch.randn(2, 32)).shape == (2, 32)


def test_a_cache_folder_that_cannot_be_written(fresh: Path) -> None:
    (fresh / "cdvft_bench").write_text("a file where the folder should be")
    assert "could not be compiled" in native.missing(torch.float32)
