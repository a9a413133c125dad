"""The commands as a user types them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from cdvft_bench.cli import main
from cdvft_bench.execution import native
from cdvft_bench.execution.rates.measured import Effort


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from cdvft_bench.cli import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; "
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'transformers', 'peft', 'fvcore', 'rich', 'msgspec'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_module_and_console_script_are_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cdvft_bench", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == call("--version").output


def test_predict() -> None:
    result = call("predict", "cdvft", "m=2", "block_size=768", "--layer", "768x768", "--tokens", "256", "--json")
    assert result.exit_code == 0, result.output
    predicted = json.loads(result.output)
    assert predicted["parameters"] == 3 * 768
    assert predicted["forward"]["macs"] == 256 * 768 * 768
    shown = call("predict", "cdvft", "--layer", "roberta-base:query")
    assert "2,304" in shown.output
    assert "convention flop" in shown.output
    assert "CDVFT on roberta-base:query: " in shown.output


def test_count_agrees_with_predict() -> None:
    result = call("count", "lora", "rank=4", "--layer", "48x32", "--tokens", "8")
    assert result.exit_code == 0, result.output
    assert "exact" in result.output
    counted = json.loads(call("count", "lora", "rank=4", "--layer", "48x32", "--tokens", "8", "--json").output)
    assert counted["parameters"] == 4 * (48 + 32)


def test_time() -> None:
    result = call("time", "cdvft", "--layer", "48x32", "--tokens", "8", "--budget", "0.05", "--json")
    assert result.exit_code == 0, result.output
    timed = json.loads(result.output)
    assert set(timed["timing"]["ratios"]) == {"frozen", "lora r=8"}


def test_doctor() -> None:
    findings = json.loads(call("doctor", "--json").output)["rows"]
    assert {"CPU time", "peft"} <= {f["what"] for f in findings}
    assert "CPU time" in call("doctor").output


def test_run_writes_store_and_report_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = call("run", "--preset", "smoke", "--output", str(output))
    assert first.exit_code == 0, first.output
    assert "LoRA r=8" in first.output
    assert str(output / "report" / "report.html") in first.output.replace("\n", "")
    page = (output / "report" / "report.html").read_bytes()
    again = call("run", "--preset", "smoke", "--output", str(output))
    assert again.exit_code == 0, again.output
    assert (output / "report" / "report.html").read_bytes() == page  # nothing was measured again
    sweep = call("sweep", "smoke", "--store", str(output / "records.sqlite"))
    assert sweep.exit_code == 0


QUICK = str(Path(__file__).parents[1] / "profiles" / "cpu-quick" / "records.jsonl.gz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "lorra", "--layer", "8x8"], "method 'lorra' is not known"),
        (["predict", "lora", "--layer", "8by8"], "'8by8' is neither"),
        (["predict", "lora"], "give either --layer"),
        (["predict", "lora", "--layer", "8x8", "--model", "minilm"], "give either --layer"),
        (["predict", "lora", "rank", "--layer", "8x8"], "'rank' is not NAME=VALUE"),
        (["predict", "lora", "rank=0", "--layer", "8x8"], "rank = 0"),
        (["predict", "lora", "--layer", "8x8", "--dtype", "int4"], "dtype 'int4'"),
        (["predict", "lora", "--layer", "8x8", "--tokens", "0"], "0 is not in the range"),
        (["predict", "lora", "--model", "gpt-9"], "'gpt-9' is not in the table of models"),
        (["count", "cdvft", "m=two", "--layer", "8x8"], "m = 'two'"),
        (["sweep", "nothing", "--store", "x.sqlite"], "give a TOML file, or a preset"),
        (["report", "nothing.sqlite"], "is not there"),
        (["count", "lora", "--layer", "8x8", "--device", "cuda"], "torch sees no GPU"),
        (["trace", "nothing.json"], "nothing.json"),
        (["count", "lora", "rank=2", "--layer", "16x16", "--batch", "1000000000"], "15,259 GiB at the least"),
        (["time", "lora", "rank=2", "--layer", "99999999999x99999999999"], "give fewer sequences or tokens"),
        (["time", "lora", "--layer", "8x8", "--precision", "nan"], "nan is no finite number > 0"),
        (["calibrate", "--threads", "100000"], "threads = 100000 is not between 1 and"),
        (["compare", "x" * 300, "y"], "is not there"),
        (["import", "--store", "x" * 300, QUICK], "cannot be used: unable to open"),
        (["count", "--model", "x" * 300], "is not in the table of models"),
        (["pretrain", "--output", "x" * 300, "--examples", "20", "--epochs", "1"], "File name too long"),
        (["pretrain", "--output", str(Path(QUICK).parent)], "cpu-quick holds something else; name another folder"),
        (["train"], "give a PRESET: a TOML file, or one of"),
        (["predict", "lora", "--layer", "a\nb"], "'a\\nb' is neither"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, arguments, message) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_message_stays_readable_whatever_a_file_holds(tmp_path: Path) -> None:
    (tmp_path / "zeros.csv").write_bytes(bytes(100_000))
    (tmp_path / "wide.toml").write_text(f"[preset]\n{'k' * 50_000} = 1\n")
    for arguments in (["report", "zeros.csv"], ["train", "wide.toml", "--output", "a.jsonl"]):
        result = call(*(str(tmp_path / one) if "." in one else one for one in arguments))
        assert result.exit_code == 2
        assert len(result.output) < 2600
        assert len(result.output.strip().splitlines()) == 1


def test_export_is_read_like_a_store(tmp_path: Path) -> None:
    from cdvft_bench.sweep.engines.local import run
    from cdvft_bench.sweep.grid import make_case
    from cdvft_bench.sweep.storage.store import Store
    from tests.sweep.work import predict_only

    with Store(tmp_path / "s.sqlite", create=True) as store:
        run([make_case("cdvft", {}, "layer", "32x32", sequence=8)], store, work=predict_only)
    assert call("export", str(tmp_path / "s.sqlite"), str(tmp_path / "s.jsonl.gz")).exit_code == 0
    result = call("report", str(tmp_path / "s.jsonl.gz"), "--output", str(tmp_path / "report"))
    assert result.exit_code == 0, result.output
    assert call("export", str(tmp_path / "s.sqlite"), str(tmp_path / "s.txt")).exit_code == 2


def test_trace_reads_what_torch_exports(tmp_path: Path) -> None:
    import torch

    with torch.profiler.profile() as profiler:
        torch.randn(8, 8) @ torch.randn(8, 8)
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    result = call("trace", str(tmp_path / "trace.json"))
    assert result.exit_code == 0, result.output
    assert "matmul" in result.output
    assert json.loads(call("trace", str(tmp_path / "trace.json"), "--json").output)["launches"] == 3


def test_selftest_reports_its_figures() -> None:
    result = call("selftest", "--comparisons", "2", "--json")
    assert json.loads(result.output)["comparisons"] == 2
    assert result.exit_code in (0, 1)  # a busy machine may be found wanting


def test_plan_ranks_the_paths() -> None:
    result = call("plan", "--d", "768", "--tokens", "128", "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.output)
    seconds = [path["seconds"] for path in plan["paths"]]
    compiled = set() if native.missing(torch.float32) else {"native"}
    assert seconds == sorted(seconds)
    assert {path["path"] for path in plan["paths"]} == {"fused", "stored", "merged", "merged_dense", *compiled}
    assert set(plan["not_available"]) == {"native"} - compiled
    assert "not 4 times powers of 2, 3, 5 and 7" in call("plan", "--d", "44").output or not compiled
    shown = call("plan", "--layer", "roberta-base:query", "--m", "3", "--inference")
    assert "Predicted, not measured" in shown.output
    assert call("plan").exit_code == 2
    assert "leaves nothing to plan" in call("plan", "--d", "8", "--m", "1").output


def test_calibrate_writes_rates_that_plan_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rates.json"
    monkeypatch.setenv("CDVFT_BENCH_RATES", str(path))
    brief = Effort(point_s=1e-4, calls=1, repeats=2, rows=(16, 128), traffic=(4, 64), largest=1e6)
    monkeypatch.setattr("cdvft_bench.timing.calibrate.FULL", brief)
    result = call("calibrate", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text())["source"] == "measured"
    assert json.loads(call("plan", "--d", "64", "--json").output)["rates"] == "measured"
    path.write_text("{}")
    refused = call("plan", "--d", "65", "--json")
    assert refused.exit_code == 2
    assert "no calibrated rates" in refused.output


def test_verify_judges_a_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "mine.toml"
    ledger.write_text(
        """
