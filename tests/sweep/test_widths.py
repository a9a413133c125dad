"""The table of the compiled kernels by vector width: measured by turns, told with its range."""

import pytest
import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution import native
from cdvft_bench.sweep.probes.widths import CONTENDERS, ROWS, Found, Row, measure, measure_here, table


def test_the_table() -> None:
    row = Row(64, 8, 0.9)

    def found(target: str, native_s: float) -> Found:
        seconds = {"native": native_s, "lora": 1.0, "frozen": 0.5, "fft": 1.5, "c3a": 2.5}
        return Found(str(row), target, seconds, native_s)

    told = table([found("native", n) for n in (0.75, 0.7, 0.8)] + [found("avx2", 1.0)], [row])
    line = told.splitlines()[-1]
    assert line.startswith(
        "| 64, 8 tokens | <= 0.90 | 0.750 (0.700 to 0.800) | 1.000 (1.000 to 1.000) | 0.500 | 1.500 |"
    )
    assert line.endswith("| 4.0 x, 8.0 x | 2.0 x, 4.0 x |")
    assert len({len(text.split("|")) for text in told.splitlines()}) == 1


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({str(row) for row in ROWS}) == len(ROWS)


@pytest.mark.skipif(bool(native.missing(torch.float32)), reason="no compiled kernels")
@pytest.mark.parametrize("pass_", ["step", "forward"])
def test_a_row_is_measured(pass_: str) -> None:
    (found,) = measure_here([Row(32, 8, 1.0, p=16, dtype="bfloat16", pass_=pass_)], 0.05, 1)  # type: ignore[arg-type]
    assert set(found.seconds) == set(CONTENDERS)
    assert min(found.seconds.values()) > 0
    assert found.over_lora > 0


def test_a_target_that_is_none() -> None:
    with pytest.raises(UserError, match=r"target neon: .*'neon', not one of native, avx2, sse"):
        measure(["neon"], ROWS[:2], 0.1, 1, 1)
