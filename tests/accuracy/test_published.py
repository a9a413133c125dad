"""The published figures as they come with the suite, and bad files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdvft_bench.accuracy.published import MODEL, PublishedRun, published_runs
from cdvft_bench.analytic.models import model_shape, target_linears
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import make_method


def by_name() -> dict[str, PublishedRun]:
    return {run.experiment: run for run in published_runs()}


def test_the_file_holds_63_runs_on_one_device() -> None:
    runs = published_runs()
    assert len(runs) == len(by_name()) == 63
    assert {run.device for run in runs} == {"NVIDIA L40S"}
    assert all(run.train_time_s > 0 and run.peak_memory_bytes > 0 for run in runs)


@pytest.mark.parametrize(
    ("experiment", "method", "values"),
    [
        ("lora-rank32", "lora", {"rank": 32}),
        ("lora-rank64", "lora", {"rank": 64}),
        ("lora-rank32-dora", "dora", {"rank": 32}),
        ("c3a-default", "c3a", {"block_size": 64}),
        ("fourierft-default", "fourierft", {"n_frequency": 1000}),
        ("fourierft-n_frequency-5000", "fourierft", {"n_frequency": 5000}),
        ("vera-default", "vera", {"rank": 256}),
        ("boft-default", "boft", {"block_size": 4}),
    ],
)
def test_our_formulas_give_the_published_parameters(experiment, method, values) -> None:
    run = by_name()[experiment]
    layers = target_linears(model_shape(MODEL), run.target_modules)
    assert sum(int(make_method(method, values).parameters(x.shape)) for x in layers) == run.trainable_params


def test_bad_files(tmp_path: Path) -> None:
    header = (
        "experiment,method,hyperparameters,target_modules,trainable_params,test_accuracy,train_time_s,"
        "peak_memory_bytes,adapter_file_bytes,lr,steps,device,torch,date"
    )
    good = 'a,LORA,{},"[""q""]",10,0.5,1.5,100,10,0.1,5,L40S,2.13,2026-01-01'
    path = tmp_path / "runs.csv"
    path.write_text(f"{header}\n{good}\n")
    assert published_runs(path)[0].target_modules == ("q",)
    for text, message in (
        (header.replace("lr,", ""), "lacks the column 'lr'"),
        (f"{header}\n{good.replace(',10,0.5', ',ten,0.5')}", "line 2, column trainable_params: 'ten'"),
        (f"{header}\n{good.replace('0.5', '1.5')}", r"test_accuracy = 1\.5"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            published_runs(path)
    with pytest.raises(UserError, match="cannot be read"):
        published_runs(tmp_path / "none.csv")
