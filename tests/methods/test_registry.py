"""One file a method: found by name, built from plain values, refused with a clear error."""

import dataclasses
from pathlib import Path

import pytest

import cdvft_bench.methods as package
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import make_method, method_class, method_names


def test_every_file_is_a_method_and_every_method_has_its_file() -> None:
    files = {p.stem for p in Path(package.__path__[0]).glob("*.py") if not p.stem.startswith("_")} - {"base"}
    assert set(method_names()) == files
    assert {"full", "lora", "dora", "fourierft", "c3a", "vera", "boft", "cdvft", "block_circulant"} <= files


@pytest.mark.parametrize("name", method_names())
def test_methods_are_frozen_dataclasses_with_a_source(name) -> None:
    method = make_method(name)
    assert dataclasses.is_dataclass(method)
    assert method.name == name
    assert method.source
    assert method.title in method.label
    assert hash(method) == hash(make_method(name))
    for field in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, 1)


@pytest.mark.parametrize("name", method_names())
def test_hyperparameters_resolve_on_a_layer(name) -> None:
    method = make_method(name)
    resolved = method.resolved(LinearShape(768, 768))
    assert set(resolved) == {f.name for f in dataclasses.fields(method)}


def test_unknown_names() -> None:
    with pytest.raises(UserError, match=r"'lorra' is not known; did you mean lora.* use one of .*lora"):
        method_class("lorra")
    with pytest.raises(UserError, match="cdvft has no hyperparameter 'rank'; it has m, block_size"):
        make_method("cdvft", {"rank": 8})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"m": 0}, "m = 0 is too small"),
        ({"m": 2.5}, r"m = 2\.5 is not an integer"),
        ({"block_size": 0}, "block_size = 0"),
        ({"alpha": float("inf")}, "alpha = inf"),
        ({"convention": "diagonal"}, "'diagonal'"),
        ({"path": "magic"}, "'magic'"),
        ({"init": "ones"}, "'ones'"),
        ({"m": 1, "init": "zero_circulant"}, "no circulant factor"),
    ],
)
def test_bad_cdvft_hyperparameters(values, message) -> None:
    with pytest.raises(UserError, match=message):
        make_method("cdvft", values)
