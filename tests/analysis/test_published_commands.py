"""The four commands on runs that were made elsewhere: pages and predictions of them, and refusals in one line."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdvft_bench.cli import main
from tests.accuracy.test_published_reading import result, write
from tests.claims.test_records import ACCURACY


def lora(rank: int, **changed: object) -> dict[str, object]:
    """A result of LoRA with its true number of parameters on the query and value layers of Llama-3.2-3B."""
    config = {"peft_type": "LORA", "r": rank, "target_modules": ["q_proj", "v_proj"]}
    document = result(f"lora/llama-3.2-3B-rank{rank}", **{"run_info.peft_config": config, **changed})
    return document | {"train_info": document["train_info"] | {"num_trainable_params": 286_720 * rank}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    kasa = lora(3) | {"run_info": lora(3)["run_info"] | {"experiment_name": "lora/llama-3.2-3B-</b>kasa"}}  # type: ignore[operator]
    return write(tmp_path / "results", *(lora(2**i) for i in range(5)), kasa)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize("command", ["pareto", "report"])
def test_a_page_of_peft_s_results(folder: Path, tmp_path: Path, command: str) -> None:
    done = call(command, folder, "--output", tmp_path / "page")
    assert done.exit_code == 0, done.output
    html = (tmp_path / "page" / "report.html").read_text()
    assert "lora/llama-3.2-3B-rank16" in html
    assert "shown as given: lora/llama-3.2-3B-&lt;/b&gt;kasa" in html
    assert "</b>kasa" not in html
    with (tmp_path / "page" / "tables" / "published.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["metric"] for row in rows} == {"test_accuracy"}


def test_a_report_finds_results_in_a_tree_of_folders(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "results" / "other.json").write_text("[1]")
    (tmp_path / "table.csv").write_text("x,y\n1,2\n")  # a table counts where it is named itself
    done = call("report", tmp_path, "--output", tmp_path / "page")
    assert done.exit_code == 0, done.output
    assert "6 published runs" in (tmp_path / "page" / "report.html").read_text()


def test_ratios_of_a_user_s_runs_are_predicted(folder: Path) -> None:
    done = call("evaluate", folder, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["evaluation"] is None
    (one,) = found["published"]
    assert one["reference"] == "lora/llama-3.2-3B-rank1"
    assert [run["predicted_ratio"] for run in one["runs"]] == sorted(run["predicted_ratio"] for run in one["runs"])
    assert "rename the run" in dict(one["left_out"])["lora/llama-3.2-3B-</b>kasa"]


def test_claims_are_judged_on_a_table(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("adapter,rank,block,acc\nlora,8,,0.5\nlora,16,,0.9\nC3A,,64,0.75\n")
    ledger = tmp_path / "ledger.toml"
    ledger.write_text(ACCURACY)
    names = ("method=adapter", "hyperparameters.r=rank", "hyperparameters.block_size=block", "test_accuracy=acc")
    columns = [f"--column={name}" for name in names]
    done = call("verify", "--ledger", ledger, "--records", table, *columns, "--json")
    assert done.exit_code == 0, done.output
    (verdict,) = json.loads(done.output)["verdicts"]
    assert verdict["readings"][0]["results"][0]["value"] == pytest.approx(0.75 / 0.5)
    done = call("verify", "--records", table, "--only", "flops-*", "--quiet")
    assert done.exit_code == 2
    assert "lacks the column" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pareto", "{results}", "--output", "{page}", "--preset", "cpu-small"], "--steps and --preset go with"),
        (["pareto", "{results}", "--output", "{page}", "--column", "method=x"], "a column map goes with a table"),
        (["report", "{results}", "--output", "{page}", "--column", "method"], "is not NAME=COLUMN"),
        (["evaluate", "{results}/0.json"], "1 of 1 run covered by closed forms; an order needs at least 5"),
        (["evaluate", "{results}", "--column", "method=x"], "a column map goes with a table"),
        (["verify", "--records", "{page}.csv"], "cannot be read"),
        (["pareto", "{results}/broken.csv", "--output", "{page}"], "line 2, column train_time_s: 'nan' is not finite"),
    ],
)
def test_refusals_are_one_line(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (folder / "broken.csv").write_text("method,test_accuracy,train_time_s\nlora,0.5,nan\n")
    done = call(*(one.format(results=folder, page=tmp_path / "page") for one in arguments))
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert not (tmp_path / "page").exists()
    assert "Traceback" not in done.output
