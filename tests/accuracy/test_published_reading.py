"""Runs that were made elsewhere, as users keep them: tables of any head, PEFT's results; and what is wrong there."""

import csv
import io
import json
import random
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from cdvft_bench.accuracy.published.reading import is_published, parse_table, read_published
from cdvft_bench.core.errors import UserError

HEAD = (
    "experiment,method,hyperparameters,target_modules,trainable_params,test_accuracy,train_time_s,"
    "peak_memory_bytes,adapter_file_bytes,lr,steps,device,torch,date"
)
GOOD = 'a,LORA,"{""r"": 8}","[""q"", ""b""]",10,0.5,1.5,100,10,0.1,5,L40S,2.13,2026-01-01'


def result(name: str = "lora/llama-3.2-3B-rank8", **changed: Any) -> dict[str, Any]:
    """A result as PEFT's comparison on MetaMathQA writes it; ``changed`` by "part.key"."""
    document: dict[str, Any] = {
        "run_info": {
            "created_at": "2026-06-20T10:18:57+00:00",
            "experiment_name": name,
            "train_config": {
                "model_id": "meta-llama/Llama-3.2-3B",
                "dtype": "bfloat16",
                "max_seq_length": 768,
                "batch_size": 4,
                "max_steps": 5000,
                "optimizer_type": "AdamW",
                "optimizer_kwargs": {"lr": 1e-4},
            },
            "peft_config": {"peft_type": "LORA", "r": 8, "target_modules": ["v_proj", "q_proj"], "revision": None},
        },
        "train_info": {
            "accelerator_memory_max": 22_000_000_000,
            "train_time": 940.5,
            "file_size": 9_000_000,
            "num_trainable_params": 2_293_760,
            "status": "success",
            "metrics": [{"step": 1}, {"test accuracy": 0.47, "train samples": 20_000, "train total tokens": 4_200_000}],
        },
        "meta_info": {"package_info": {"torch-version": "2.12.0"}, "system_info": {"accelerator": "NVIDIA L40S"}},
    }
    for path, value in changed.items():
        part: Any = document
        *above, last = path.split(".")
        for key in above:
            part = part[int(key) if isinstance(part, list) else key]
        part[last] = value
    return document


def write(folder: Path, *documents: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for i, document in enumerate(documents):
        (folder / f"{i}.json").write_text(json.dumps(document))
    return folder


def test_a_table_is_read_with_excel_s_mark_and_delimiters(tmp_path: Path) -> None:
    rows = list(csv.reader([HEAD, GOOD]))
    found = []
    for delimiter, mark in ((",", ""), (";", "\ufeff"), ("\t", "\ufeff")):
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter).writerows([*rows, [""] * len(rows[0]), []])
        path = tmp_path / "runs.csv"
        path.write_text(mark + text.getvalue(), encoding="utf-8", newline="")
        found.append(read_published(path).runs)
        assert is_published(path)
    assert found[0] == found[1] == found[2]
    (run,) = found[0]
    assert (run.target_modules, run.hyperparameters, run.score, run.lr) == (("b", "q"), {"r": 8}, 0.5, 0.1)


def test_a_decimal_comma_goes_with_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("\ufeffmethod;test_accuracy;lr;trainable_params\r\nlora;0,51;1,5E-4;1000\r\n", encoding="utf-8")
    (run,) = read_published(path).runs
    assert (run.score, run.lr, run.trainable_params) == (0.51, 1.5e-4, 1000)
    path.write_text("method;test_accuracy;trainable_params\nlora;0,51;1,500\n")
    with pytest.raises(UserError, match=r"column trainable_params: '1\.500' is not an integer"):
        read_published(path)


