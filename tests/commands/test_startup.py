"""What commands import: answers from formulas come without torch, and bad arguments are refused before it is loaded."""

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "transformers", "peft", "pandas", "matplotlib", "plotly")
ASK = f"""
import sys
from cdvft_bench.cli import main
for command in sys.stdin.read().splitlines():
    try:
        main(command.split())
    except SystemExit as end:
        print("ended:", end.code, *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""

ANSWERS = [
    "predict cdvft --layer roberta-base:query",
    "predict lora rank=8 --model llama-3-70b --json",
    "advise --model roberta-base --gpu a100 --seq 128 --method lora",
    "compare --help",
]
MISTAKES = [
    "count lora rank=0 --layer 8x8",
    "count lora --layer nosuch:query",
    "time nosuch --layer 8x8",
    "time lora --layer 8x8 --dtype float12",
    "plan --layer 8y8",
    "advise --model nosuch --gpu a100",
    "train nosuch --output out.jsonl",
    "steps nosuch --output out.json",
    "run --preset nosuch",
    "sweep nosuch --store out.sqlite",
    "report nosuch.sqlite",
    "compare nosuch.sqlite nosuch.sqlite",
    "verify --ledger nosuch.toml",
    "evaluate nosuch.sqlite",
    "expressivity run nosuch --output out",
    "calibrate --device nosuch",
    "pareto nosuch.jsonl --output out",
]


def ended(commands: list[str], cwd: Path) -> list[str]:
    """Exit codes of commands run one after the other in a fresh process, and the heavy packages loaded by then."""
    given = "\n".join(commands)
    done = subprocess.run([sys.executable, "-c", ASK], input=given, capture_output=True, text=True, cwd=cwd)
    return [line.removeprefix("ended: ") for line in done.stderr.splitlines() if line.startswith("ended: ")]


def test_answers_from_formulas_need_no_heavy_package(tmp_path) -> None:
    assert dict(zip(ANSWERS, ended(ANSWERS, tmp_path), strict=True)) == dict.fromkeys(ANSWERS, "0")


def test_mistakes_are_refused_before_heavy_packages_are_loaded(tmp_path) -> None:
    assert dict(zip(MISTAKES, ended(MISTAKES, tmp_path), strict=True)) == dict.fromkeys(MISTAKES, "2")
    assert not list(tmp_path.iterdir())
