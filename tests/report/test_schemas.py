"""What --json prints is what its schema says."""

import json
import shlex
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from cdvft_bench.cli import main
from cdvft_bench.commands.shared import SCHEMA
from cdvft_bench.report.schemas import PRINTED, schemas

ROOT = Path(__file__).parents[2]
FILE, PROFILES = ROOT / "docs" / "schemas.json", ROOT / "profiles"
CALLS = [
    "predict cdvft --layer 48x32",
    "count lora rank=2 --layer 48x32 --tokens 4",
    "plan --d 48 --gpu l4",
    "answer --model minilm --gpu l4 --methods lora,cdvft",
    "list gpus",
    "doctor",
    f"rank '{PROFILES / 'accuracy-clothes-vit'}'",
]


def test_the_file_is_up_to_date() -> None:
    made = json.loads(json.dumps(schemas(SCHEMA)))
    assert json.loads(FILE.read_text(encoding="utf-8")) == made, "run cdvft-bench dev schemas > docs/schemas.json"


def test_every_command_that_prints_json_has_a_schema() -> None:
    printing = {n for n, c in main.commands.items() if any("--json" in p.opts for p in c.params)}
    assert printing == set(PRINTED)


def test_verify_prints_its_file_with_the_schema_before_it() -> None:
    done = CliRunner().invoke(main, ["verify", "--only", "parameters-against-lora", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told.pop("schema") == SCHEMA
    read = msgspec.convert(told, PRINTED["verify"][0], strict=True)
    for one in (told, *told["verdicts"]):
        assert one.pop("as_pinned") is True
    del told["format"], told["version"]
    assert json.loads(msgspec.json.encode(read)) == told


@pytest.mark.parametrize("call", CALLS)
def test_what_is_printed_is_what_the_schema_says(call: str) -> None:
    done = CliRunner().invoke(main, [*shlex.split(call), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told.pop("schema") == SCHEMA
    first, *_ = PRINTED[call.split()[0]]
    read = msgspec.convert(told, first, strict=True)
    assert json.loads(msgspec.json.encode(read)) == told  # no key is lost, none is missing
