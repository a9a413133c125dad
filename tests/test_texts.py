"""The comparison of texts lets rounding pass, and nothing else."""

import pytest

from tests.texts import alike, same_text


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("0.697", "0.698", True),
        ("0.697", "0.699", False),
        ("12", "13", False),
        ("1,234", "1,234", True),
        ("8.6e-17", "3e-16", True),
        ("8.6e-7", "8.7e-7", True),
        ("8.6e-7", "8.8e-7", False),
        ("-1", "1", False),
        ("1.000", "1", True),
        ("1", "1.4", False),
        ("-0.0", "0.0", True),
        ("1.1e-7", "0", False),
    ],
)
def test_figures(a: str, b: str, same: bool) -> None:
    assert alike(a, b) is same
    assert alike(b, a) is same


def test_texts() -> None:
    page = "on the front in 68 % of draws\n| LoRA r=8 | 67.2 [63.6, 70.9] | 3 |\n"
    same_text(page, page.replace("68 %", "69 %").replace("63.6", "63.7"))
    for wrong in (
        page.replace("68 %", "70 %"),
        page.replace("| 3 |", "| 4 |"),
        page.replace("LoRA r=8", "LoRA r=16"),
        page.replace("63.6", "63.8"),
        page + "more\n",
        page.replace("[63.6, ", "["),
        page.partition("\n")[0],
    ):
        with pytest.raises(AssertionError):
            same_text(page, wrong)
