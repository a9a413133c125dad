"""Lists of names: each can be used where it is listed for."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from cdvft_bench.analytic.circulant import CirculantPath
from cdvft_bench.analytic.models import MODELS
from cdvft_bench.cli import main
from cdvft_bench.methods import make_method, method_names
from cdvft_bench.predictor.devices import devices
from tests.predictor.test_predictor_answer import OWN


def listed(what: str, *more: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, ["list", what, "--json", *more])
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(done.output)["rows"]
    printed = CliRunner().invoke(main, ["list", what, *more]).output
    assert all(row["name"] in printed for row in rows)
    return rows


def test_every_method_with_the_defaults_that_it_takes() -> None:
    rows = listed("methods")
    assert [row["name"] for row in rows] == method_names()
    for row in rows:
        assert make_method(row["name"], row["defaults"]) == make_method(row["name"])


def test_models_gpus_and_paths(tmp_path: Path) -> None:
    assert [row["name"] for row in listed("models")] == list(MODELS)
    assert next(row["longest"] for row in listed("models") if row["name"] == "roberta-base") == 512
    assert [row["name"] for row in listed("gpus")] == list(devices())
    assert {row["name"] for row in listed("paths")} == set(get_args(CirculantPath))
    path = tmp_path / "gpus.toml"
    path.write_text(OWN)
    assert listed("gpus", "--devices", str(path))[0]["name"] == "mine"


def test_presets_say_what_they_are_for() -> None:
    rows = listed("presets")
    assert {"quick", "cpu-small", "gpu-full"} <= {row["name"] for row in rows}
    assert all(row["description"] for row in rows)


@pytest.mark.parametrize("what", ["m", "", "everything"])
def test_nothing_else_is_listed(what: str) -> None:
    assert CliRunner().invoke(main, ["list", what]).exit_code == 2


def test_plans_of_a_gpu_are_by_its_rates() -> None:
    def paths(*more: str) -> dict[str, float]:
        done = CliRunner().invoke(main, ["plan", "--d", "1024", "--dtype", "bf16", "--json", *more])
        assert done.exit_code == 0, done.output
        return {p["path"]: p["seconds"] for p in json.loads(done.output)["paths"]}

    fast, slow = paths("--gpu", "h100"), paths("--gpu", "l4")
    assert fast.keys() == slow.keys()
    assert all(fast[path] < slow[path] for path in fast)
    assert "did you mean h100" in CliRunner().invoke(main, ["plan", "--d", "64", "--gpu", "h101"]).output


@pytest.mark.parametrize(
    ("asked", "said"), [("preset", ""), ("MODELS", ""), ("modles", "did you mean models"), ("gpu", "")]
)
def test_a_list_by_its_singular_or_with_a_guess(asked: str, said: str) -> None:
    done = CliRunner().invoke(main, ["list", asked])
    assert (done.exit_code, said in done.output) == (2 if said else 0, True)


def test_a_missing_name_is_asked_for_in_a_line() -> None:
    error = CliRunner().invoke(main, ["list"]).output.strip().splitlines()[-1]
    assert error.startswith("Error: Missing argument")
    assert all(name in error for name in ("methods", "models", "gpus", "presets", "paths"))