def test_a_column_map_reads_any_head(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("adapter,rank,acc [%],Trainable\nlora,8,0.51,1e6\nCDVFT,,0.55,12288.0\n")
    columns = {
        "method": "adapter",
        "hyperparameters.r": "rank",
        "test_accuracy": "acc [%]",
        "trainable_params": "Trainable",
    }
    one, other = read_published(path, columns).runs
    assert (one.method, one.hyperparameters, one.score, one.trainable_params) == ("lora", {"r": 8}, 0.51, 1_000_000)
    assert (other.method, other.hyperparameters, other.trainable_params) == ("CDVFT", {}, 12_288)
    assert other.train_time_s is None
    for wrong, message in (
        ({**columns, "method": "adaptor"}, "has no column 'adaptor' for method; it has adapter, rank"),
        ({**columns, "speed": "rank"}, "'speed' is no column of runs"),
        ({}, "lacks the column of scores"),
    ):
        with pytest.raises(UserError, match=message):
            read_published(path, wrong)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",method,", ",way,", "line 2, column method: None names no method"),
        (",10,0.5", ",ten,0.5", "line 2, column trainable_params: 'ten' is not a number"),
        (",10,0.5", ",10.5,0.5", "line 2, column trainable_params: '10.5' is not an integer"),
        (",10,0.5", ",-10,0.5", "line 2, column trainable_params: '-10' is negative"),
        (",0.5,", ",1.5,", r"line 2: test_accuracy = 1\.5 is not between 0 and 1; divide percentages by 100"),
        (",0.5,", ",-0.5,", r"test_accuracy = -0\.5 is not between 0 and 1"),
        (",0.5,", ",,", "column test_accuracy: '' is no score"),
        (",0.5,", ",nan,", "column test_accuracy: 'nan' is not finite"),
        (",1.5,", ",inf,", "column train_time_s: 'inf' is not finite"),
        (",1.5,", ",1e999,", "column train_time_s: '1e999' is not finite"),
        (",1.5,", ",-1.5,", "column train_time_s: '-1.5' is negative"),
        (",1.5,", ",1_5,", "column train_time_s: '1_5' is not a number"),
        (",0.1,", ",-0.1,", "column lr: '-0.1' is negative"),
        ('"{""r"": 8}"', "[8]", "column hyperparameters: '\\[8\\]' is no object of JSON"),
        ('"{""r"": 8}"', '"{""r"": 1e999}"', "hyperparameter r = inf is not finite"),
        ('"{""r"": 8}"', "{r: 8", "column hyperparameters: '{r: 8' is not valid"),
        ("a,LORA", "a,", "column method: '' names no method"),
        ('"[""q"", ""b""]"', "[1]", "column target_modules"),
        ("test_accuracy", "accurate", "lacks the column of scores, test_accuracy or test_dino_similarity or score"),
        ("steps", "score", "has several columns of scores: test_accuracy, score"),
        ("torch", "device", "the column 'device' stands twice"),
    ],
)
def test_every_cell_is_checked(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(f"{HEAD}\n{GOOD}\n".replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        read_published(path)
    assert "\n" not in str(caught.value)


def test_random_damage_is_a_user_s_error_in_one_line(tmp_path: Path) -> None:
    text = (resources.files("cdvft_bench.accuracy") / "data" / "peft_metamathqa_llama-3.2-3b.csv").read_text()
    rng = random.Random(11)
    said = []
    for _ in range(150):
        cells = list(text[: rng.randrange(400, 2500)])
        for _ in range(rng.randrange(1, 6)):
            cells[rng.randrange(len(cells))] = rng.choice(',;"\n\t-\x00e{}[]nN9')
        try:
            parse_table("".join(cells), "runs.csv")
        except UserError as error:
            said.append(str(error))
    assert len(said) > 50
    assert all(map(str.isprintable, said))


def test_peft_s_results_are_read_as_a_folder(tmp_path: Path) -> None:
    older = result(**{"run_info.created_at": "2025-01-01T00:00:00+00:00", "train_info.train_time": 1.0})
    failed = result("lora/llama-3.2-3B-rank9", **{"train_info.status": "failed"})
    full = result("full-finetuning/llama-3.2-3B-lr_0.00001", **{"run_info.peft_config": None})
    folder = write(tmp_path / "results", older, result(), failed, full, {"something": "else"})
    for path in (folder, tmp_path):
        found = read_published(path)
        assert is_published(path)
        assert [(run.experiment, run.method) for run in found.runs] == [
            ("lora/llama-3.2-3B-rank8", "LORA"),
            ("full-finetuning/llama-3.2-3B-lr_0.00001", "FULL"),
        ]
    run = found.runs[0]
    assert (run.train_time_s, run.tokens, run.batch, run.longest, run.lr) == (940.5, 210, 4, 768, 1e-4)
    assert (run.target_modules, run.hyperparameters) == (("q_proj", "v_proj"), {"r": 8})
    assert len(found.left_out) == 3
    assert "status is 'failed'" in str(found.left_out)
    assert "there is a newer one" in str(found.left_out)


def test_steps_alone_are_read_from_the_windows_between_evaluations(tmp_path: Path) -> None:
    windows = [{"step": 250 * i, "train time": 50.0, "eval time": 20.0} for i in range(1, 17)]  # 4,000 of 5,000 steps
    last = {"test accuracy": 0.5, "train time": None, "step": 5000}
    (run,) = read_published(write(tmp_path / "a", result(**{"train_info.metrics": [*windows, last]}))).runs
    assert run.loop_time_s is None  # a window without its time
    (run,) = read_published(
        write(tmp_path / "b", result(**{"train_info.metrics": [*windows, {"test accuracy": 1}]}))
    ).runs
    assert run.loop_time_s == pytest.approx(16 * 50 / 4000 * 5000)


def test_files_of_2025_and_of_image_generation(tmp_path: Path) -> None:
    old = result(**{"meta_info.system_info": {"gpu": "NVIDIA L40S"}})
    old["train_info"]["cuda_memory_max"] = old["train_info"].pop("accelerator_memory_max")
    (run,) = read_published(write(tmp_path / "a", old)).runs
    assert (run.device, run.peak_memory_bytes) == ("NVIDIA L40S", 22_000_000_000)
    image = result(
        **{
            "train_info.metrics": [{"test dino_similarity": -0.1, "drift": 0.2}],
            "run_info.train_config": {"use_gc": True, "resolution": 512},
        }
    )
    found = read_published(write(tmp_path / "b", image))
    assert (found.metric, found.runs[0].drift, found.runs[0].checkpointing) == ("test_dino_similarity", 0.2, True)
    with pytest.raises(UserError, match="several comparisons, with test_accuracy and test_dino_similarity"):
        read_published(write(tmp_path / "c", result("x"), image))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_info.train_time": -1}, "column train_time_s: -1 is negative"),
        ({"train_info.train_time": True}, "column train_time_s: True is not a number"),
        ({"train_info.train_time": "fast"}, "'fast' is not a number"),
        ({"train_info.train_time": 10**400}, "is not finite"),
        ({"train_info.num_trainable_params": 1.5}, "column trainable_params: 1.5 is not an integer"),
        ({"train_info.metrics": []}, "holds no score"),
        ({"train_info.metrics": {}}, "holds no score"),
        ({"train_info.metrics.1": {"test accuracy": None}}, "test_accuracy: None is no score"),
        ({"train_info": 5}, "it has no train_info"),
        ({"run_info.peft_config": [1]}, "is no object of JSON"),
        ({"run_info.peft_config": {"r": 8}}, "names no method"),
        ({"train_info.status": "cancelled"}, "holds no run; left out: 0.json .its status is 'cancelled'."),
    ],
)
def test_what_is_wrong_with_a_result_is_one_line(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    changed = {k.replace("metrics.1", "metrics.-1"): v for k, v in changed.items()}
    document = result()
    if "train_info.metrics.-1" in changed:
        document["train_info"]["metrics"] = [changed["train_info.metrics.-1"]]
    else:
        document = result(**changed)
    with pytest.raises(UserError, match=message) as caught:
        read_published(write(tmp_path / "results", document) / "0.json")
    assert str(caught.value).isprintable()


def test_what_is_no_comparison(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("{}")
    assert not is_published(tmp_path)
    assert not is_published(tmp_path / "results.jsonl")
    with pytest.raises(UserError, match="holds no result of PEFT's comparisons"):
        read_published(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_published(tmp_path / "none.csv")
    with pytest.raises(UserError, match="a column map goes with"):
        read_published(write(tmp_path / "r", result()), {"method": "x"})
