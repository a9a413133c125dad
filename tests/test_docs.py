"""What the guides show as code runs as it stands there, and so do the examples."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cdvft_bench.tuner import CdvftConfig

DOCS = Path(__file__).parents[1] / "docs"
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{i}")
    for page in sorted(DOCS.glob("*.md"))
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    if page.stem not in ("claims", "methods")  # tests/claims has the one, the other is generated
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block: str) -> None:
    exec(compile(block, "docs", "exec"), {"__name__": "docs"})


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("causal_lm", ["--steps", "20"], "continues [16, 17, 18, 19] with"),
        ("classify_text", ["--steps", "2", "--examples", "32"], "served merged:"),
    ],
)
def test_examples(name: str, options: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(DOCS / "examples" / f"{name}.py"), "--output", str(tmp_path / "a")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=DOCS.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    assert said in done.stdout
    assert (tmp_path / "a" / "adapter_model.safetensors").is_file()


def test_the_experiment_for_pefts_method_comparison_is_a_configuration() -> None:
    folder = DOCS / "examples" / "method_comparison" / "cdvft-llama-3.2-3B"
    assert CdvftConfig.from_pretrained(str(folder)).m == 2


def test_links_between_the_pages_lead_somewhere() -> None:
    root = DOCS.parent
    for page in [*DOCS.glob("*.md"), root / "README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