[ledger]
title = "mine"
version = 1

[[claim]]
id = "parameters"
statement = "CDVFT trains 3 d parameters a layer."
source = { paper = "a paper", section = "3" }
quantity = "parameters"
subject = { method = "cdvft", m = 2 }
layer = "96x96"
law = { kind = "equals", expected = 288 }
witnesses = ["formula", "count"]
"""
    )
    junit = tmp_path / "report.xml"
    result = call("verify", "--ledger", str(ledger), "--junit", str(junit))
    assert result.exit_code == 0, result.output
    assert "holds" in result.output
    assert "<testcase" in junit.read_text()
    ledger.write_text(ledger.read_text().replace("288", "289"))
    wrong = call("verify", "--ledger", str(ledger), "--json")
    assert wrong.exit_code == 1
    assert json.loads(wrong.output)
    assert call("verify", "--ledger", str(tmp_path / "none.toml")).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "--d", "64", "--m", "100000"), "m = 100000 is too large: .* at most 256 diagonals"),
        (("predict", "cdvft", "m=99999999999", "--layer", "768x768"), "m = 99999999999 is too large"),
        (("predict", "cdvft", "path=fused", "m=257", "--layer", "768x768"), "m = 257 is too large"),
        (("predict", "cdvft", "path=triton", "--layer", "262144x262144"), "p = 262144 is no product of two factors"),
    ],
)
def test_what_a_closed_form_cannot_write_out_is_refused_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert re.search(said, result.output)
    assert len(result.output.strip().splitlines()) == 1


def test_large_sizes_are_exact() -> None:
    d, tokens = 2**21, 2**22
    for path in ("fft", "fused", "stored", "merged", "native", "auto"):
        result = call(
            "predict", "cdvft", f"path={path}", "--layer", f"{d}x{d}", "--batch", str(tokens), "--tokens", "1", "--json"
        )
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["forward"]["macs"] == d * d * tokens
    result = call("plan", "--d", str(d), "--tokens", str(tokens), "--json")
    assert result.exit_code == 0, result.output
    paths = {found["path"]: found for found in json.loads(result.output)["paths"]}
    assert 2**66 < paths["fused"]["flops"] < 2**67  # two products of 2 * 2^64
    assert paths["fused"]["read_written"] > 4 * 4 * d * tokens


def test_time_compares_any_methods() -> None:
    result = call(
        "time", "cdvft:p=16", "lora", "r=4", "lora:8", "--layer", "48x32", "--tokens", "8", "--budget", "0.05", "--json"
    )
    assert result.exit_code == 0, result.output
    timing = json.loads(result.output)["timing"]
    assert [s["name"] for s in timing["samples"]] == ["CDVFT m=2 p=16 fft", "frozen", "lora r=8", "LoRA r=4"]
    assert set(timing["ratios"]) == {"frozen", "lora r=8", "LoRA r=4"}
    twice = call("time", "lora:4", "lora", "rank=4", "--layer", "48x32")
    assert (twice.exit_code, "named twice" in twice.output) == (2, True)
    shown = call("time", "lora", "r=4", "--layer", "48x32", "--tokens", "8", "--budget", "0.05").output
    assert all(text in shown for text in ("LoRA rank=4 on 48x32: ", "LoRA r=8 "))
    assert "lora r=8" not in shown


def test_methods_and_dtypes_as_people_write_them() -> None:
    rest = ("--layer", "48x32", "--json")
    plain = call("predict", "lora", "rank=16", "--dtype", "bfloat16", *rest)
    assert plain.exit_code == 0, plain.output
    for spelled in (
        ("LoRA:16", "--dtype", "bf16"),
        ("lora r=16", "--dtype", "torch.bfloat16"),
        ("LORA", "R=16", "--dtype", "BF16"),
    ):
        assert call("predict", *spelled, *rest).output == plain.output
