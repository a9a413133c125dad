"""What scripts and notebooks may rely on."""

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import cdvft_bench
from cdvft_bench.predictor import devices
from tests.analysis.test_two_stores import compare_records, run
from tests.predictor.test_predictor_answer import OWN


def test_every_public_name_is_there_and_described() -> None:
    for name in cdvft_bench.__all__:
        thing = getattr(cdvft_bench, name)
        assert name == "__version__" or thing.__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        cdvft_bench.nothing  # noqa: B018
    assert (Path(cdvft_bench.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", ["claims", "execution", "predictor", "methods"])
def test_a_package_has_the_names_that_it_lists(name: str) -> None:
    package = importlib.import_module(f"cdvft_bench.{name}")
    assert [one for one in package.__all__ if not hasattr(package, one)] == []
    assert not hasattr(package, "nothing")


def test_importing_the_package_imports_nothing_else() -> None:
    asked = "import sys, cdvft_bench; print(sorted({'torch', 'numpy', 'pandas', 'click'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tables_in_a_notebook_escape_what_files_hold() -> None:
    answered = cdvft_bench.answer("minilm", "l4", methods=["lora:4", "cdvft"])
    html = answered._repr_html_()
    assert html.count("<tr>") == 3
    assert "LoRA r=4" in html
    assert html.endswith(answered.sentence.replace("<", "&lt;"))
    compared = compare_records(run(seed=1), run(1.3, seed=2), names=("<b>", "b"))
    assert "<b>" not in compared._repr_html_()
    assert compared._repr_html_().count("<tr>") == 1 + sum(r.verdict != "no difference" for r in compared.rows)


def test_other_packages_bring_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "mine", "mine:PATH"

        def __init__(self, path: Path) -> None:
            self.path = path

        def load(self) -> str:
            return str(self.path)

    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(OWN)
    bad.write_text("a = 1")
    points = [Point(good), Point(bad)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if "devices" in group else [])
    devices._others.cache_clear()
    with pytest.warns(UserWarning, match="devices of the entry point mine = mine:PATH are left out"):
        assert devices.find_target("mine").name == "Accelerator of ours"
    devices._others.cache_clear()
