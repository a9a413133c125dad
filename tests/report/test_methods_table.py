"""The page of methods says what the methods say, and the committed one is up to date."""

import subprocess
import sys
from pathlib import Path

import pytest

from cdvft_bench.methods import make_method, method_names
from cdvft_bench.report.page.methods import hyperparameters, methods_markdown

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_committed_page_is_up_to_date() -> None:
    assert PAGE.read_text() == methods_markdown(), "run: cdvft-bench dev methods > docs/methods.md"


def test_the_page_has_a_row_and_a_section_for_every_method() -> None:
    page = methods_markdown()
    for name in method_names():
        assert page.count(f"| `{name}` |") == 1
        assert page.count(f"(../cdvft_bench/methods/{name}.py)") == 1
        assert (PAGE.parent / f"../cdvft_bench/methods/{name}.py").exists()
    assert page.count("\n## ") == len(method_names())
    assert page.count("Not covered: ") == len(method_names())


def test_numbers_of_lora_by_hand() -> None:
    # 8 (768 + 768) parameters. Forward: base, two thin products, scale, sum; backward: scale, four thin
    # products, base, sum; update: the step counters, the parameters.
    assert "| LoRA | `lora` | 12,288 | 14 | `rank` = 8, `alpha` = 16 |" in methods_markdown()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("full", "none"),
        ("ia3", "`feedforward` = false"),
        ("c3a", "`block_size` = none (here 768)"),
        ("oft", "`block_size` = 32"),
    ],
)
def test_defaults_are_written_out(name, text) -> None:
    assert hyperparameters(make_method(name)) == text


def test_the_page_needs_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from cdvft_bench.report.page.methods import methods_markdown; methods_markdown()\n"
        "assert not {'torch', 'peft', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
