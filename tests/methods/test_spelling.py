"""Methods as users write them."""

import pytest

from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import make_method, method_class, method_names, parse_method, parse_methods


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["lora"], [("lora", {})]),
        (["LoRA:16"], [("lora", {"rank": 16})]),
        (["lora rank=16"], [("lora", {"rank": 16})]),
        (["lora", "r=8", "lora_alpha=4"], [("lora", {"rank": 8, "alpha": 4})]),
        (["CDVFT:m=3:p=d/4"], [("cdvft", {"m": 3, "block_size": "d/4"})]),
        (["cdvft:m=3,p=64,dora"], [("cdvft", {"m": 3, "block_size": 64}), ("dora", {})]),
        (["cdvft merged_dense"], [("cdvft", {"path": "merged_dense"})]),
        (["CDVFT m=2 p=64 merged"], [("cdvft", {"m": 2, "block_size": 64, "path": "merged"})]),  # as tables write it
        (["c3a:d/2"], [("c3a", {"block_size": "d/2"})]),
        (["(IA)3,LoRA-FA,rs-lora, BCA"], [("ia3", {}), ("lora_fa", {}), ("rslora", {}), ("block_circulant", {})]),
        (["fourierft n=100", "frozen"], [("fourierft", {"n_frequency": 100}), ("frozen", {})]),
        (["Full fine-tuning"], [("full", {})]),
    ],
)
def test_spellings(texts, found) -> None:
    assert parse_methods(texts) == found


@pytest.mark.parametrize("name", method_names())
def test_titles_are_names(name) -> None:
    cls = method_class(name)
    assert parse_method([cls.title.upper()]) == (name, {})
    assert make_method(*parse_method([f"{name} "])) == cls()


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["lroa:16"], "method 'lroa' is not known; did you mean"),
        (["lora:rnk=16"], "lora has no hyperparameter 'rnk'; did you mean rank?"),
        (["lora:16:rank=8"], "lora: rank is given twice, as 16 and 8"),
        (["lora:16:8"], "'8' is the value of no hyperparameter; write NAME=VALUE"),
        (["cdvft:fast"], "'fast' is the value of no hyperparameter"),
        (["full:3"], "'3' is the value of no hyperparameter"),
        (["rank=3"], "'rank=3' names no method"),
        (["lora,,dora"], "a method is missing between commas"),
        (["lora rank="], "'rank=' is not NAME=VALUE"),
        (["lora =3"], "'=3' is not NAME=VALUE"),
        (["frozen m=2"], "the frozen subject has no hyperparameter 'm=2'"),
        ([""], "a method is missing"),
    ],
)
def test_mistakes_are_told_in_one_line(texts, said) -> None:
    with pytest.raises(UserError) as error:
        parse_methods(texts)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_one_method_is_one() -> None:
    with pytest.raises(UserError, match="lora, dora are 2 methods; give one"):
        parse_method(["lora", "dora"])
